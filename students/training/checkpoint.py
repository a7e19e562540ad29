"""Checkpoints, so that an interrupted training resumes to the same weights.

The order of the data and the learning rate depend on the step only, so a checkpoint has nothing else about them.
"""

import shutil
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, NamedTuple

import torch
from pydantic.main import IncEx

from core.config.students import StudentConfig
from core.extensions import Extension
from core.sample import json_digest
from core.storage.atomic_files import write_atomically
from students.chat_encoding import Conversation

IRRELEVANT_SETTINGS: Mapping[str, IncEx | bool] = {
    "checkpoint_steps": True,
    "evaluation": True,
    "core_hour_price": True,
    "track": True,
    "distillation": {"cache", "api_key_env"},
    "replay": {"cache"},
}
"""Settings without effect on the student."""


class TrainingProgress(NamedTuple):
    """The state of a training: steps done, losses before the first step, seconds spent, and the log so far."""

    step: int
    loss_before: float
    kl_before: float | None
    seconds: float
    log: list[dict[str, float]]
    best: dict[str, torch.Tensor]
    """The parameters of the lowest held-out loss so far; empty without `patience`."""

    @property
    def evaluations(self) -> list[dict[str, float]]:
        """The log's lines with a held-out loss."""
        return [line for line in self.log if "held_out" in line]

    @property
    def best_step(self) -> int:
        """The first step with the lowest held-out loss, with what steps add to it."""
        lowest = min(self.evaluations, key=lambda line: sum(line[name] for name in line if name.startswith("held_out")))
        return int(lowest["step"])


def dump_relevant_settings(config: StudentConfig) -> dict[str, Any]:
    """All settings but `IRRELEVANT_SETTINGS`."""
    return config.model_dump(mode="json", exclude=dict(IRRELEVANT_SETTINGS))


def training_digest(
    sets: Mapping[str, Sequence[Conversation | None]], config: StudentConfig, seed: int, *, start: str, teacher: str
) -> str:
    """The identity of a training: equal digests make equal students. `start` and `teacher` are their digests, or empty.

    The digest excludes `IRRELEVANT_SETTINGS`.
    """
    return json_digest(
        {
            **{
                name: [[message.model_dump() for message in conversation or ()] for conversation in conversations]
                for name, conversations in sets.items()
            },
            "config": dump_relevant_settings(config),
            "seed": seed,
            "teacher": teacher,
            **({"start": start} if start else {}),
            **({"parts": others} if (others := _list_identities(config)) else {}),
            "versions": {package: version(package) for package in ("torch", "transformers")},
        }
    )


def _list_identities(config: StudentConfig) -> list[str]:
    """Of losses and steps of other distributions: ours are known by the version."""
    found: list[Extension[Any]] = [*config.loss_extensions, *config.step_extensions]
    return [one.identity for one in found if not one.own]


def list_trainable_parameters(learner: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """The trainable parameters by name; tied ones once."""
    return {name: parameter for name, parameter in learner.named_parameters() if parameter.requires_grad}


@torch.no_grad()
def set_parameters(learner: torch.nn.Module, values: Mapping[str, torch.Tensor]) -> None:
    """Set the trainable parameters, in place."""
    for name, parameter in list_trainable_parameters(learner).items():
        parameter.copy_(values[name])


def locate_checkpoint(out: Path) -> Path:
    return out.with_name(f".{out.name}.checkpoint")


def save_checkpoint(
    out: Path, digest: str, learner: torch.nn.Module, optimizer: torch.optim.Optimizer, done: TrainingProgress
) -> None:
    """Replace the previous checkpoint by everything that the next step depends on, whole or not at all."""
    state = {
        "digest": digest,
        "learner": {name: parameter.detach() for name, parameter in list_trainable_parameters(learner).items()},
        "optimizer": optimizer.state_dict(),
        "random": torch.get_rng_state(),
        "done": done._asdict(),
    }
    with write_atomically(locate_checkpoint(out) / "state.pt") as partial:
        torch.save(state, partial)


def load_checkpoint(
    out: Path, digest: str, learner: torch.nn.Module, optimizer: torch.optim.Optimizer, progress: Callable[[str], None]
) -> TrainingProgress | None:
    """Restore learner, optimizer and torch's generator from the checkpoint of this training; None if there is none."""
    file = locate_checkpoint(out) / "state.pt"
    if not file.exists():
        return None
    state: dict[str, Any] | None
    try:
        state = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except (OSError, RuntimeError, UnpicklingError):
        state = None
    if state is None or state["digest"] != digest:
        progress("student: the existing checkpoint is damaged or of other data or settings; it is not used")
        return None

    set_parameters(learner, state["learner"])
    optimizer.load_state_dict(state["optimizer"])
    torch.set_rng_state(state["random"])
    done = TrainingProgress(**state["done"])
    progress(f"student: resumes after step {done.step}")
    return done


def remove_checkpoint(out: Path) -> None:
    shutil.rmtree(locate_checkpoint(out), ignore_errors=True)
