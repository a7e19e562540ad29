"""The held-out requests of a release, the test of their order on students that did and did not read them; rebuilt students."""

import json
from collections.abc import Sequence
from itertools import pairwise, product
from pathlib import Path
from random import Random

import pytest

from core.errors import UsageError
from core.runs.releases import Release, read_release
from core.storage.atomic_files import hash_file
from flows.data.curated_run import read_kept_rows
from flows.data.run_storage import RunStorage
from flows.release.release_creation import create_release
from flows.run.dataset_stages import finish_run, package_samples
from flows.run.pipeline import open_run_context, run_distill_stage
from flows.run.run_preparation import prepare_run
from flows.terminal.console import SESSION
from plugins.rebuild.benchmarks.read_orders import read_requests, run_student
from plugins.rebuild.comparison import TOLERANCE, Rebuild
from plugins.rebuild.held_out import LEVEL, ORDERS, SHARD, check_order, compute_probability, rank_shards
from plugins.rebuild.rebuild import format_rebuild, rebuild_release
from plugins.rebuild.recording import HELD_OUT
from plugins.rebuild.tests.made_releases import RECORDED, copy_release, edit_json, release_recorded, rewrite_manifest
from tests.flows.commands.test_commands import called
from tests.support.lineages import OFF, SMALL, make_run

TINY = "start='random',layers=2,hidden_size=64,vocabulary=600,epochs=1,max_tokens=64,replay=false,average=false"
EVALUATED = f"student={{{TINY},evaluation={{requests=40,panel=0}}}}"


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SESSION, "quiet", True)


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Release:
    return release_recorded(tmp_path_factory.mktemp("released") / "runs", settings=[EVALUATED])


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Release:
    """A release of a run that trained its student."""
    runs = tmp_path_factory.mktemp("trained") / "runs"
    run = make_run(runs, OFF, RECORDED, EVALUATED)
    with open_run_context(prepare_run("smoke", [*SMALL, OFF, RECORDED, EVALUATED], str(runs), resume=True)) as context:
        run_distill_stage.fn(context, package_samples(context, read_kept_rows(run)))
        finish_run(context)
    return create_release(run).release


def ask_about(release: Release) -> list[str]:
    return [json.loads(line)["request"] for line in (release.path / HELD_OUT).read_text().splitlines()]


def test_requests_are_committed_to_before_a_student_is_trained(release: Release, tmp_path: Path) -> None:
    record = release.manifest.run.plugins["rebuild"]
    assert record["held_out"] == hash_file(release.path / HELD_OUT) == release.manifest.files[HELD_OUT]
    assert release.manifest.run.student is None
    asked = ask_about(release)
    assert len(asked) == len(set(asked)) > 40, "those of the evaluation, and of held-out rows"
    import polars as pl

    train = pl.read_parquet(release.path / "dataset/train.parquet")["messages"].to_list()
    assert not {turn["content"] for turns in train for turn in turns} & set(asked)
    copy = copy_release(release, tmp_path)
    (copy / HELD_OUT).write_text("".join(sorted((copy / HELD_OUT).read_text().splitlines(keepends=True))))
    rewrite_manifest(copy)
    assert (rebuild(read_release(copy)).difference or "").startswith(f"{HELD_OUT}: row 1: text: ")
    assert rebuild(release).equal


def rebuild(release: Release, *, student: bool = False) -> Rebuild:
    return rebuild_release(release, RunStorage(release.path.parents[2] / "runs"), None, student=student)


def test_the_probability_of_ranks_is_exact() -> None:
    values = [compute_probability(ranks) for ranks in product(range(ORDERS), repeat=2)]
    for level in (0.001, 0.01, 0.05, 0.3):
        assert sum(value <= level for value in values) <= level * len(values)
    assert min(values) == 1 / ORDERS**2
    assert compute_probability([ORDERS - 1] * 300) == 1


def prefer_the_alphabet(orders: Sequence[Sequence[str]]) -> list[float]:
    """A model with strong ideas about order, and none about the file."""
    return [-sum(before > after for before, after in pairwise(order)) for order in orders]


def test_a_model_that_did_not_read_the_file_raises_few_alarms() -> None:
    lines = [f"request {number:02d}" for number in range(8 * SHARD)]
    values = []
    for number in range(400):
        file = Random(number).sample(lines, len(lines))
        values.append(compute_probability(rank_shards(file, prefer_the_alphabet, "r")))
    assert sum(value <= LEVEL for value in values) <= 12, "more has a probability of 0.001"
    assert compute_probability(rank_shards(lines, prefer_the_alphabet, "r")) <= LEVEL, (
        "the control: an order that it likes"
    )


@pytest.mark.slow
def test_a_student_that_read_the_file_is_found_and_one_that_read_it_shuffled_is_not() -> None:
    control, found = run_student(read_requests(), 1, [("shuffled", 16), ("file", 16)])
    assert control > LEVEL
    assert found < LEVEL / 1000


@pytest.mark.slow
def test_the_command_tests_a_students_folder(trained: Release, capsys: pytest.CaptureFixture[str]) -> None:
    runs = trained.path.parents[2] / "runs"
    student = runs / trained.manifest.run.run / "student"
    arguments = ("rebuild", "smoke/0", "--order-test", str(student), "--runs-dir", str(runs))
    code, out, _ = called(capsys, *arguments)
    assert (code, f"smoke/0: {student} does not prefer the order of the held-out requests (p = " in out) == (0, True)
    code, out, _ = called(capsys, *arguments, "--json")
    found, requests = json.loads(out), len(ask_about(trained))
    assert (code, found["requests"], len(found["ranks"])) == (0, requests // SHARD * SHARD, requests // SHARD)


def test_what_cannot_be_tested_is_refused(release: Release, tmp_path: Path) -> None:
    (tmp_path / "few.jsonl").write_text("{}\n" * 9)
    with pytest.raises(UsageError, match="r/0: has 9 held-out requests; the test needs 10 or more"):
        check_order("r/0", tmp_path / "few.jsonl", tmp_path)
    with pytest.raises(UsageError, match=r"is not a student's folder"):
        check_order("r/0", release.path / HELD_OUT, tmp_path)
    with pytest.raises(UsageError, match=r"smoke/0: was released without a student; leave out --student"):
        rebuild(release, student=True)


@pytest.mark.attack("a stranger's release names endpoints or files for the training of its student", "it is refused")
@pytest.mark.parametrize(
    "setting",
    [
        {"track": ["wandb"]}, {"distillation": {"cache": "/tmp/any"}}, {"start": "/tmp/any"},
        {"objective": "forward_kl", "distillation": {"teacher": "https://a.b/v1#c", "signals": "top_k"}},
    ],
)  # fmt: skip
def test_a_strangers_student_reaches_nothing(setting: dict[str, object], trained: Release, tmp_path: Path) -> None:
    copy = copy_release(trained, tmp_path)
    edit_json(copy / "recording/recipe.json", lambda whole: whole["recipe"]["student"].update(setting))
    rewrite_manifest(copy)
    given = read_release(copy)
    with pytest.raises(
        UsageError, match=rf"student\.({'|'.join(setting)}) names what is not in the release"
    ) as refused:
        rebuild_release(given, RunStorage(tmp_path / "mine/runs"), None, student=True)
    assert refused.value.hint.startswith("hint: if you trust the recipe, copy the release to ")


@pytest.mark.slow
def test_a_student_is_trained_again_and_compared_by_its_losses(trained: Release, tmp_path: Path) -> None:
    found = rebuild(trained, student=True)
    assert (found.equal, found.difference) == (True, None)
    assert found.losses is not None
    assert abs(found.losses[0] - found.losses[1]) <= TOLERANCE
    assert "student  held-out loss " in format_rebuild(found)
    assert rebuild(trained).losses is None
    copy = copy_release(trained, tmp_path)

    def change_student(**changes: object) -> str:
        rewrite_manifest(copy, lambda whole: whole["run"]["student"].update(changes))
        assert rebuild(read_release(copy)).equal, "a student is only compared on request"
        return rebuild(read_release(copy), student=True).difference or ""

    better = found.losses[0] - 3 * TOLERANCE
    assert change_student(loss_after=better).startswith(f"the student's loss_after is {better:.4f} there, ")
    assert change_student(steps=99).startswith("the student's steps is 99 there, ")
