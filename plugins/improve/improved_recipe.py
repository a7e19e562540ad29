"""The folder of an improved recipe: as `stillhouse new` writes it, with all seeds and samples of the source."""

from pathlib import Path

from agents.planning.run_plan import RunPlan
from core.config.inheritance import RECIPE_FILE_NAME
from core.config.toml_text import format_toml, parse_toml
from core.storage.atomic_files import write_bytes, write_text
from flows.recipes.recipe_scaffold import create_recipe_folder
from plugins.improve.measurement import build_prompt_files
from plugins.improve.prompt_parts import PromptCandidate

SIZE_KEYS = ("samples", "keep")


def write_improved_recipe(source: str, plan: RunPlan, candidate: PromptCandidate, folder: Path) -> None:
    """Nothing if the folder has a recipe already, which the user may have changed. Raises as `create_recipe_folder`."""
    file = folder / RECIPE_FILE_NAME
    if file.exists():
        return
    create_recipe_folder(f"{plan.recipe.name}-improved", source, folder)
    data = parse_toml(file.read_text(encoding="utf-8"))
    for key in SIZE_KEYS:
        data.pop(key, None)
    seeds = folder / "seeds.jsonl"
    if seeds.exists():
        del data["seeds"]
        seeds.unlink()
    data.setdefault("agents", {}).setdefault("generator", {})["temperature"] = candidate.temperature
    files = build_prompt_files(plan, candidate)
    for role in candidate.prompts:
        write_bytes(folder / "prompts" / f"{role}.md", files[f"{role}.md"])
    write_text(
        file, f"# {source} with the prompts and the temperature that `stillhouse improve` found.\n{format_toml(data)}"
    )
