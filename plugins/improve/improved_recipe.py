"""The folder of an improved recipe: as `stillhouse new` writes it, with all seeds and samples of the source."""

from collections.abc import Sequence
from pathlib import Path

from agents.planning.run_plan import RunPlan
from core.config.inheritance import RECIPE_FILE_NAME
from core.config.toml_text import format_toml, parse_toml
from core.errors import UsageError
from core.sample import FrozenModel, json_digest
from core.storage.atomic_files import hash_file, read_record, write_bytes, write_text
from flows.recipes.recipe_scaffold import create_recipe_folder
from plugins.improve.measurement import build_prompt_files
from plugins.improve.prompt_parts import PromptCandidate

SIZE_KEYS = ("samples", "keep")
TEMPERATURE = "agents.generator.temperature"


class WrittenRecipe(FrozenModel):
    """What the folder of a recipe was given, in a file next to it."""

    candidate: str
    content: str


def list_kept_overrides(overrides: Sequence[str], candidate: PromptCandidate) -> list[str]:
    """The overrides without those that would undo the improvement."""
    keys = [one.partition("=")[0].strip() for one in overrides]
    kept = [one for key, one in zip(keys, overrides, strict=True) if key not in ("prompts", TEMPERATURE)]
    return [*kept, f"{TEMPERATURE}={candidate.temperature}"] if {"agents", "agents.generator"} & set(keys) else kept


def write_improved_recipe(source: str, plan: RunPlan, candidate: PromptCandidate, folder: Path) -> None:
    """Write the prompts of `candidate`, unless they were written before; a recipe of an earlier winner is replaced.

    Raises:
        UsageError: if another winner's recipe was changed, or the folder has other files; and as `create_recipe_folder`.
    """
    file, record = folder / RECIPE_FILE_NAME, folder.with_name(f"{folder.name}-written.json")
    before = read_record(record, WrittenRecipe) if record.exists() and file.exists() else None
    if before and before.candidate == candidate.digest:
        return
    if before is None:
        create_recipe_folder(f"{plan.recipe.name}-improved", source, folder)
    elif before.content != _hash_folder(folder):
        raise UsageError(
            f"{folder}: was changed after an earlier winner was written there; rename it, and the same command writes the new one"
        )
    data = parse_toml(file.read_text(encoding="utf-8"))
    for key in SIZE_KEYS:
        data.pop(key, None)
    seeds = folder / "seeds.jsonl"
    if seeds.exists():
        del data["seeds"]
        seeds.unlink()
    data.setdefault("agents", {}).setdefault("generator", {})["temperature"] = candidate.temperature
    for name, content in build_prompt_files(plan, candidate).items():
        write_bytes(folder / "prompts" / name, content)
    write_text(
        file, f"# {source} with the prompts and the temperature that `stillhouse improve` found.\n{format_toml(data)}"
    )
    written = WrittenRecipe(candidate=candidate.digest, content=_hash_folder(folder))
    write_text(record, written.model_dump_json() + "\n")


def _hash_folder(folder: Path) -> str:
    files = (file for file in folder.rglob("*") if file.is_file() and "__pycache__" not in file.parts)
    return json_digest({str(file.relative_to(folder)): hash_file(file) for file in files})
