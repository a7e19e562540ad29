"""The weights of embedded teachers: whether they can be used, where they are, and their download. Starts no server."""

import re
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from time import monotonic

from core.config.recipe import Recipe
from core.config.teachers import TeacherConfig
from core.errors import ProviderError
from core.hub_reference import HUB_PREFIX, find_hub_reference, parse_hub_reference
from core.installation import format_install_command, format_teacher_install_commands, format_weights_install_command
from core.shared_options import PROJECTOR_FILE, name_student_file
from core.storage.hub_files import fetch_hub_weights_in_background, find_cached_weights
from core.weights.gguf_files import find_gguf_problem
from core.weights.packaged_weights import EMBEDDED_TEACHER, find_embedded_teacher

STUDENT_FILE = re.compile(name_student_file(r"[a-z0-9_]+").replace(".", r"\."))
"""The name of a student's export."""
NOTE_SECONDS = 5.0
"""Between two messages about a download or a load."""


def find_llama_problem() -> str | None:
    """What this machine lacks to run a GGUF file, in a sentence, or None."""
    if find_spec("xllamacpp"):
        return None
    return f"a GGUF file needs the extra `local` (llama.cpp): run {format_install_command('local')}"


def local_model_problem(config: TeacherConfig) -> str | None:
    """Why the model of a `local/…` teacher cannot be started, or None. Nothing is downloaded."""
    model = config.model.removeprefix("local/")
    if find_spec("xllamacpp") is None:
        if model == EMBEDDED_TEACHER and not find_embedded_teacher():
            return (
                f"the embedded teacher needs the extra `local` and its weights: run {format_teacher_install_commands()}"
            )
        return find_llama_problem()
    if model == EMBEDDED_TEACHER:
        return (
            None
            if find_embedded_teacher()
            else f"its weights are not installed: run {format_weights_install_command()}"
        )
    if model.startswith(HUB_PREFIX):
        if parse_hub_reference(model) is None:
            return f"{model!r} is not `hf:OWNER/REPO:FILE.gguf`, `hf:OWNER/REPO@REVISION:FILE.gguf` or `hf:OWNER/REPO:Q4_K_M`"
        if find_spec("huggingface_hub") is None:
            return f"a download needs the extra `local`: run {format_install_command('local')}"
        return None
    if config.student_of and config.weights_file.is_absolute():
        return find_gguf_problem(config.weights_file)
    if not model.endswith(".gguf"):
        return f"{model!r} is neither `{EMBEDDED_TEACHER}` nor a .gguf file nor `hf:OWNER/REPO:FILE`"
    if not config.weights_file.exists():
        return f"there is no file {model!r}" + (
            "" if Path(model).is_absolute() else " in the recipe's folder or the working directory"
        )
    return find_gguf_problem(config.weights_file)


def find_local_weights(config: TeacherConfig) -> Path | None:
    """The GGUF file of a `local/…` teacher, or None if it must be downloaded or installed first."""
    if config.model == f"local/{EMBEDDED_TEACHER}":
        return find_embedded_teacher()
    if reference := find_hub_reference(config.model):
        return find_cached_weights(reference)
    return config.weights_file


def find_projector(weights: Path) -> Path | None:
    """The embedder of images of a student that sees, next to its export; None for other weights."""
    file = weights.with_name(PROJECTOR_FILE)
    return file if file.is_file() and STUDENT_FILE.fullmatch(weights.name) else None


def takes_images(config: TeacherConfig) -> bool:
    """Whether a teacher can be shown images, as far as is known without asking it: a `local/…` one only if it is a student that
    sees.
    """
    if not config.model.startswith("local/"):
        return True
    weights = find_local_weights(config)
    return weights is not None and find_projector(weights) is not None


def list_local_weights(recipe: Recipe) -> dict[str, Path | None]:
    """The GGUF files of its `local/…` teachers, by the teacher's name; None for one that is not downloaded."""
    teachers = {name: teacher for name, teacher in recipe.teachers.items() if teacher.model.startswith("local/")}
    return {name: find_local_weights(teacher) for name, teacher in teachers.items()}


async def fetch_local_weights(config: TeacherConfig, note: Callable[[str], None]) -> Path:
    """The GGUF file of a `local/…` teacher, downloaded if it is on the Hub. `note` is called with the progress.

    Raises:
        ProviderError: if it cannot be found or downloaded.
    """
    if problem := local_model_problem(config):
        raise ProviderError(f"{config.model}: {problem}")
    if reference := find_hub_reference(config.model):
        return (await fetch_hub_weights_in_background(reference, _limit_notes(note))).path
    weights = find_local_weights(config)
    assert weights, "it is installed"
    return weights


def _limit_notes(note: Callable[[str], None]) -> Callable[[str], None]:
    """`note`, called at most every `NOTE_SECONDS`."""
    noted = -NOTE_SECONDS

    def note_rarely(text: str) -> None:
        nonlocal noted
        if monotonic() - noted >= NOTE_SECONDS:
            noted = monotonic()
            note(text)

    return note_rarely
