"""Promotion: which student becomes the next generator, what a release then holds, and what the next run does with it."""

import json
import re
import shutil
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import Any

import polars as pl
import pytest

from core.config.recipe import LineageConfig, Recipe
from core.errors import StoreError, UsageError
from core.runs.records import CollapseRecord, CollapseVerdict, RunManifest
from core.runs.releases import Release
from core.runs.run_dir import RunDir
from core.storage.atomic_files import hash_file, read_json, write_json
from core.weights.packaged_weights import find_embedded_teacher
from flows.data.curated_run import read_finished_samples
from flows.data.dataset_mixture import EarlierRelease, MixtureSources, join_sides, mix_dataset, split_own_rows
from flows.data.student_files import describe_plan_verification
from flows.evaluate.evaluation_options import EvaluationOptions
from flows.evaluate.student_evaluation import prepare_student_evaluation
from flows.evaluate.student_results import build_paired_comparison
from flows.recipes.recipe_catalog import load_recipe_plan
from flows.release.release_creation import create_release, format_created_release
from flows.release.release_gate import STUDENT_WEIGHTS, find_promotion_refusals
from flows.run.run_preparation import PreparedRun, plan_next_run, prepare_run
from tests.flows.commands.test_commands import called
from tests.flows.data.test_dataset_mixture import prompts_of, rows_of
from tests.flows.release.test_release_kills import check_clean, content, start, steps_of
from tests.support.exported_students import export_student
from tests.support.lineages import OFF, SMALL, lineage, make_release, make_run
from tests.support.promotions import add_panel, add_student
from tests.support.whole_runs import ended

PROMOTE = ("lineage.promote=true", "student={evaluation={requests=12}}")
WEIGHTS = "teacher/student-q8_0.gguf"


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_student(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory, gguf: Path) -> RunDir:
    """A finished run with a student that surely passes more than its teacher; never changed by a test."""
    run = make_run(tmp_path_factory.mktemp("ready") / "runs", OFF, *PROMOTE)
    add_student(run, gguf)
    return run


@pytest.fixture
def finished(ready: RunDir, tmp_path: Path) -> RunDir:
    return RunDir(shutil.copytree(ready.path.parent.parent, tmp_path / "place") / "runs" / ready.name)


def prepare(runs: Path, *settings: str, resume: bool = False) -> PreparedRun:
    return prepare_run("smoke", [*SMALL, OFF, *(settings or PROMOTE)], str(runs), resume=resume)


def generator_of(prepared: PreparedRun) -> str:
    return prepared.plan.recipe.generator_teacher.model


# The rules


def collapse(verdict: CollapseVerdict) -> CollapseRecord:
    return CollapseRecord(
        verdict=verdict,
        evidence=["WORDS: a fifth of the rare words is gone"],
        metrics=[],
        documents=9,
        reference=None,
        tokens=99,
    )


def without_student(manifest: RunManifest) -> None:
    manifest.student = manifest.evaluation = None


def without_evaluation(manifest: RunManifest) -> None:
    manifest.evaluation = None


def without_panel(manifest: RunManifest) -> None:
    assert manifest.evaluation
    manifest.evaluation = manifest.evaluation.model_copy(update={"panel": None})


def with_panel_lost(lost: int) -> Callable[[RunManifest], None]:
    def change(manifest: RunManifest) -> None:
        without_panel(manifest)
        add_panel(manifest, lost, tasks=100)

    return change


def with_cells(*cells: int) -> Callable[[RunManifest], None]:
    def change(manifest: RunManifest) -> None:
        assert manifest.evaluation
        comparison = build_paired_comparison("teacher", *cells)
        manifest.evaluation = manifest.evaluation.model_copy(update={"comparisons": [comparison]})

    return change


def with_verdict(verdict: CollapseVerdict, key: str = "collapse") -> Callable[[RunManifest], None]:
    return lambda manifest: setattr(manifest, key, collapse(verdict))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda _: None, None),
        (with_verdict(CollapseVerdict.shift), None),
        (with_verdict(CollapseVerdict.inconclusive), None),
        (with_panel_lost(0), None),
        (with_panel_lost(-10), None),
        (with_panel_lost(5), None),
        (with_panel_lost(6), r"lost 6 % of the 100 tasks .*, more than 5 %"),
        (without_panel, r"panel was not asked, .*set `student.evaluation.panel`"),
        (without_student, r"no student: `stillhouse run` trains it"),
        (without_evaluation, r"not compared with its teacher: continue the run with --resume"),
        (with_cells(1, 5, 1, 33), r"does not surely pass more than its teacher: 6 and 2 of 40 .*, a difference of -\d to \+\d+"),
        (with_cells(1, 0, 14, 25), r"does not surely pass more than its teacher: 1 and 15 of 40 .* of -\d+ to -\d+ points$"),
        (with_verdict(CollapseVerdict.collapse), "the verdict on collapse is collapse"),
        (with_verdict(CollapseVerdict.collapse, "collapse_parent"), "the verdict on collapse is collapse"),
        (lambda manifest: setattr(manifest, "collapse", None), "was not assessed for collapse"),
    ],
)  # fmt: skip
def test_each_rule_has_its_reason(ready: RunDir, change: Callable[[RunManifest], None], reason: str | None) -> None:
    manifest = ready.read_manifest()
    manifest.gate.gated = False
    manifest.collapse, manifest.collapse_parent = collapse(CollapseVerdict.passed), None
    change(manifest)
    reasons = find_promotion_refusals(manifest, ready.read_recipe())
    assert len(reasons) == (reason is not None), reasons
    assert reason is None or re.search(reason, reasons[0]), reasons


@pytest.mark.parametrize(
    ("recipe", "settings", "problem"),
    [
        ("smoke", ["student={}"], r"lineage.promote: .*\[student.evaluation\]"),
        ("smoke", ["student=false"], r"lineage.promote: .*\[student\]"),
        ("smoke", ["student={evaluation={panel=0}}"], "student.evaluation.panel: 0 asks no general panel"),
        ("extraction", ["student={evaluation={requests=5}}"], "lineage.promote: in extraction the generator writes"),
        ("smoke", [PROMOTE[1], 'teachers.promoted={model="fake/writer"}'], "teachers.promoted: .* name of the promoted"),
        ("smoke", [PROMOTE[1], "teachers.main.model=local/student:smoke/0"], "student:smoke/0' is neither"),
    ],
)  # fmt: skip
def test_a_recipe_that_could_never_promote_is_refused(
    recipe: str, settings: list[str], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [word for one in (PROMOTE[0], *settings) for word in ("--set", one)]
    code, out, _ = called(capsys, "validate", recipe, *words)
    assert code == 2
    assert re.search(problem, out), out


# The release, and the next run


def test_a_promotion_is_part_of_its_release_and_the_next_run_asks_the_student(
    finished: RunDir, gguf: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs, where = finished.path.parent, ("--runs-dir", str(finished.path.parent))
    first = prepare(runs, resume=True)
    assert (first.run.name, generator_of(first)) == (finished.name, "fake/writer"), "the first generation has its own"
    created = create_release(finished)
    release = created.release
    assert release.promoted
    assert hash_file(release.path / WEIGHTS) == hash_file(gguf) == release.manifest.files[WEIGHTS]
    assert "its student is the generator of the next generation" in format_created_release(created)

    following = prepare(runs)
    assert generator_of(following) == "local/student:smoke/0"
    written = load_recipe_plan("smoke", [*SMALL, OFF, *PROMOTE])
    recipe, own = following.plan.recipe, written.recipe
    assert plan_next_run(written, str(runs)).recipe == recipe, "a preview asks the same"
    assert recipe.generator_teacher.weights_file == release.path / WEIGHTS
    for role in ("critic", "verifier"):
        assert getattr(recipe.agents, role) == getattr(own.agents, role), "only the generator is another"
    assert recipe.agents.generator.model_copy(update={"teacher": "main"}) == own.agents.generator
    assert recipe.verifiers == own.verifiers
    assert generator_of(prepare(runs, resume=True)) == "local/student:smoke/0"
    assert following.run.read_recipe() == own, "a run's own recipe has no path of this machine"
    digests = {read_json(run.run.recipe_file)["digest"] for run in (first, following)}
    assert len(digests) == 2
    assert following.plan.sources["local/student:smoke/0"] == hash_file(gguf)[:16], "as replies are cached"
    task = prepare_student_evaluation(finished.path, EvaluationOptions(3, runs_dir=str(runs)))
    assert task.plan.recipe.generator_teacher.model == "fake/writer"

    code, out, _ = called(capsys, "lineage", "smoke", *where)
    assert code == 0
    assert "generator fake/writer" in out
    assert "passes 38 % of 40, its teacher 5 %: +32 points" in out
    assert "general panel: student minus start -2 points" in out
    assert "its student is the generator of the next generation" in out
    (record,) = json.loads(called(capsys, "lineage", "smoke", *where, "--json")[1])["generations"]
    assert record["promotion"]["promoted"]
    assert record["generator"] == "fake/writer"
    assert 0 < record["yield"] <= 1
    assert record["evaluation"]["comparisons"][0]["role"] == "teacher"


def test_a_student_that_is_not_promoted_leaves_the_generator_of_before(
    finished: RunDir, gguf: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = finished.path.parent
    create_release(finished)
    second = add_release(runs, gguf, cells=(2, 3, 1, 34))
    assert not second.promoted
    assert not (second.path / "teacher").exists()
    assert generator_of(prepare(runs)) == "local/student:smoke/0", "the newest promotion among its ancestors"
    out = called(capsys, "lineage", "smoke", "--runs-dir", str(runs))[1]
    assert "generator student of smoke/0" in out
    assert "not promoted: the student does not surely pass more than its teacher: 5 and 3 of 40" in out
    third = add_release(runs, gguf)
    assert third.promoted
    assert generator_of(prepare(runs)) == "local/student:smoke/2"
    for generation, generator in ((1, "smoke/0"), (2, "smoke/2"), (0, "smoke/0")):  # back, on, and back
        lineage(runs).roll_back(generation)
        assert generator_of(prepare(runs, resume=True)) == f"local/student:{generator}"
    lineage(runs).roll_back()
    assert generator_of(prepare(runs, *PROMOTE, "seed=12")) == "fake/writer", "the teacher returns too"


def add_release(runs: Path, gguf: Path, **records: Any) -> Release:
    """The next release of the recipe. Its samples are the scripted teacher's, since the tiny student writes nothing usable."""
    prepared = prepare(runs, *PROMOTE, f"seed={20 + len(lineage(runs).list_generations())}")
    shutil.rmtree(prepared.run.path)
    own = make_run(runs, OFF, "lineage.promote=false", PROMOTE[1], f"seed={30 + len(lineage(runs).list_generations())}")
    add_student(own, gguf, **records)
    manifest = own.read_manifest()
    manifest.agents.generator = generator_of(prepared)
    whole = read_json(own.recipe_file)
    whole["recipe"]["lineage"]["promote"] = True
    write_json(own.recipe_file, whole)
    manifest.files = own.hash_files()
    own.write_manifest(manifest)
    return create_release(own).release


def test_without_promote_nothing_changes(finished: RunDir, tmp_path: Path) -> None:
    keys = {"recipe", "generation", "ancestors", "mix", "verdict"}
    assert set(read_json(make_release(tmp_path / "plain" / "runs").release.path / "lineage.json")) == keys
    create_release(finished)
    plain = prepare(finished.path.parent, PROMOTE[1])
    assert generator_of(plain) == "fake/writer", "its own, though its parent has a promoted student"
    assert "promoted" not in plain.plan.recipe.teachers


def test_another_generator_in_the_recipe_is_not_replaced_by_the_student_of_the_first(finished: RunDir) -> None:
    create_release(finished)
    other = prepare(finished.path.parent, *PROMOTE, "teachers.main.model=fake/instructions")
    assert generator_of(other) == "fake/instructions"


@pytest.mark.parametrize("fault", ["flip", "remove", "forge"])
def test_a_damaged_student_is_refused(fault: str, finished: RunDir) -> None:
    file = create_release(finished).release.path / WEIGHTS
    file.chmod(0o644)
    whole = file.read_bytes()
    file.unlink() if fault == "remove" else file.write_bytes(whole[:-1] + b"x" if fault == "flip" else b"GGUF" + whole)
    with pytest.raises(StoreError, match=rf"{WEIGHTS}: is (missing|not what was released)") as refused:
        prepare(finished.path.parent)
    assert "\n" not in str(refused.value)


def test_only_the_very_file_that_was_evaluated_is_promoted(finished: RunDir) -> None:
    file = finished.path / STUDENT_WEIGHTS
    file.write_bytes(file.read_bytes() + b"x")
    with pytest.raises(StoreError, match=r"student-q8_0\.gguf: was changed since the run ended"):
        create_release(finished)
    assert lineage(finished.path.parent).list_generations() == []
    manifest = finished.read_manifest()
    manifest.files = finished.hash_files()
    finished.write_manifest(manifest)
    promotion = create_release(finished).release.lineage.promotion
    assert promotion
    assert promotion.reasons[0].startswith(f"{STUDENT_WEIGHTS} is not the file that was evaluated")


def test_a_run_of_another_place_does_not_start_the_student_of_a_release_unasked(
    finished: RunDir, tmp_path: Path
) -> None:
    create_release(finished)
    following = prepare(finished.path.parent).run
    shutil.copytree(finished.student, following.student)
    task = prepare_student_evaluation(following.path, EvaluationOptions(3, runs_dir=str(finished.path.parent)))
    assert task.plan.recipe.generator_teacher.student_of == "smoke/0"
    lineage(finished.path.parent).roll_back()
    task = prepare_student_evaluation(following.path, EvaluationOptions(3, runs_dir=str(finished.path.parent)))
    assert task.plan.recipe.generator_teacher.weights_file.is_file(), (
        "its release was set aside, and is still its teacher's"
    )
    with pytest.raises(UsageError, match=r"start the student of a release next to it \(lineage.promote\)"):
        prepare_student_evaluation(following.path, EvaluationOptions(3, runs_dir=str(tmp_path / "mine")))


# Verification


@pytest.mark.parametrize(
    ("settings", "missing"),
    [
        ([], None),
        (["seed=9", "samples=400", "keep=50"], None),
        (["agents.generator.temperature=0.9", "topology.max_revisions=0"], None),
        (["filters=[]"], None),
        (['verifiers=[{type="constraints"},{type="on_topic"}]'], "the check sound_prose"),
        (['verifiers=[{type="on_topic",similarity=0.1},{type="constraints"},{type="sound_prose"}]'],
         "the check on_topic with similarity = "),
        (["agents.critic=false"], "agents.critic"),
        (["agents.critic.min_score=3"], "agents.critic with min_score = 4"),
        (['topology.kind="single"'], 'topology.kind = "centralized"'),
    ],
)  # fmt: skip
def test_verification_that_became_weaker_is_named(settings: list[str], missing: str | None) -> None:
    before, now = (describe_plan_verification(load_recipe_plan("constrained-instructions", s)) for s in ([], settings))
    found = before.find_missing(now)
    assert len(found) == (missing is not None), found
    assert missing is None or found[0].startswith(missing)


def test_a_run_that_verifies_less_is_refused_in_one_sentence(finished: RunDir) -> None:
    create_release(finished)
    with pytest.raises(UsageError) as refused:
        prepare(finished.path.parent, *PROMOTE, "agents.critic=false")
    assert str(refused.value) == (
        "smoke: its generator is the student of smoke/0, whose data were verified with agents.critic, and the recipe no longer "
        "has that: restore it, or set lineage.promote = false"
    )
    assert [path.name for path in finished.path.parent.glob("smoke-*")] == [finished.name], "nothing is made"
    assert generator_of(prepare(finished.path.parent, PROMOTE[1], "agents.critic=false")) == "fake/writer"


# Sides


def test_rows_of_a_promoted_generator_are_never_held_out(ready: RunDir) -> None:
    own_recipe = ready.read_recipe()
    main = own_recipe.teachers["main"].model_copy(update={"model": "local/student:smoke/0"})
    promoted_recipe = own_recipe.model_copy(update={"teachers": {"main": main}})
    for number in range(30):
        check_sides(number, own_recipe, promoted_recipe)


def check_sides(number: int, own_recipe: Recipe, promoted_recipe: Recipe) -> None:
    """Four generations of random policies and promotions."""
    rng = Random(number)
    policy = rng.choice([{"policy": "accumulate"}, {"policy": "replace"}, {"policy": "budget", "budget": 12}])
    config = LineageConfig.model_validate(policy)
    past, promoted_ids = MixtureSources([], rows_of("none", [])), set()
    for generation in range(4):
        promoted = generation > 0 and rng.random() < 0.7
        kept = rows_of(f"g{generation}", [f"question {rng.randint(0, 30)}" for _ in range(12)])
        own = split_own_rows(kept, past, 0.3, promoted_recipe if promoted else own_recipe)
        promoted_ids |= set(kept["id"]) if promoted else set()
        (train, validation), record = mix_dataset(own, past, config, number, promoted=promoted)
        assert not set(validation["id"]) & promoted_ids
        assert not prompts_of(train) & prompts_of(validation)
        assert len(validation), "the student has held-out rows under every policy"
        assert record.rows == len(train) + len(validation)
        assert promoted or len(own.train) + len(own.validation) == len(kept)
        past = MixtureSources(
            [*past.releases, EarlierRelease(f"x/{generation}", join_sides(own), None)], past.real_rows
        )


# Kills


@pytest.mark.slow
@pytest.mark.waits
@pytest.mark.xdist_group("releases")
def test_a_kill_at_every_step_leaves_a_promoted_release_or_nothing(ready: RunDir, tmp_path: Path) -> None:
    """From its weights on: before them, it is a release like any other, which `test_release_kills.py` kills."""

    def fresh(name: str) -> Path:
        return shutil.copytree(ready.path.parent.parent, tmp_path / name) / "runs"

    words = ["release", ready.name]
    kinds = steps_of(words, fresh("watched"), tmp_path / "steps")
    after = content(lineage(tmp_path / "watched" / "runs"))
    assert WEIGHTS in after[0]
    weights = min(number for kind, number in kinds.items() if "student-q" in kind)
    later = [number for number in kinds.values() if number >= weights - 1]
    assert len(later) > 3, kinds

    def killed_at(number: int) -> None:
        runs = fresh(f"killed{number}")
        ended(start(words, runs, KILL_AT=str(number)), -signal.SIGKILL)
        left = content(lineage(runs))
        assert left in ({}, after)
        assert generator_of(prepare(runs, resume=True)) == ("local/student:smoke/0" if left else "fake/writer")
        ended(start(words, runs), 0)
        assert content(lineage(runs)) == after
        check_clean(lineage(runs))

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(killed_at, later))


# With the embedded teacher


@pytest.mark.slow
def test_a_real_student_writes_the_samples_of_the_next_generation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The promoted file is the embedded model's own, so that no test trains one: `benchmarks/generations.py` does. The first
    generation is the scripted teacher's, which writes it in no time."""
    runs = tmp_path / "runs"
    easy = "task.kinds={no_digits=1,no_exclamation=1}"
    settings = (OFF, *PROMOTE, easy, "samples=400", "shard_size=4", "teachers.main.max_concurrent=4")
    first = make_run(runs, *settings, "keep=3")
    weights = find_embedded_teacher()
    assert weights
    add_student(first, weights)
    release = create_release(first).release
    assert release.promoted, release.lineage.promotion
    sets = [word for setting in settings for word in ("--set", setting)]
    code, out, _ = called(capsys, "preview", "smoke", *sets, "--runs-dir", str(runs), "-n", "1")
    assert code == 0
    assert out.startswith(f"generator: the promoted student of {release.name}\n")
    second = make_run(runs, *settings, "keep=1")
    before, after = first.read_manifest(), second.read_manifest()
    assert (before.agents.generator, after.agents.generator) == ("fake/writer", f"local/student:{release.name}")
    turns = {
        turn.teacher for sample in read_finished_samples(second) for turn in sample.turns if turn.agent == "generator"
    }
    assert turns == {after.agents.generator}
    assert after.dataset.mix
    assert after.dataset.mix.earlier == {release.name: before.counts.kept}
    validation = pl.read_parquet(second.dataset / "validation.parquet")["id"].to_list()
    assert validation == pl.read_parquet(release.dataset / "validation.parquet")["id"].to_list()
    released = create_release(second).release
    assert released.lineage.promotion
    assert released.lineage.promotion.reasons[-1].startswith("the run has no student: `stillhouse run` trains it")
