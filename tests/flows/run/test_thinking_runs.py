"""Thinking from the teacher to the dataset, in whole runs of the scripted teacher."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from core.runs.records import RunManifest
from core.runs.run_dir import RunDir
from core.sample import SampleStatus
from core.storage.atomic_files import hash_file
from core.thinking import find_thinking_tag, split_thinking
from flows.clean.run_curation import curate_run
from flows.data.curated_run import read_finished_samples, read_kept_rows, read_kept_samples, split_rows
from flows.run import stages
from tests.support.forked import FORKS
from tests.support.produce_run import produce_run

SIZE = ["samples=24", "shard_size=8", "answers_per_seed=2"]


def settings_of(*more: str, **faults: float) -> list[str]:
    rates = {"malformed": 0.1, **faults}
    table = ", ".join(f"{name} = {rate}" for name, rate in rates.items())
    return [*SIZE, f'teachers.main={{model="fake/writer", extra={{ {table} }}}}', *more]


def make_run(runs: Path, *more: str, **faults: float) -> RunDir:
    run, missing = produce_run(str(runs), "smoke", settings_of(*more, **faults))
    assert missing.sentences == []
    return run


def write_dataset(run: RunDir) -> RunManifest:
    manifest = run.read_manifest()
    stages.write_dataset(run, manifest, run.read_recipe(), split_rows(read_kept_rows(run), 0.25, seed=7))
    return manifest


def read_rows(run: RunDir, *folders: str) -> Iterator[dict[str, Any]]:
    for side in ("train", "validation"):
        lines = run.dataset.joinpath(*folders, f"{side}.jsonl").read_text(encoding="utf-8").splitlines()
        yield from map(json.loads, lines)


@pytest.fixture(scope="module")
def thinking_run(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    formats = 'dataset.formats=["messages", "prompt_completion", "preference", "alpaca", "sharegpt"]'
    return make_run(tmp_path_factory.mktemp("thinks"), formats, 'dataset.thinking="tags"', thinking=1.0)


def test_each_row_has_the_thinking_of_the_reply_that_became_its_answer(thinking_run: RunDir) -> None:
    manifest, kept = write_dataset(thinking_run), {sample.id: sample for sample in read_kept_samples(thinking_run)}
    assert len(kept) >= 5
    assert any(sample.revisions for sample in kept.values()), "some were revised"
    for sample in kept.values():
        writer = [turn for turn in sample.turns if turn.agent == "generator"][-1]
        assert sample.candidate.thinking == writer.reasoning != ""
        assert find_thinking_tag(sample.answer) is None
    record = manifest.dataset.thinking
    assert record is not None
    assert (record.rows, record.thought, record.form) == (len(kept), len(kept), "tags")
    mean = sum(len(sample.candidate.thinking.split()) for sample in kept.values()) / len(kept)
    assert record.mean_words == pytest.approx(mean, abs=0.05)

    rows = {row["id"]: row for row in read_rows(thinking_run, "messages")}
    assert rows.keys() == kept.keys()
    answers = {
        "messages": lambda row: row["messages"][-1]["content"],
        "prompt_completion": lambda row: row["completion"][0]["content"],
        "alpaca": lambda row: row["output"],
        "sharegpt": lambda row: row["conversations"][-1]["value"],
    }
    for form, read in answers.items():
        for row in read_rows(thinking_run, form):
            sample = kept[row["id"]]
            assert split_thinking(read(row))[:2] == (sample.candidate.thinking, sample.answer), form
    pairs = list(read_rows(thinking_run, "preference"))
    assert pairs
    turns = {sample.id: sample.turns for sample in read_finished_samples(thinking_run)}
    for pair in pairs:
        assert find_thinking_tag(json.dumps(pair["prompt"])) is None
        for side in ("chosen", "rejected"):
            thinking, answer, _ = split_thinking(pair[side][0]["content"])
            name, _, revision = pair[f"{side}_id"].partition("/")
            wrote = [turn for turn in turns[name] if turn.reasoning == thinking and turn.agent == "generator"]
            assert wrote, "each side has its own thinking"
            assert not revision or wrote[0].revision == int(revision)
            assert json.loads(wrote[-1].reply)["answer"].strip() == answer


def test_thinking_changes_nothing_else_and_is_nowhere_without_it(thinking_run: RunDir, tmp_path: Path) -> None:
    plain = make_run(tmp_path)
    manifest = write_dataset(plain)
    assert manifest.dataset.thinking is None
    for file in [*plain.path.rglob("*.parquet")]:
        schema = pl.read_parquet_schema(file)
        assert "reasoning" not in str(schema.get("messages")), file
        assert find_thinking_tag(str(pl.read_parquet(file).to_dicts())) is None, file
    thought = {sample.id.rpartition("-")[2]: sample for sample in read_finished_samples(thinking_run)}
    for sample in read_finished_samples(plain):
        assert (sample.state, sample.answer) == (
            thought[sample.id.rpartition("-")[2]].state,
            thought[sample.id.rpartition("-")[2]].answer,
        ), "the control has the same answers"


def test_by_default_thinking_is_in_the_samples_and_not_in_the_dataset(tmp_path: Path) -> None:
    run = make_run(tmp_path, thinking=0.5)
    manifest = write_dataset(run)
    with_thinking = [sample for sample in read_kept_samples(run) if sample.candidate.thinking]
    assert manifest.dataset.thinking is not None
    assert 0 < manifest.dataset.thinking.thought == len(with_thinking) < manifest.dataset.thinking.rows
    for file in (f for f in run.dataset.rglob("*") if f.is_file() and f.name != "README.md"):
        assert not any(sample.candidate.thinking.encode() in file.read_bytes() for sample in with_thinking)
    for row in read_rows(run, "messages"):
        assert [set(turn) for turn in row["messages"]] == [{"role", "content"}] * 2
    assert "It is not in this dataset" in (run.dataset / "README.md").read_text()


@pytest.mark.attack(
    "a teacher leaks its thinking into its answer",
    "the reply is asked for again or fails; no kept answer and no row has it",
)
def test_planted_thinking_in_answers_is_never_kept(tmp_path: Path) -> None:
    run, missing = produce_run(str(tmp_path), "smoke", settings_of("max_failed=1", thinking=0.5, leak=0.4))
    assert "a reply did not match its schema, even after repairs" in missing.sentences[0]
    finished = list(read_finished_samples(run))
    leaks = [turn for sample in finished for turn in sample.turns if find_thinking_tag(turn.reply)]
    assert len(leaks) >= 8, "it leaks at all"
    assert any("it contains <think>" in turn.asked for sample in finished for turn in sample.turns), "and is repaired"
    write_dataset(run)
    for sample in read_kept_samples(run):
        assert find_thinking_tag(sample.answer) is None
    assert find_thinking_tag(json.dumps(list(read_rows(run, "messages")))) is None


@pytest.mark.slow
def test_a_killed_run_resumes_with_the_same_thinking(tmp_path: Path) -> None:
    whole = make_run(tmp_path / "whole", 'dataset.thinking="field"', thinking=0.7)
    settings = settings_of('dataset.thinking="field"', thinking=0.7)
    for step in (7, 20, 41):
        runs = tmp_path / f"killed{step}"
        killed = FORKS.start("tests.support.produce_run", str(runs), "smoke", *settings, KILL_AT=str(step))
        killed.communicate()
        assert killed.returncode == -9
        resumed = make_run(runs, 'dataset.thinking="field"', thinking=0.7)
        assert list(read_finished_samples(resumed)) == list(read_finished_samples(whole))
        assert [hash_file(resumed.kept_file(n)) for n in resumed.shards()] == [
            hash_file(whole.kept_file(n)) for n in whole.shards()
        ]


def test_personal_data_in_thinking_is_masked_everywhere_or_drops_the_sample(tmp_path: Path) -> None:
    run = make_run(tmp_path, 'filters=[{type="pii"}]', thinking=1.0)
    shard = pl.read_parquet(run.shard_file(0))
    secret = "ann.smith@mail-corp.com"
    turns = pl.element().struct
    leaking = shard.with_columns(
        messages=pl.col("messages").list.eval(
            turns.with_fields(reasoning=pl.concat_str(turns.field("reasoning"), pl.lit(f" Ask {secret}.")))
        )
    )
    leaking.write_parquet(run.shard_file(0))
    recipe = run.read_recipe()
    curate_run(run, recipe, [])
    kept = [sample for sample in read_kept_samples(run) if sample.id in set(shard["id"])]
    assert kept
    assert all("Ask [EMAIL]." in sample.candidate.thinking for sample in kept)
    assert secret.encode() not in run.kept_file(0).read_bytes()
    (table,) = recipe.filters
    dropping = recipe.model_copy(update={"filters": (table.model_copy(update={"action": "drop"}),)})
    curate_run(run, dropping, [])
    states = {sample.id: sample for sample in read_finished_samples(run) if sample.id in {s.id for s in kept}}
    assert {(sample.state, sample.detail) for sample in states.values()} == {(SampleStatus.dropped, "has email 1")}
