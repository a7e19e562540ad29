from collections import Counter
from pathlib import Path

from agents.planning.seeds import RunSeeds
from core.sample import SampleStatus
from flows.recipes.recipe_catalog import load_recipe_plan
from teachers.fake.fake_teacher import FakeTeacher
from tests.support.forked import FORKS
from tests.support.scripted_teacher import produce_scripted

DRAWN = ("kinds", "fields", "lengths", "openings")
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


def test_what_is_kept_passes_the_papers_tests(tmp_path: Path) -> None:
    plan = load_recipe_plan("instructions", [*FAKE, "samples=150"])
    samples = produce_scripted(plan, FakeTeacher(plan.recipe.teachers["main"], "instructions"), tmp_path)
    details = Counter(sample.detail for sample in samples if sample.state == SampleStatus.dropped)
    assert set(details) == {"askable", "novel", "answered"}
    for sample in samples:
        if sample.state == SampleStatus.kept:
            task, shown = sample.candidate.messages[0].content, sample.seed.data["examples"]
            assert max(rouge(task, other) for other in [sample.seed.data["parent"], *shown]) < 0.7
            assert not task.startswith("Draw")
            assert "sorry" not in sample.answer


def test_a_run_bootstraps_from_what_it_kept_and_a_resumed_one_from_the_same(tmp_path: Path) -> None:
    """Four shards in a row, killed in the third; nothing about it depends on where it was killed."""
    settings = [*FAKE, "samples=40", "shard_size=10", "task.ways={new=1}", "teachers.main.max_concurrent=4"]

    def run(runs: Path, **environment: str) -> int:
        program = FORKS.start("tests.support.produce_run", str(runs), "instructions", *settings, **environment)
        program.communicate()
        return program.wait()

    assert run(tmp_path / "whole") == 0
    assert run(tmp_path / "killed", KILL_AT="14") == -9
    assert run(tmp_path / "killed") == 0
    whole, killed = (sorted((tmp_path / name).glob("*/shards/*.parquet")) for name in ("whole", "killed"))
    assert [file.read_bytes() for file in whole] == [file.read_bytes() for file in killed]
    from core.storage.sample_files import read_samples

    first, last = read_samples(whole[0]), read_samples(whole[3])
    made = {sample.candidate.messages[0].content for sample in first if sample.state == SampleStatus.kept}
    assert all(len(sample.seed.data["examples"]) == 6 for sample in first)
    assert all(len(sample.seed.data["examples"]) == 8 for sample in last)
    assert any(made & set(sample.seed.data["examples"]) for sample in last)


def test_a_datasets_conversations_are_seeds(tmp_path: Path) -> None:
    import polars as pl

    rows = [{"id": str(i), "messages": [{"role": "user", "content": f"Say {i}."}]} for i in range(8)]
    pl.DataFrame(rows).write_parquet(tmp_path / "train.parquet")
    plan = load_recipe_plan("instructions", [*FAKE, f"seeds.path={tmp_path}/train.parquet", "task.ways={deepen=1}"])
    assert {seed.data["parent"] for seed in RunSeeds(plan, "0" * 16)[:50]} == {f"Say {i}." for i in range(8)}
