"""Half-trained students on disk, so that a killed training goes on where it was, to the same weights.

The order of the data and the learning rate follow from the step alone, so the step is all there is to say about them.
"""

import shutil
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, NamedTuple

import torch
from pydantic.main import IncEx

from core.sample import digest_of
from core.store import written_whole
from core.student_config import StudentConfig
from students.data import Conversation

NO_MATTER: Mapping[str, IncEx | bool] = {
    "checkpoint_steps": True,
    "track": True,
    "distillation": {"cache", "api_key_env"},
}
"""Settings that change nothing of the student."""


class Progressed(NamedTuple):
    """How far a training is: steps done, what was measured before the first, seconds spent, and the log's lines so far."""

    step: int
    loss_before: float
    kl_before: float | None
    seconds: float
    log: list[dict[str, float]]
    best: dict[str, torch.Tensor]
    """The parameters of the lowest held-out loss so far; empty unless they are what is written."""

    @property
    def evaluations(self) -> list[dict[str, float]]:
        """The log's lines that have a held-out loss."""
        return [line for line in self.log if "held_out" in line]

    @property
    def best_step(self) -> int:
        """The first of the lowest held-out loss."""
        return int(min(self.evaluations, key=lambda line: line["held_out"])["step"])


def training_digest(
    sets: Mapping[str, Sequence[Conversation]], config: StudentConfig, seed: int, *, start: str, teacher: str
) -> str:
    """The identity of a training: the same digest ends in the same student. `start` and `teacher` are their digests, or empty.

    How often the training is saved does not count, nor who hears of it, where signals are kept, or an endpoint's key.
    """
    return digest_of(
        {
            **{name: [[message.model_dump() for message in one] for one in some] for name, some in sets.items()},
            "config": config.model_dump(mode="json", exclude=NO_MATTER),
            "seed": seed,
            "teacher": teacher,
            **({"start": start} if start else {}),
            "versions": {package: version(package) for package in ("torch", "transformers")},
        }
    )


def learning(learner: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """The parameters that a training changes, by name; tied ones once."""
    return {name: parameter for name, parameter in learner.named_parameters() if parameter.requires_grad}


@torch.no_grad()
def put(learner: torch.nn.Module, values: Mapping[str, torch.Tensor]) -> None:
    """Set the parameters that a training changes, in place."""
    for name, parameter in learning(learner).items():
        parameter.copy_(values[name])


def scratch_folder(out: Path) -> Path:
    return out.with_name(f".{out.name}.checkpoint")


def save_checkpoint(
    out: Path, digest: str, learner: torch.nn.Module, optimizer: torch.optim.Optimizer, done: Progressed
) -> None:
    """Write all that the next step depends on, whole or not at all, over the checkpoint before it."""
    state = {
        "digest": digest,
        "learner": {name: parameter.detach() for name, parameter in learning(learner).items()},
        "optimizer": optimizer.state_dict(),
        "random": torch.get_rng_state(),
        "done": done._asdict(),
    }
    with written_whole(scratch_folder(out) / "state.pt") as partial:
        torch.save(state, partial)


def resumed(
    out: Path,
    digest: str,
    learner: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    progress: Callable[[str], None],
) -> Progressed | None:
    """Bring learner, optimizer and torch's generator to the checkpoint of this very training; None if there is none."""
    file = scratch_folder(out) / "state.pt"
    if not file.exists():
        return None
    state = _read(file)
    if state is None or state["digest"] != digest:
        progress("student: the checkpoint that is there is damaged or of other data or settings; it is not used")
        return None
    put(learner, state["learner"])
    optimizer.load_state_dict(state["optimizer"])
    torch.set_rng_state(state["random"])
    done = Progressed(**state["done"])
    progress(f"student: goes on after step {done.step}")
    return done


def _read(file: Path) -> dict[str, Any] | None:
    try:
        state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except (OSError, RuntimeError, UnpicklingError):
        return None
    return state


def remove_checkpoint(out: Path) -> None:
    shutil.rmtree(scratch_folder(out), ignore_errors=True)
