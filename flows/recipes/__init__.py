"""The built-in recipes, and how any recipe is found and loaded with everything that can be checked before a run."""

import tomllib
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from core.errors import UsageError, advice_on
from core.filter_config import filter_files
from core.loading import load_recipe
from core.recipe import find_file
from core.store import file_hash

if TYPE_CHECKING:
    from agents.plan import Plan


def built_in() -> dict[str, Path]:
    """Recipe files by name."""
    folder = Path(str(files("flows.recipes")))
    return {file.stem: file for file in sorted(folder.glob("*.toml"))}


def locate(name: str) -> Path:
    """The file of a built-in recipe, or the path that `name` is.

    Raises:
        UsageError: naming the built-in recipes.
    """
    known = built_in()
    if name in known:
        return known[name]
    if (inside := Path(name) / "recipe.toml").is_file():
        return inside
    if name.endswith(".toml") or Path(name).exists():
        return Path(name)
    raise UsageError(f"{name}: no recipe of this name; {advice_on(name, known, 'built in are')}; a path ends in .toml")


def name_of(recipe: str) -> str:
    """The name that a recipe has: read from its file where `recipe` is a path.

    Raises:
        UsageError: if the file has none.
    """
    path = inside if (inside := Path(recipe) / "recipe.toml").is_file() else Path(recipe)
    if path.suffix != ".toml":
        return recipe
    try:
        return str(tomllib.loads(path.read_text(encoding="utf-8"))["name"])
    except (OSError, ValueError, KeyError) as error:
        raise UsageError(f"{path}: is no recipe with a name: {error}") from None


def headline(path: Path) -> str:
    """What a recipe's first comment says: what it makes and needs, up to the first empty comment line."""
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#") or line.strip() == "#":
            break
        lines.append(line.removeprefix("#").strip())
    return "\n".join(lines)


def sources(plan: "Plan") -> dict[str, str]:
    """Hashes of the files that a run of this plan draws on: prompts, seeds, reference, own checks and what checks and
    filters read.

    Raises:
        UsageError: naming a file that cannot be read.
    """
    from prompts import hashes

    recipe = plan.recipe
    found = {f"prompts/{name}": digest for name, digest in hashes(recipe.family, plan.own_prompts).items()}
    named = [recipe.seeds.path, recipe.collapse.reference if recipe.collapse else None]
    named += [verifier.path for verifier in recipe.verifiers]
    named += [draw for draw in recipe.seeds.draw.values() if isinstance(draw, str)]
    named += [*plan.files, *filter_files(recipe.filters), recipe.lineage.real]
    for name in filter(None, named):
        path = find_file(name, plan.folder)
        try:
            found[name] = file_hash(path)[:16]
        except OSError as error:
            raise UsageError(f"{path}: cannot be read: {error.strerror}; the recipe names it") from None
    found |= {f"check {name}": file_hash(file)[:16] for name, file in plan.code.items()}
    if recipe.seeds.documents:
        from agents.documents import documents_hash

        found[recipe.seeds.documents] = documents_hash(find_file(recipe.seeds.documents, plan.folder))[:16]
    return found


def load(name: str, overrides: Sequence[str] = ()) -> "Plan":
    """Raises RecipeError with every problem that can be told without asking a teacher."""
    from agents.plan import plan_of, plan_problems
    from filters.needs import recipe_problems

    loaded = load_recipe(locate(name), overrides, [plan_problems, recipe_problems])
    return plan_of(loaded.recipe, loaded.folder)
