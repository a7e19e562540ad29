"""Where a dataset comes from, and what a file of unknown origin may cause: data is read from it, but it never decides what runs
or where prompts and keys go.

A run's recipe names programs, addresses and keys. The user must confirm each of them.
"""

import os
from pathlib import Path
from typing import NamedTuple

from core.config.base import list_marked
from core.config.recipe import Recipe
from core.config.teachers import TeacherConfig
from core.project_files import find_referenced_file
from core.runs.lineage import find_release
from core.runs.run_dir import RunDir
from core.storage.atomic_files import hash_file
from core.weights.packaged_weights import EMBEDDED_TEACHER
from teachers.providers import uses_installed_protocol

MIRROR_METADATA = ".depot"
"""The folder in a mirror of an object store that has, for each folder, the version of each file when both last agreed."""


class CollapseChoices(NamedTuple):
    """What the recipe of a run says of its assessment."""

    kind: str | None = None
    few_structures: bool = False


def _is_mirror(folder: Path) -> bool:
    """Whether the folder mirrors an object store: all who write there decide what is in it."""
    return (folder / MIRROR_METADATA).is_dir()


def starts_local_program(model: str) -> bool:
    """Whether a teacher of this name starts vLLM, or llama.cpp with a file: only the user may ask for that."""
    provider, _, name = model.partition("/")
    return provider == "vllm" or (provider == "local" and name != EMBEDDED_TEACHER)


def is_own_run(run: RunDir, runs: Path) -> bool:
    """Whether the run is in the user's own folder `runs`, and not in the mirror of an object store, to which others write."""
    path = run.path.resolve()
    return path.is_relative_to(runs.resolve()) and not any(map(_is_mirror, path.parents))


def find_trust_fault(run: RunDir, recipe: Recipe, folder: Path, runs: Path) -> str | None:
    """Why the recipe of a run is not followed, or None.

    In a user's own run, a check's program must be unchanged. In another one, nothing may be run, started or sent.
    """
    programs = dict(list_marked(recipe, "program"))
    if is_own_run(run, runs):
        recorded = run.read_sources()
        for key, path in programs.items():
            program = find_referenced_file(path, folder)
            digest = hash_file(program)[:16] if program.is_file() else ""
            if digest != recorded.get(path):
                return f"{path} ({key}) has changed since the run was made"
        return None
    acts = [f"run the file {find_referenced_file(path, folder)} ({key})" for key, path in programs.items()]
    acts += [f"start {' '.join(words)} ({key})" for key, words in list_marked(recipe, "command")]
    acts += [f"send texts to {address} ({key})" for key, address in list_marked(recipe, "endpoint")]
    if recipe.lineage.promote and run.read_parent():
        acts.append("start the student of a release next to it (lineage.promote)")
    for name, teacher in recipe.teachers.items():
        acts += _list_teacher_acts(name, teacher)
    if not acts:
        return None
    mirrored = any(map(_is_mirror, run.path.resolve().parents))
    place = (
        "comes from an object store, to which others write" if mirrored else f"is not in your folder of runs, {runs}"
    )
    return f"its recipe would {' and '.join(acts)}, and it {place}"


def _list_teacher_acts(name: str, teacher: TeacherConfig) -> list[str]:
    """What a teacher of a recipe would start, load or send."""
    acts = []
    if teacher.engine:
        acts.append(f"start {teacher.model} with its own options (teachers.{name}.engine)")
    elif starts_local_program(teacher.model):
        acts.append(f"start {teacher.model} (teachers.{name})")
    elif uses_installed_protocol(teacher.model):
        acts.append(f"send prompts to {teacher.model} by an installed protocol (teachers.{name})")
    if teacher.draft_path:
        acts.append(f"load the draft {teacher.draft_path} (teachers.{name}.draft)")
    if teacher.base_url is not None:
        key = f" with the key in {teacher.api_key_env}" if os.environ.get(teacher.api_key_env) else ""
        acts.append(f"send prompts{key} to {teacher.base_url} (teachers.{name})")
    return acts


def _find_surrounding_run(source: Path) -> RunDir | None:
    """The run that a path is, or is inside."""
    runs = (RunDir(folder) for folder in [source.absolute(), *list(source.absolute().parents)[:3]])
    return next((run for run in runs if run.recipe_file.is_file() and run.manifest_file.is_file()), None)


def is_synthetic_dataset(source: Path) -> bool:
    """Whether a dataset is, or is inside, a run or a release, so that teachers wrote its text. False if that is unknown."""
    return find_release(source) is not None or _find_surrounding_run(source) is not None


def read_collapse_choices(source: Path) -> CollapseChoices:
    """Of the run or release that a dataset is, or is inside. A release has no `kind`: it is found from its rows."""
    if release := find_release(source):
        return CollapseChoices(few_structures=not release.manifest.run.gate.judges_structures)
    if run := _find_surrounding_run(source):
        collapse = run.read_recipe().collapse
        return CollapseChoices(collapse.kind if collapse else None, not run.read_manifest().gate.judges_structures)
    return CollapseChoices()


def trains_on_thinking(source: Path) -> bool:
    """Whether the thinking in a dataset is training data: in a run by its recipe, since its samples always keep it."""
    run = _find_surrounding_run(source)
    return run is None or bool(run.read_recipe().dataset.thinking)
