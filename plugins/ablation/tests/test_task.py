"""What an ablation of a run is prepared from, and what it refuses, on a small run of the scripted teacher; nothing is trained."""

import json
import shutil
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import pytest

from agents.calls.budget import BudgetExhausted
from core.errors import UsageError
from core.runs.run_dir import RunDir
from flows.recipes.recipe_catalog import load_recipe_plan
from flows.terminal.console import CommandSession
from plugins.ablation.ablation import _declare, collect_measured
from plugins.ablation.answers import Answers
from plugins.ablation.arms import CandidatePool
from plugins.ablation.results import AnsweredRequests, format_declaration
from plugins.ablation.task import FIRST_SEED, AblationOptions, AblationTask, _check_arms, prepare_ablation
from tests.flows.commands.test_commands import called
from tests.support.lineages import OFF, make_run

STUDENT = "student={start='layers',replay={share=0.5}}"
FEW = AblationOptions(requests=5, panel=0, seeds=1)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    return make_run(tmp_path_factory.mktemp("made") / "runs", OFF, STUDENT, "dataset.formats=['messages','alpaca']")


def prepare(run: RunDir, options: AblationOptions = FEW, runs: Path | None = None) -> AblationTask:
    return prepare_ablation(run, options, None, runs or run.path.parent, CommandSession())


def test_a_run_with_several_forms_holds_its_validation_rows_out_of_every_arm(run: RunDir) -> None:
    task = prepare(run)
    assert len(task.validation) > 0
    for letter in "abcdefg":
        rows = task.draw(letter, "all", 1).rows
        assert rows
        assert not [row for row in rows if row in task.validation]


def test_a_strangers_run_is_not_followed(run: RunDir, tmp_path: Path) -> None:
    """Its recipe would run a program of its own; in the user's folder of runs it may."""
    theirs = RunDir(shutil.copytree(run.path, tmp_path / "theirs" / run.name))
    stored = json.loads(theirs.recipe_file.read_text())
    (tmp_path / "check.py").write_text("raise SystemExit('it ran')\n")
    stored["recipe"]["verifiers"] = [{"type": "theirs", "path": str(tmp_path / "check.py")}]
    theirs.recipe_file.write_text(json.dumps(stored))
    with pytest.raises(UsageError, match="would run the file"):
        prepare(theirs, runs=run.path.parent)


def test_answers_to_another_recipe_are_others(run: RunDir) -> None:
    settings = ["samples=24", "shard_size=12", OFF, STUDENT, "dataset.formats=['messages','alpaca']"]
    own = prepare(run)
    digests = []
    for more in ([], ["agents.generator.temperature=0.1"]):
        plan = load_recipe_plan("smoke", [*settings, *more])
        digests.append(prepare_ablation(run, FEW, plan, run.path.parent, CommandSession()).digest_model("h"))
    assert digests[0] == own.digest_model("h")
    assert digests[1] != own.digest_model("h")


def test_a_run_is_the_same_by_any_path(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(run.path.parent)
    assert prepare(RunDir(Path(run.name))).digest_model("i") == prepare(run).digest_model("i")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (FEW._replace(arms="h,i"), r"^--arms: i \(start\) is asked after the first training"),
        (FEW._replace(sizes="5,900"), r"^--rows 900: arm [a-f] \(\w+\) has \d+ rows"),
        (FEW._replace(sizes="9" * 5000), "^--rows: "),
        (FEW._replace(settings=["objective={sft=1.0,dpo=0.5}"]), "add --set objective=sft"),
        (
            FEW._replace(arms="d,k", settings=["patience=2"]),
            r"^--arms: k \(kept and refused\): patience = 2: .* leave k out",
        ),
    ],
)
def test_what_cannot_be_compared_is_refused(run: RunDir, options: AblationOptions, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        prepare(run, options)


def refuse_drafts(task: AblationTask, arms: str, size: str, ids: Collection[str]) -> AblationTask:
    """The task with these arms at one size, where only these samples have refused drafts."""
    found = [
        one._replace(
            refused=5 * [one.last or []] if one.id in ids else [], rejected=one.last if one.id in ids else None
        )
        for one in task.pool._candidates
    ]
    declared = task.declared.model_copy(update={"arms": arms, "sizes": [size]})
    return replace(task, pool=CandidatePool(found), declared=declared)


@pytest.mark.parametrize("letter", ["j", "k", "l"])
def test_each_training_on_refused_drafts_draws_some(letter: str, run: RunDir) -> None:
    task = prepare(run)
    last = task.draw("d", "all", FIRST_SEED).ids[-1]
    for size, ids in (("all", []), ("2", [last])):
        refused = refuse_drafts(task, f"d{letter}", size, ids)
        with pytest.raises(
            UsageError, match=rf": {letter} .* rows, seed 1: 0 refused drafts .*; leave {letter} out with"
        ):
            _check_arms(refused)
    _check_arms(refuse_drafts(task, f"d{letter}", "all", [last]))


def test_arms_of_refused_drafts_are_trainings_of_their_own(run: RunDir) -> None:
    plain = prepare(run, FEW._replace(settings=["objective={sft=0.5,forward_kl=1.0}"]))
    task = refuse_drafts(plain, "djkl", "all", [one.id for one in plain.pool._candidates])
    trainings = {one.letter: one for one in task.list_trainings() if one.seed == FIRST_SEED}
    assert len({task.digest_training(one) for one in trainings.values()}) == 4
    own = {"sft": 0.5, "forward_kl": 1.0}
    assert task.configure("d").objective_weights == own
    assert task.configure("j").objective_weights == {**own, "dpo": 0.5}
    assert task.configure("k").objective_weights == task.configure("l").objective_weights == {**own, "kto": 1.0}


def test_what_trains_nothing_declares_no_rows_and_names_each_departure_once(run: RunDir, tmp_path: Path) -> None:
    copy = RunDir(shutil.copytree(run.path, tmp_path / run.name))
    first, second = (prepare(copy, FEW._replace(arms="h", requests=number)) for number in (5, 6))
    declared = format_declaration(first.declared, {}, first.equal, None)
    assert "rows" not in declared
    assert "seed" not in declared
    assert _declare(first) == []
    assert _declare(second) == ["requests: 5 there, 6 here"]


def answer(task: AblationTask, passed: bool = True) -> AnsweredRequests:
    outcomes = [passed] * len(task.requests)
    by_check = {bound.check.name: outcomes for bound in task.checks}
    return AnsweredRequests(passed=outcomes, by_check=by_check, panel=[], words=[1] * len(outcomes), seconds=2.0)


@pytest.mark.parametrize("damage", ["", "{", "{}", "[]", "fewer", "checks"])
def test_damaged_answers_are_measured_again(run: RunDir, tmp_path: Path, damage: str) -> None:
    task = prepare(RunDir(shutil.copytree(run.path, tmp_path / run.name)))
    session = CommandSession()
    answers, good, said = Answers(task, session), answer(task), list[str]()
    answers._store("0", good)
    assert answers.find("0") == good
    damaged = {
        "fewer": good.model_copy(update={"passed": [True]}).model_dump_json(),
        "checks": good.model_copy(update={"by_check": {}}).model_dump_json(),
    }.get(damage, damage)
    answers._locate("0").write_text(damaged)
    with session.report_to(lambda text, _share: said.append(text)):
        assert answers.find("0") is None
    assert "0.json" in said[0]
    assert said[0].endswith("these answers are measured again")


def test_arms_with_equal_rows_share_a_training_and_not_its_cost(run: RunDir, tmp_path: Path) -> None:
    task = prepare(
        RunDir(shutil.copytree(run.path, tmp_path / run.name)), FEW._replace(arms="a,b,c,d,e,f,g", sizes="all")
    )
    answers = Answers(task, CommandSession())
    trainings = list(task.list_trainings())
    for training in trainings:
        answers._store(task.digest_training(training), answer(task))
    measured = collect_measured(task, answers)
    for training in trainings:
        (found,) = measured[training.letter, "all"].answers
        assert (found.rows, found.teacher_tokens) == (len(training.drawn.rows), training.drawn.tokens)
        assert found.seconds == 2.0


def test_a_spent_budget_is_an_error_and_no_interruption(
    run: RunDir, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def spend(_task: object, _session: object) -> None:
        raise BudgetExhausted("1,000 of 1,000 calls are used")

    monkeypatch.setattr("plugins.ablation.ablation.run_ablation", spend)
    code, out, err = called(capsys, "ablate", run.name, "--runs-dir", str(run.path.parent), "-n", "5", "--json")
    assert code == 1
    assert out == ""
    assert "error: the rest of the run's budget does not pay for the teacher's answers: 1,000 of 1,000 calls" in err
