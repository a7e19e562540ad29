"""The family `decisions`: labels with votes for given texts, and texts written for drawn answers."""

import asyncio
import json
from collections import Counter
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from agents.checks import Subject
from agents.planning.run_plan import RunPlan
from agents.studies.teacher_probe import probe_teachers
from core.errors import ProviderError, RecipeError
from core.project_files import PROJECT
from core.runs.run_dir import RunDir
from core.sample import REPAIR_STRIDE, Candidate, Sample, SampleStatus, Seed
from core.storage.sample_files import read_samples, write_samples
from filters.base import Document
from filters.chain.filter_chain import apply_filters
from flows.data.curated_run import read_kept_rows
from flows.data.dataset_formats import format_dataset
from flows.recipes.recipe_catalog import load_recipe_plan
from plugins.serving.decisions.family import (
    VoteOptions,
    collect_probabilities,
    collect_votes,
    find_voted,
    votes_check,
)
from plugins.serving.decisions.questions import NONE_OF_THESE, Answer, parse_questions
from teachers.base import TeacherQuestion
from teachers.fake.fake_teacher import FakeTeacher
from tests.support.http_serving import serve_handler
from tests.support.lineages import make_run
from tests.support.scripted_teacher import ScriptedTeacher, build_test_seeds, produce_scripted

FEELING = "task.questions=[{name='mood', ask='Which mood?', labels=['glad', 'sad', 'none of these']}]"
PLAIN = ["teachers.main={model='fake/decisions'}", "topology.max_revisions=0"]


def made(plan: RunPlan, folder: Path) -> list[Sample]:
    return produce_scripted(plan, FakeTeacher(plan.recipe.teachers["main"], "decisions"), folder)


def test_written_texts_are_balanced_and_kept_only_where_votes_support_their_answer(tmp_path: Path) -> None:
    plan = load_recipe_plan("decisions", [*PLAIN, "samples=70"])
    seeds = build_test_seeds(plan)[:]
    assert set(Counter(seed.data["label"] for seed in seeds).values()) == {10}
    assert {seed.data["case"] for seed in seeds} == {"plain", "hard_negative", "ambiguous"}
    samples = made(plan, tmp_path)
    kept = [sample for sample in samples if sample.state is SampleStatus.kept]
    assert 10 < len(kept) < 70
    for sample in kept:
        votes = collect_votes(sample)["subject"]
        target = sample.seed.data["targets"]["subject"]
        assert len(votes) in (2, 3, 4)
        assert votes.count(target) > (0 if sample.seed.data["case"] == "ambiguous" else 2)
        assert json.loads(sample.answer)["subject"] == max([target, *votes], key=votes.count)
    assert any(sample.detail == "votes" for sample in samples if sample.state is SampleStatus.dropped)


@pytest.mark.parametrize("settings", [(), ("task.about='a headline'", "task.topics=[]", FEELING)])
def test_requests_differ_and_scenes_are_drawn_by_seed(settings: tuple[str, ...]) -> None:
    drawn = [
        [
            seed.data
            for seed in build_test_seeds(load_recipe_plan("decisions", [*PLAIN, "samples=300", *settings, *more]))
        ]
        for more in ((), (), ("seeds.draw.form=['a haiku']",))
    ]
    requests = [json.dumps([data["request"], data["drawn"]]) for data in drawn[0]]
    assert len(set(requests)) == 300
    assert drawn[0] == drawn[1]
    assert {data["drawn"]["form"] for data in drawn[2]} == {"a haiku"}
    assert all("topic" not in data["drawn"] for data in drawn[0] if data["label"] == NONE_OF_THESE or settings)
    names = {name for data in drawn[0] for name in data["drawn"]} - {"topic"}
    assert names == {"persona", "situation", "detail", "form", "length", "spelling"}


def test_a_given_text_has_no_scene(tmp_path: Path) -> None:
    texts = tmp_path / "texts.jsonl"
    texts.write_text('{"text": "Where is my parcel?"}', encoding="utf-8")
    [seed] = build_test_seeds(load_recipe_plan("decisions", [*PLAIN, "samples=1", f"seeds.path={texts}"]))
    assert not seed.conditions


@pytest.mark.parametrize("case", ["plain", "ambiguous", "given"])
def test_votes_stop_when_neither_finding_nor_label_can_change(case: str) -> None:
    """All 256 sequences of four votes for the answer, two others, or without a readable reply."""
    question = parse_questions([{"name": "a", "ask": "?", "labels": ["own", "b", "c"]}])[0]
    seed = Seed(id="x-0", data={"case": case, "questions": [question.model_dump(mode="json")], "wording": ""})
    candidate = Candidate(messages=[], fields={"text": "", "answers": {"a": "own"}})

    def summarize(votes: Sequence[str]) -> tuple[bool, Answer | None]:
        """Whether the text passes, and its label."""
        share = votes.count("own") / len(votes) if votes else 0
        passed = bool(votes) and (case == "given" or share >= 0.25 if case != "plain" else share > 0.5)
        return passed, find_voted(question, "own", votes, "") if passed else None

    saved = 0
    for votes in product(("own", "b", "c", None), repeat=4):
        asked: list[str] = []

        async def ask(
            _role: str, contract: Any, _values: Any, votes: Any = votes, asked: Any = asked, **more: Any
        ) -> Any:
            vote = votes[more["which"]]
            asked.append(vote)
            return contract(a=vote) if vote else None

        finding = asyncio.run(votes_check.run(Subject(seed, candidate, ask), VoteOptions()))
        first = ["own"] if case == "given" else []
        stopped, whole = (summarize([*first, *filter(None, some)]) for some in (asked, votes))
        assert stopped == whole
        assert finding.passed == (whole[0] and any(votes))
        saved += 4 - len(asked)
    assert saved == {"plain": 232, "ambiguous": 68, "given": 0}[case]


def test_texts_of_a_capable_model_are_kept_after_three_votes_with_their_labels_on_the_page(tmp_path: Path) -> None:
    """The control has each text once more with a word changed, which only a comparison without the questions' words finds."""
    recording = PROJECT / "benchmarks" / "recordings" / "scenes" / "decisions.jsonl"
    source = [f"seeds={{recording='{recording}'}}", f"teachers.main={{model='fake/replay:{recording}'}}"]
    run = make_run(tmp_path, *source, "cache_mb=0", "samples=12", recipe="decisions")
    samples = [sample for shard in run.shards() for sample in read_samples(run.kept_file(shard))]
    votes = [collect_votes(sample)["subject"] for sample in samples]
    assert Counter(map(len, votes)) == {3: 11, 4: 1}
    page = run.report_file.read_text(encoding="utf-8")
    assert "Labels and votes" in page
    assert "none of these 3, delivery 1" in page
    texts = [sample.candidate.fields["question"] for sample in samples]
    changed = [f"{text.rpartition(' ')[0]} otherwise" for text in texts]
    documents = [Document(str(number), text, question=text) for number, text in enumerate([*texts, *changed])]
    kept = apply_filters(documents, run.read_recipe().filters, PROJECT).kept
    assert [document.question for document in kept] == texts


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
