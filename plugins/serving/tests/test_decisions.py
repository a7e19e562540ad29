"""The family `decisions`: labels with votes for given texts, and texts written for drawn answers."""

import asyncio
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from agents.planning.run_plan import RunPlan
from agents.studies.teacher_probe import probe_teachers
from core.errors import ProviderError, RecipeError
from core.runs.run_dir import RunDir
from core.sample import REPAIR_STRIDE, Sample, SampleStatus
from core.storage.sample_files import read_samples, write_samples
from flows.data.curated_run import read_kept_rows
from flows.data.dataset_formats import format_dataset
from flows.recipes.recipe_catalog import load_recipe_plan
from plugins.serving.decisions.family import collect_probabilities, collect_votes
from plugins.serving.decisions.questions import parse_questions
from teachers.base import TeacherQuestion
from teachers.fake.fake_teacher import FakeTeacher
from tests.support.http_serving import serve_handler
from tests.support.lineages import make_run
from tests.support.scripted_teacher import ScriptedTeacher, build_test_seeds, produce_scripted

PLAIN = ["teachers.main={model='fake/decisions'}", "topology.max_revisions=0"]


def made(plan: RunPlan, folder: Path) -> list[Sample]:
    return produce_scripted(plan, FakeTeacher(plan.recipe.teachers["main"], "decisions"), folder)


def test_written_texts_are_balanced_and_kept_only_where_votes_support_their_answer(tmp_path: Path) -> None:
    plan = load_recipe_plan("decisions", [*PLAIN, "samples=60"])
    seeds = build_test_seeds(plan)[:]
    assert set(Counter(seed.data["label"] for seed in seeds).values()) == {10}
    assert {seed.data["case"] for seed in seeds} == {"plain", "hard_negative", "ambiguous"}
    samples = made(plan, tmp_path)
    kept = [sample for sample in samples if sample.state is SampleStatus.kept]
    assert 10 < len(kept) < 60
    for sample in kept:
        votes = collect_votes(sample)["subject"]
        target = sample.seed.data["targets"]["subject"]
        assert len(votes) == 4
        assert votes.count(target) > (0 if sample.seed.data["case"] == "ambiguous" else 2)
        assert json.loads(sample.answer)["subject"] == max([target, *votes], key=votes.count)
    assert any(sample.detail == "votes" for sample in samples if sample.state is SampleStatus.dropped)


AMBIGUOUS = ["task.cases={ambiguous=1}", "samples=12"]


@pytest.mark.parametrize(
    ("given", "spread", "denied"), [(False, 3, True), (False, 2, False), (True, 4, True), (True, 2, False)]
)
def test_the_dataset_has_the_label_of_most_votes_and_the_votes(
    given: bool, spread: int, denied: bool, tmp_path: Path
) -> None:
    """Of four votes, `spread` are for another label than the drawn or drafted one, which also counts for a given text."""
    texts = tmp_path / "texts.jsonl"
    texts.write_text("\n".join(json.dumps({"text": f"Parcel {i}."}) for i in range(12)), encoding="utf-8")
    source = [f"seeds.path={texts}", "samples=12"] if given else AMBIGUOUS
    plan = load_recipe_plan("decisions", [*PLAIN, *source])
    own: dict[int, Any] = {}

    def reply(question: TeacherQuestion) -> str:
        assert question.key
        seed, voter = question.key.sample, question.key.agent == "verifier"
        if question.contract == "WrittenCase":
            own[seed] = build_test_seeds(plan)[seed].data["targets"]
            return json.dumps({"text": f"Text {seed}."})
        drafted = own.setdefault(seed, {"subject": "delivery", "urgent": True})
        other = {"subject": "return" if drafted["subject"] != "return" else "payment", "urgent": drafted["urgent"]}
        return json.dumps(other if voter and question.key.attempt // REPAIR_STRIDE < spread else drafted)

    samples = produce_scripted(plan, ScriptedTeacher(reply), tmp_path)
    assert {sample.state for sample in samples} == {SampleStatus.kept}
    run = RunDir(tmp_path / "mine-00000000")
    for file in (run.shard_file(0), run.kept_file(0)):
        write_samples(file, samples)
    [form, _] = format_dataset("messages", [read_kept_rows(run), read_kept_rows(run).clear()]).parts
    for sample, row in zip(samples, form.iter_rows(named=True), strict=True):
        drafted = own[sample.seed.index]["subject"]
        exported = json.loads(row["messages"][-1]["content"])["subject"]
        assert (exported != drafted) == denied
        votes = {vote["answer"]: vote["votes"] for vote in row["votes"] if vote["question"] == "subject"}
        assert (votes[drafted], sum(votes.values())) == (4 - spread + given, 4 + given) if spread < 4 + given else True
        assert collect_votes(sample)["subject"].count(drafted) == votes.get(drafted, 0)


@pytest.mark.slow
@pytest.mark.xdist_group("embedded")
def test_probabilities_of_the_embedded_teacher_foretell_its_votes(tmp_path: Path) -> None:
    """Of 40 votes at temperature 1, as many are `true` as the probabilities of one reply each say, within 3.5 deviations."""
    texts, number, votes = tmp_path / "texts.jsonl", 4, 10
    rows = [
        {"text": f"{words} {i}."}
        for i, words in enumerate(("Where is my parcel", "Thanks, all is well", "HURRY", "It is late"))
    ]
    texts.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    settings = [
        "teachers.main={model='local/smollm2-135m'}", f"seeds.path={texts}", f"samples={number}", "topology.max_revisions=0",
        "task.questions=[{name='urgent', ask='Is it urgent?', type='yes_no'}]", "agents.verifier.top_p=1",
        f"verifiers=[{{type='votes', by='probabilities'}}, {{type='votes', votes={votes}, temperature=1.0}}]",
    ]  # fmt: skip
    run = make_run(tmp_path / "runs", *settings, recipe="decisions")
    samples = [sample for shard in run.shards() for sample in read_samples(run.kept_file(shard))]
    assert len(samples) == number
    read = [collect_probabilities(sample)["urgent"] for sample in samples]
    assert all(sum(one.values()) == pytest.approx(1) and 0 < one["yes"] < 1 for one in read)
    drawn = [vote for sample in samples for vote in collect_votes(sample)["urgent"][2:]]
    assert len(drawn) == number * votes
    expected = sum(votes * one["yes"] for one in read)
    deviation = sum(votes * one["yes"] * one["no"] for one in read) ** 0.5
    assert deviation > 1
    assert abs(drawn.count(True) - expected) < 3.5 * deviation


def test_a_teacher_without_probabilities_ends_the_run_with_the_reason(tmp_path: Path) -> None:
    texts = tmp_path / "texts.jsonl"
    texts.write_text('{"text": "It is subject delivery. It is urgent true."}', encoding="utf-8")
    verifiers = "verifiers=[{type='votes', by='probabilities'}]"
    plan = load_recipe_plan("decisions", [*PLAIN, "samples=1", f"seeds.path={texts}", verifiers])
    with pytest.raises(ProviderError, match='returns no token probabilities, which by = "probabilities" needs'):
        made(plan, tmp_path)
    silent = "teachers.main={model='local/smollm2-135m', logprobs=false}"
    with pytest.raises(RecipeError, match=r"verifiers\.0.*local/smollm2-135m returns no token probabilities"):
        load_recipe_plan("decisions", [silent, f"seeds.path={texts}", verifiers])


@pytest.mark.parametrize(
    ("question", "fault"),
    [
        ({"name": "a", "ask": "?", "labels": ["x"]}, "two or more different labels"),
        ({"name": "a", "ask": "?", "type": "score", "low": 5, "high": 5}, "low = 5 must be under high = 5"),
        ({"name": "a", "ask": "?", "labels": ["x", "y"], "meanings": {"z": "?"}}, "meanings of 'z'"),
        ({"name": "A", "ask": "?", "labels": ["x", "y"]}, "name"),
    ],
)
def test_a_question_that_cannot_be_is_refused(question: dict[str, object], fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        parse_questions([question])


@pytest.mark.parametrize("by", ["probabilities", "votes"])
def test_a_check_that_reads_probabilities_is_a_fault_of_a_gateway_without_them(by: str) -> None:
    async def answer(request: web.Request) -> web.Response:
        body = await request.json()
        if "logprobs" in body:
            fault = {
                "message": "Unsupported parameter: 'logprobs' is not supported with this model.",
                "param": "logprobs",
            }
            return web.json_response({"error": {**fault, "code": "unsupported_parameter"}}, status=400)
        text = '{"colour": "ochre", "again": "no"}' if "response_format" in body else "1"
        choice = {"message": {"content": text}, "finish_reason": "stop"}
        return web.json_response({"choices": [choice], "usage": {"prompt_tokens": 3, "completion_tokens": 4}})

    async def probe() -> str:
        async with serve_handler("/v1/chat/completions", answer) as address:
            teacher = f"teachers.main={{model='openai/m',base_url='{address}/v1'}}"
            plan = load_recipe_plan("decisions", [teacher, f"verifiers=[{{type='votes', by='{by}'}}]"])
            return (await probe_teachers(plan))["main"]

    if by == "probabilities":
        with pytest.raises(ProviderError, match="which the check votes needs with its options"):
            asyncio.run(probe())
    else:
        assert "NOT: returns token probabilities" in asyncio.run(probe()), "the control: nothing needs them"
