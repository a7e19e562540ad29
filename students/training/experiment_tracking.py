"""Live tracking of a training's log in TensorBoard or Weights & Biases. Knows no meaning of the values."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from core.config.students import StudentConfig
from core.errors import UsageError
from core.installation import format_install_command
from students.distributed import is_main_process

LogCallback = Callable[[Mapping[str, float]], None]


def check_trackers(config: StudentConfig) -> None:
    """Raises UsageError where a package is missing."""
    for name in config.track:
        if find_spec(name) is None:
            command = format_install_command("tracking") if name == "tensorboard" else f"`pip install {name}`"
            raise UsageError(f"student.track: {name} is not installed: run {command}, or leave it out")


@contextmanager
def track_training(config: StudentConfig, out: Path, digest: str, done: int) -> Iterator[LogCallback]:
    """Send each line of the log to each of `config.track`, from the main process. Steps after `done`, a checkpoint's last
    step, are sent again.

    TensorBoard's files are in `NAME.tensorboard` next to the student; for Weights & Biases the training is a run of the
    project `stillhouse`, configured by its environment (`WANDB_MODE`, `WANDB_API_KEY`).
    """
    openers = {
        "tensorboard": lambda: _open_tensorboard(out, done),
        "wandb": lambda: _open_wandb(config, out, digest),
    }
    with ExitStack() as stack:
        trackers = [stack.enter_context(openers[name]()) for name in config.track if is_main_process()]

        def track(line: Mapping[str, float]) -> None:
            for tracker in trackers:
                tracker(line)

        yield track


@contextmanager
def _open_tensorboard(out: Path, done: int) -> Iterator[LogCallback]:
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(out.with_name(f"{out.name}.tensorboard")), purge_step=done + 1) as writer:

        def track(line: Mapping[str, float]) -> None:
            for name, value in line.items():
                if name != "step":
                    writer.add_scalar(name, value, int(line["step"]))

        yield track


@contextmanager
def _open_wandb(config: StudentConfig, out: Path, digest: str) -> Iterator[LogCallback]:
    import wandb

    settings: dict[str, Any] = config.model_dump(mode="json")
    with wandb.init(project="stillhouse", name=out.name, id=digest[:16], resume="allow", config=settings) as run:
        yield lambda line: run.log(dict(line), step=int(line["step"]))
