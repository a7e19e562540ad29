"""Lines of a training's log, as they come, for TensorBoard or Weights & Biases. Knows nothing of what they say."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from core.errors import UsageError
from core.student_config import StudentConfig
from students.processes import first

Told = Callable[[Mapping[str, float]], None]


def check_trackers(config: StudentConfig) -> None:
    """Raises UsageError where a package is missing."""
    if missing := [name for name in config.track if find_spec(name) is None]:
        raise UsageError(
            f"student.track: {', '.join(missing)} is not installed; install the extra `tracking`, or leave it out"
        )


@contextmanager
def tracked(config: StudentConfig, out: Path, digest: str, done: int) -> Iterator[Told]:
    """Tell a line of the log to each of `config.track`; of several processes, the first does. Steps after `done`, the last of
    a checkpoint, are told anew.

    TensorBoard's files lie in `NAME.tensorboard` beside the student; for Weights & Biases the training is a run of the project
    `stillhouse`, with its own environment (`WANDB_MODE`, `WANDB_API_KEY`).
    """
    with ExitStack() as open_ones:
        makers = {"tensorboard": lambda: _tensorboard(out, done), "wandb": lambda: _wandb(config, out, digest)}
        several = [open_ones.enter_context(makers[name]()) for name in config.track if first()]

        def tell(line: Mapping[str, float]) -> None:
            for one in several:
                one(line)

        yield tell


@contextmanager
def _tensorboard(out: Path, done: int) -> Iterator[Told]:
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(out.with_name(f"{out.name}.tensorboard")), purge_step=done + 1) as writer:

        def tell(line: Mapping[str, float]) -> None:
            for name, value in line.items():
                if name != "step":
                    writer.add_scalar(name, value, int(line["step"]))

        yield tell


@contextmanager
def _wandb(config: StudentConfig, out: Path, digest: str) -> Iterator[Told]:
    import wandb

    settings: dict[str, Any] = config.model_dump(mode="json")
    with wandb.init(project="stillhouse", name=out.name, id=digest[:16], resume="allow", config=settings) as run:
        yield lambda line: run.log(dict(line), step=int(line["step"]))
