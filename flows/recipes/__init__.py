"""The built-in recipes, and how any recipe is found and loaded with everything that can be checked before a run."""

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from core.errors import UsageError
from core.loading import Loaded, load_recipe
from core.recipe import find_file
from core.store import file_hash


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
    if name.endswith(".toml") or Path(name).exists():
        return Path(name)
    raise UsageError(f"{name}: no recipe of this name; built in are {', '.join(known)}; a path ends in .toml")


def headline(path: Path) -> str:
    """What a recipe's first comment says: what it makes and needs, up to the first empty comment line."""
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#") or line.strip() == "#":
            break
        lines.append(line.removeprefix("#").strip())
    return "\n".join(lines)


def sources(loaded: Loaded) -> dict[str, str]:
    """Hashes of the files that a run of this recipe draws on: its prompts, its seeds, the reference.

    Raises:
        UsageError: naming a file that cannot be read.
    """
    from prompts import hashes

    recipe = loaded.recipe
    files = [recipe.seeds.path, *([recipe.collapse.reference] if recipe.collapse else [])]
    found = {f"prompts/{name}": digest for name, digest in hashes(recipe.family).items()}
    for name in files:
        path = find_file(name, loaded.folder)
        try:
            found[name] = file_hash(path)[:16]
        except OSError as error:
            raise UsageError(f"{path}: cannot be read: {error.strerror}; the recipe names it") from None
    return found


def load(name: str, overrides: Sequence[str] = ()) -> Loaded:
    """Raises RecipeError with every problem that can be told without asking a teacher."""
    from agents.produce import recipe_problems

    return load_recipe(locate(name), overrides, [recipe_problems])
