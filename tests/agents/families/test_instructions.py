import asyncio
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from agents.checks import Check, Subject
from agents.families.instructions import WAYS, Draft, Instructions, answered, askable, novel
from agents.seeds import Seeds
from agents.teachers.fake import FakeTeacher
from core.errors import RecipeError, UsageError
from core.recipe import PROJECT
from core.sample import Seed, State
from flows.recipes import load
from tests.scripted import produced, seeds_of

FAKE = ["teachers.main={model='fake/instructions'}", "agents.critic=false", "topology.max_revisions=0"]


def lcs(left: list[str], right: list[str]) -> int:
    """The textbook table, as the oracle of ROUGE-L."""
    rows = [[0] * (len(right) + 1) for _ in range(len(left) + 1)]
    for i, a in enumerate(left, 1):
        for j, b in enumerate(right, 1):
            rows[i][j] = rows[i - 1][j - 1] + 1 if a == b else max(rows[i - 1][j], rows[i][j - 1])
    return rows[-1][-1]


def rouge(left: str, right: str) -> float:
    a, b = (["".join(c for c in word if c.isalnum()) for word in text.lower().split()] for text in (left, right))
    return 2 * lcs(a, b) / (len(a) + len(b))


def test_tasks_come_by_every_way_and_are_shown_what_the_way_needs() -> None:
    seeds = seeds_of(load("instructions", [*FAKE, "samples=800"]))[:]
    ways = Counter(seed.data["way"] for seed in seeds)
    assert set(ways) == set(WAYS)
    assert 240 < ways["new"] < 360
    for seed in seeds:
        request = seed.data["request"]
        if seed.data["way"] == "new":
            assert len(set(seed.data["examples"])) == 6
            assert all(task in request for task in seed.data["examples"])
        else:
            assert seed.data["parent"] in request


def test_what_is_kept_passes_the_papers_tests(tmp_path: Path) -> None:
    plan = load("instructions", [*FAKE, "samples=150"])
    samples = produced(plan, FakeTeacher(plan.recipe.teachers["main"], "instructions"), tmp_path)
    details = Counter(sample.detail for sample in samples if sample.state == State.dropped)
    assert set(details) == {"askable", "novel", "answered"}
    for sample in samples:
        if sample.state == State.kept:
            task, shown = sample.candidate.messages[0].content, sample.seed.data["examples"]
            assert max(rouge(task, other) for other in [sample.seed.data["parent"], *shown]) < 0.7
            assert "picture" not in task
            assert "sorry" not in sample.answer


SEED = Seed(id="s-0", data={"parent": "Name three uses of salt.", "examples": ["Say why ice floats."]})


def fault(
    check: Check, instruction: str, answer: str = "Salt keeps fish and melts ice.", **options: object
) -> str | None:
    candidate = Instructions().candidate(SEED, Draft(instruction=instruction, answer=answer))
    subject = Subject(SEED, candidate, None)  # type: ignore[arg-type]
    (finding,) = asyncio.run(check.findings(subject, check.options.model_validate(options)))
    return None if finding.passed else finding.evidence


GOLDEN = [
    json.loads(line) for line in (PROJECT / "tests/agents/checks/golden/instructions.jsonl").read_text().splitlines()
]


@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: f"{case['check']}: {case['instruction'][:40]}")
def test_golden_cases(case: dict[str, str]) -> None:
    check = {"novel": novel, "askable": askable, "answered": answered}[case["check"]]
    found = fault(check, case["instruction"], case["answer"])
    assert (found or "") == "" if case["fault"] == "" else case["fault"] in (found or ""), found


def test_a_run_bootstraps_from_what_it_kept_and_a_resumed_one_from_the_same(tmp_path: Path) -> None:
    """Four shards in a row, killed in the third; nothing about it depends on where it was killed."""
    settings = [*FAKE, "samples=40", "shard_size=10", "task.ways={new=1}", "teachers.main.max_concurrent=4"]

    def run(runs: Path, **environment: str) -> int:
        command = [sys.executable, "-m", "tests.produce_here", str(runs), "instructions", *settings]
        return subprocess.run(
            command, cwd=PROJECT, env={**__import__("os").environ, **environment}, check=False
        ).returncode

    assert run(tmp_path / "whole") == 0
    assert run(tmp_path / "killed", KILL_AT="14") == -9
    assert run(tmp_path / "killed") == 0
    whole, killed = (sorted((tmp_path / name).glob("*/shards/*.parquet")) for name in ("whole", "killed"))
    assert [file.read_bytes() for file in whole] == [file.read_bytes() for file in killed]
    from core.store import read_samples

    first, last = read_samples(whole[0]), read_samples(whole[3])
    made = {sample.candidate.messages[0].content for sample in first if sample.state == State.kept}
    assert all(len(sample.seed.data["examples"]) == 6 for sample in first)
    assert all(len(sample.seed.data["examples"]) == 8 for sample in last)
    assert any(made & set(sample.seed.data["examples"]) for sample in last)


def test_a_datasets_conversations_are_seeds(tmp_path: Path) -> None:
    import polars as pl

    rows = [{"id": str(i), "messages": [{"role": "user", "content": f"Say {i}."}]} for i in range(8)]
    pl.DataFrame(rows).write_parquet(tmp_path / "train.parquet")
    plan = load("instructions", [*FAKE, f"seeds.path={tmp_path}/train.parquet", "task.ways={deepen=1}"])
    assert {seed.data["parent"] for seed in Seeds(plan, "0" * 16)[:50]} == {f"Say {i}." for i in range(8)}


def test_seeds_without_a_task_and_ways_that_are_none_are_told(tmp_path: Path) -> None:
    (tmp_path / "seeds.jsonl").write_text('{"topic": "bees"}\n')
    with pytest.raises(UsageError, match="each seed of instructions needs the key 'instruction'"):
        seeds_of(load("instructions", [*FAKE, f"seeds.path={tmp_path}/seeds.jsonl"]))
    with pytest.raises(RecipeError, match="unknown ways sideways"):
        load("instructions", [*FAKE, "task.ways={sideways=1}"])
