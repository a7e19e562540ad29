import ast
import json
import os
import runpy
import shutil
import signal
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_pre_hook

from core.config.students import StudentConfig
from core.errors import RunFailed, UsageError
from core.runs.student_records import StudentRecord
from core.sample import Message, conversation_digest
from students.chat_encoding import Conversation
from students.training import training_loop
from students.training.checkpoint import TrainingProgress, locate_checkpoint
from students.training.student_training import train_student
from students.training.training_loop import learning_rate, run_training_loop
from students.training.training_setup import prepare_objective, prepare_start
from tests.students.conftest import conversations, quiet
from tests.support.forked import FORKS


@pytest.fixture(scope="module")
def config(config: StudentConfig) -> StudentConfig:
    return config.model_copy(update={"checkpoint_steps": 5})


@pytest.fixture(scope="module")
def trained_once(config: StudentConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("trained") / "student"
    train_student(conversations(), config, out, seed=7, progress=quiet)
    return out


@pytest.fixture
def undisturbed(trained_once: Path, tmp_path: Path) -> Path:
    """A student of `talk`, made in one go with seed 7; this test's own copy."""
    return shutil.copytree(trained_once, tmp_path / "undisturbed")


def assert_same_student(one: Path, other: Path) -> None:
    """The same weights bit by bit, reached by the same losses."""
    weights, others = load_file(one / "model.safetensors"), load_file(other / "model.safetensors")
    assert weights.keys() == others.keys()
    assert all(weights[name].equal(others[name]) for name in weights)
    assert (one / "training_log.jsonl").read_text() == (other / "training_log.jsonl").read_text()


def with_settings(config: StudentConfig, **settings: Any) -> StudentConfig:
    return StudentConfig.model_validate({**config.model_dump(), **settings})


def trained(
    talk: list[Conversation], config: StudentConfig, out: Path, rejected: Sequence[Conversation | None] = ()
) -> tuple[dict[str, torch.Tensor], TrainingProgress]:
    """The parameters after a training, not rounded for storage, and how it went."""
    training = prepare_start(talk, None, rejected, (), config, 7, quiet, out=out)
    start = training.start
    lesson = prepare_objective(training, "")
    done = run_training_loop(training, lesson)
    return {name: parameter.detach() for name, parameter in start.model.named_parameters()}, done


def assert_close(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor], *, atol: float) -> None:
    for name, weight in one.items():
        torch.testing.assert_close(
            weight, other[name], atol=atol, rtol=0, msg=lambda text, name=name: f"{name}: {text}"
        )


def test_a_student_learns_and_reports_its_progress(
    talk: list[Conversation], config: StudentConfig, tmp_path: Path
) -> None:
    lines: list[str] = []
    out = tmp_path / "student"
    record = train_student(talk, config, out, seed=7, progress=lines.append)
    assert record.loss_after < record.loss_before - 1
    assert (record.train_samples, record.held_out_samples, record.steps) == (11, 1, 30)
    assert StudentRecord.model_validate(json.loads((out / "student.json").read_text())["record"]) == record
    log = [json.loads(line) for line in (out / "training_log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in log] == list(range(1, 31))
    assert set(log[0]) == {"step", "loss", "lr", "tokens"}
    assert log[-1]["loss"] < log[0]["loss"]
    assert "11 conversations to train on, 1 held out" in lines[0]
    assert f"{record.loss_before:.2f} -> {record.loss_after:.2f}" in lines[-1]


def test_the_code_of_the_card_runs(
    undisturbed: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    card = (undisturbed / "README.md").read_text()
    script = undisturbed.parent / "ask.py"
    script.write_text(card.split("```python\n")[1].split("```")[0])
    monkeypatch.chdir(undisturbed)
    runpy.run_path(str(script))
    assert capsys.readouterr().out.strip()


@pytest.mark.attack(
    "a training prompt that ends the model card's code fence",
    "a Python literal without backquotes",
)
def test_the_model_cards_tags_and_example_come_from_its_data(
    talk: list[Conversation], config: StudentConfig, tmp_path: Path
) -> None:
    short = config.model_copy(update={"epochs": 1})
    fenced = [Message(role="user", content="```$x`"), Message(role="assistant", content="I like it.")]
    cards = []
    for synthetic in (True, False):
        out = tmp_path / str(synthetic)
        train_student([fenced] * 9, short, out, seed=7, progress=quiet, held_out=talk, synthetic=synthetic)
        cards.append((out / "README.md").read_text())
    assert ["tags: [stillhouse, synthetic]\n" in card for card in cards] == [True, False]
    assert "tags: [stillhouse]\n" in cards[1]
    for card in cards:
        assert "bees" not in card
        script = card.split("```python\n")[1].split("```")[0]
        [line] = [line for line in script.splitlines() if line.startswith("messages = ")]
        assert ast.literal_eval(line.removeprefix("messages = ")) == [{"role": "user", "content": "```$x`"}]


def test_truncated_conversations_are_counted_and_training_rows_recorded(
    talk: list[Conversation], config: StudentConfig, tmp_path: Path
) -> None:
    lines: list[str] = []
    short = config.model_copy(update={"epochs": 1, "max_tokens": 64})
    long = [Message(role="user", content="Write about tea."), Message(role="assistant", content="I like tea" * 40)]
    unread = [Message(role="user", content="I like tea" * 50), Message(role="assistant", content="I like tea.")]
    record = train_student([*talk, long, unread], short, tmp_path / "student", seed=7, progress=lines.append)
    found = record.truncation
    assert found
    assert (found.truncated, found.conversations, found.max_tokens) == (2, 14, 64)
    assert (
        f"2 of 14 conversations are longer than max_tokens = 64 and were truncated; the longest has {found.longest} tokens"
        in ("\n".join(lines))
    )
    assert f"| conversations truncated | 2 of 14; the longest has {found.longest} tokens" in (
        (tmp_path / "student" / "README.md").read_text()
    )
    whole = config.model_copy(update={"epochs": 1, "max_tokens": found.longest, "start": str(tmp_path / "student")})
    again = train_student([long, *talk[:3]], whole, tmp_path / "again", seed=7, progress=quiet, held_out=[unread])
    assert again.truncation
    assert (again.truncation.truncated, again.truncation.longest) == (0, found.longest)
    rows = (tmp_path / "again" / "trained_rows.txt").read_text().split()
    first = (tmp_path / "student" / "trained_rows.txt").read_text().split()
    assert len(first) == record.train_samples
    assert set(rows) == {*first, *map(conversation_digest, [long, *talk[:3]])}, "what its start learned too"
    assert conversation_digest(unread) not in rows


def test_weights_are_the_same_for_the_same_seed_only(
    talk: list[Conversation], config: StudentConfig, undisturbed: Path, tmp_path: Path
) -> None:
    train_student(talk, config, tmp_path / "again", seed=7, progress=quiet)
    train_student(talk, config, tmp_path / "other", seed=8, progress=quiet)
    assert_same_student(tmp_path / "again", undisturbed)
    with pytest.raises(AssertionError):
        assert_same_student(tmp_path / "other", undisturbed)


def test_a_start_that_has_changed_under_its_name_is_another_training(
    talk: list[Conversation], config: StudentConfig, undisturbed: Path, tmp_path: Path
) -> None:
    start, out = tmp_path / "start", tmp_path / "out"
    shutil.copytree(config.start, start)
    adjusted = with_settings(config, start=str(start), epochs=1)
    train_student(talk, adjusted, out, seed=7, progress=quiet)
    lines: list[str] = []
    (start / "evaluation.json").write_text("{}")
    train_student(talk, adjusted, out, seed=7, progress=lines.append)
    assert "trained already" in lines[0], "what is found of a start is no part of it"
    for name in ("model.safetensors", "config.json"):
        shutil.copy(undisturbed / name, start / name)
    with pytest.raises(UsageError, match="out"):
        train_student(talk, adjusted, out, seed=7, progress=quiet)


def test_a_folder_with_other_content_is_not_replaced(
    talk: list[Conversation], config: StudentConfig, undisturbed: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="exists already"):
        train_student(talk[1:], config, undisturbed, seed=7, progress=quiet)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("keep")
    with pytest.raises(UsageError, match="exists already"):
        train_student(talk, config, tmp_path / "mine", seed=7, progress=quiet)
    assert (tmp_path / "mine" / "letter.txt").read_text() == "keep"


def kill_after_first_checkpoint(config: StudentConfig, out: Path) -> None:
    """Train in a fork of this process, which has the imports of a training; it kills itself."""
    if process := os.fork():
        assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == -signal.SIGKILL
        return
    try:
        training_loop.PROGRESS_SECONDS = 0.0

        def kill(_line: str) -> None:
            if (locate_checkpoint(out) / "state.pt").exists():
                os.kill(os.getpid(), signal.SIGKILL)

        train_student(conversations(), config, out, seed=7, progress=kill)
    finally:
        os._exit(1)


def test_a_killed_training_resumes_to_the_same_weights(
    talk: list[Conversation], config: StudentConfig, undisturbed: Path, tmp_path: Path
) -> None:
    out = tmp_path / "student"
    kill_after_first_checkpoint(config, out)
    assert not out.exists()

    lines: list[str] = []
    train_student(talk, config, out, seed=7, progress=lines.append)
    assert any("resumes after step" in line for line in lines)
    assert_same_student(out, undisturbed)
    assert not locate_checkpoint(out).exists()


class Interrupted(Exception):
    pass


def interrupt(
    talk: list[Conversation],
    config: StudentConfig,
    out: Path,
    monkeypatch: pytest.MonkeyPatch,
    held_out: list[Conversation] | None = None,
) -> None:
    """Stop a training after its first checkpoint, through the only thing that it calls."""

    def stop(line: str) -> None:
        if (locate_checkpoint(out) / "state.pt").exists():
            raise Interrupted

    monkeypatch.setattr("students.training.training_loop.PROGRESS_SECONDS", 0.0)
    with pytest.raises(Interrupted):
        train_student(talk, config, out, seed=7, progress=stop, held_out=held_out)
    assert not out.exists()


def test_a_checkpoint_of_another_training_is_not_used(
    talk: list[Conversation], config: StudentConfig, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt(talk[1:], config, tmp_path / "student", monkeypatch)
    lines: list[str] = []
    train_student(talk, config, tmp_path / "student", seed=7, progress=lines.append)
    assert any("not used" in line for line in lines)
    assert_same_student(tmp_path / "student", undisturbed)


def test_a_damaged_checkpoint_is_not_used(
    talk: list[Conversation], config: StudentConfig, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt(talk, config, tmp_path / "student", monkeypatch)
    state = locate_checkpoint(tmp_path / "student") / "state.pt"
    state.write_bytes(state.read_bytes()[:1000])
    train_student(talk, config, tmp_path / "student", seed=7, progress=quiet)
    assert_same_student(tmp_path / "student", undisturbed)


def test_a_loss_that_is_not_finite_fails_the_run(
    talk: list[Conversation], config: StudentConfig, tmp_path: Path
) -> None:
    wild = config.model_copy(update={"learning_rate": 1e30})
    with pytest.raises(RunFailed, match="lower learning_rate"):
        train_student(talk, wild, tmp_path / "student", seed=7, progress=quiet)
    assert not (tmp_path / "student").exists()


def test_large_gradients_are_clipped_before_the_step(
    talk: list[Conversation], config: StudentConfig, tmp_path: Path
) -> None:
    norms: list[float] = []

    def see(optimizer: Optimizer, *_: object) -> None:
        norms.append(get_total_norm([one.grad for one in optimizer.param_groups[0]["params"]]).item())

    hook = register_optimizer_step_pre_hook(see)
    try:
        _, done = trained(talk, with_settings(config, objective={"sft": 1000}, epochs=1), tmp_path / "student")
    finally:
        hook.remove()
    assert norms == pytest.approx([1.0] * done.step, rel=1e-3)


@pytest.mark.parametrize("steps", [1, 2, 7, 100])
@pytest.mark.parametrize("schedule", ["cosine", "wsd"])
def test_the_learning_rate_rises_to_its_peak_and_falls_to_a_tenth(schedule: str, steps: int) -> None:
    rates = rates_of(steps, schedule=schedule)
    top = rates.index(1.0)
    assert top <= steps // 10
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert min(rates) > 0
    assert steps == 1 or rates[-1] == pytest.approx(0.1)


def rates_of(steps: int, **settings: Any) -> list[float]:
    config = StudentConfig(learning_rate=1.0, **settings)
    return [learning_rate(step, steps, config) for step in range(steps)]


WORSE = [
    [Message(role="user", content="Write."), Message(role="assistant", content=f"No, no, {word * (1 + place % 3)}.")]
    for place, word in enumerate("abcdefghijkl")
]


SOME_WORSE = [worse if place % 3 == 0 else None for place, worse in enumerate(WORSE)]
"""With a counterpart to every third conversation only."""


@pytest.mark.parametrize(
    ("objective", "rejected"),
    [
        ({"sft": 1, "forward_kl": 0.5, "hidden": 0.5}, []),
        ({"sft": 0.5, "dpo": 1}, WORSE),
        ({"sft": 0.5, "dpo": 1}, SOME_WORSE),
    ],
)
def test_batches_accumulate_to_one_large_batch(
    objective: dict[str, float], rejected: list[Conversation | None], talk: list[Conversation], config: StudentConfig,
    teacher: Path, tmp_path: Path,
) -> None:  # fmt: skip
    """Eleven conversations of unequal lengths, in steps of six: of three whole batches, then of two and a half."""
    adjusted = {"objective": objective, "distillation": {"teacher": str(teacher)}, "precision": "float32", "epochs": 3}
    whole = with_settings(config, **adjusted, batch_size=6)
    one, done = trained(talk, whole, tmp_path / "one", rejected)
    other, parts = trained(talk, with_settings(whole, batch_size=2, accumulate=3), tmp_path / "other", rejected)
    assert_close(one, other, atol=5e-5)
    assert [line.keys() for line in done.log] == [line.keys() for line in parts.log]
    for line, same in zip(done.log, parts.log, strict=True):
        assert same == pytest.approx(line, rel=1e-4)


def test_early_stopping_keeps_the_best_weights(talk: list[Conversation], config: StudentConfig, tmp_path: Path) -> None:
    """The held-out conversations contradict those to learn, so the loss on them falls first and then rises."""
    other = [
        [one[0], Message(role="assistant", content=f"I dislike {one[0].content[12:-1]}, sorry!")] for one in talk[:4]
    ]
    adjusted = with_settings(config, epochs=40, patience=3, evaluate_steps=2, checkpoint_steps=7)
    record = train_student(talk, adjusted, tmp_path / "student", seed=7, progress=quiet, held_out=other)
    log = [json.loads(line) for line in (tmp_path / "student" / "training_log.jsonl").read_text().splitlines()]
    held_out = {line["step"]: line["held_out"] for line in log if "held_out" in line}
    assert record.best_step == min(held_out, key=held_out.__getitem__)
    assert record.steps == record.best_step + 3 * 2 == len(log) < 120
    assert record.loss_after == pytest.approx(held_out[record.best_step], abs=0.01)
    assert record.loss_after < min(held_out[record.steps], record.loss_before) - 0.05
    assert f"(the weights after step {record.best_step} are kept)" in (tmp_path / "student" / "README.md").read_text()


def test_the_best_weights_survive_an_interruption(
    talk: list[Conversation], config: StudentConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"epochs": 14, "patience": 4, "evaluate_steps": 2, "batch_size": 2, "accumulate": 2, "schedule": "wsd"}
    adjusted = with_settings(config, **settings, checkpoint_steps=10)
    held_out = [[one[0], Message(role="assistant", content="No, never!")] for one in talk[:4]]
    record = train_student(talk, adjusted, tmp_path / "undisturbed", seed=7, progress=quiet, held_out=held_out)
    assert record.best_step
    assert record.best_step < 10 < record.steps
    interrupt(talk, adjusted, tmp_path / "student", monkeypatch, held_out)
    again = train_student(talk, adjusted, tmp_path / "student", seed=7, progress=quiet, held_out=held_out)
    assert_same_student(tmp_path / "student", tmp_path / "undisturbed")
    assert again.best_step == record.best_step


def test_a_tracker_that_is_not_installed_is_refused_at_once(
    talk: list[Conversation], config: StudentConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("students.training.training_loop.find_spec", lambda name: None)
    config = config.model_copy(update={"track": ("wandb",)})
    with pytest.raises(UsageError, match=r"student.track: wandb is not installed: run `pip install wandb`"):
        train_student(talk, config, tmp_path / "student", seed=7, progress=quiet)


def test_a_finished_student_is_not_trained_again(
    talk: list[Conversation], config: StudentConfig, undisturbed: Path
) -> None:
    before = {path: path.stat().st_mtime_ns for path in undisturbed.iterdir()}
    lines: list[str] = []
    record = train_student(talk, config, undisturbed, seed=7, progress=lines.append)
    assert record.model_dump() == json.loads((undisturbed / "student.json").read_text())["record"]
    assert "trained already" in lines[0]
    assert before == {path: path.stat().st_mtime_ns for path in undisturbed.iterdir()}


@pytest.mark.slow
def test_two_processes_train_the_same_student_as_one(
    talk: list[Conversation], config: StudentConfig, teacher: Path, tmp_path: Path
) -> None:
    """The last step of an epoch has one batch only, so that one of them has nothing to do. The command of docs/gpu-training.md
    is run with `torchrun` itself (tests/test_docs.py)."""
    adjusted = {"objective": {"sft": 1, "forward_kl": 1}, "distillation": {"teacher": str(teacher), "signals": "top_k"}}
    settings = {
        **config.model_dump(),
        **adjusted,
        "batch_size": 3,
        "accumulate": 2,
        "precision": "float32",
        "epochs": 3,
        "replay": {"share": 1.0, "most": 16, "max_tokens": 16},
    }
    both = StudentConfig.model_validate({**settings, "patience": 3})
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    together = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    words = ("tests.students.train_rank", str(tmp_path / "two"), both.model_dump_json())
    ranks = [FORKS.start(*words, RANK=rank, LOCAL_RANK=rank, **together) for rank in ("0", "1")]
    printed = [rank.communicate()[0] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0], printed
    assert "".join(printed).count("bytes per token") == 1
    train_student(talk, both, tmp_path / "one", seed=7, progress=quiet)
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    for name, weight in one.items():
        torch.testing.assert_close(two[name], weight, atol=1e-4, rtol=1e-2, msg=name)
    log, same = ((tmp_path / name / "training_log.jsonl").read_text().splitlines() for name in ("one", "two"))
    for line, other in zip(map(json.loads, log), map(json.loads, same), strict=True):
        assert other == pytest.approx(line, rel=1e-4)
