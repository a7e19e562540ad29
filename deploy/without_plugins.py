"""Tries the core without plugins, then each plugin alone: its tests are collected, and its recipes and the core's are validated.

python deploy/without_plugins.py [tests and options of pytest]
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

PROJECT = Path(__file__).resolve().parents[1]
VALIDATE = """
from pathlib import Path
from core.errors import RecipeError
from flows.recipes.recipe_catalog import load_recipe_plan
import sys
for path in sorted([*Path("flows/recipes").glob("*.toml"), *Path("plugins").glob("*/recipes/*.toml")]):
    try:
        load_recipe_plan(str(path))
    except RecipeError as error:
        # The recipe of a study needs a family of another plugin.
        if "topology-study" not in path.name:
            sys.exit(str(error))
"""


def main() -> None:
    with TemporaryDirectory() as name:
        copy = Path(name) / "core"
        shutil.copytree(PROJECT, copy, ignore=_leave_out, symlinks=True)
        for folder in (copy / "plugins").glob("*/"):
            shutil.rmtree(folder)
        _run(copy, "-m", "pytest", "-m", "not slow", *(sys.argv[1:] or ["tests"]))
        for folder in sorted(one.parent for one in (PROJECT / "plugins").glob("*/__init__.py")):
            alone = copy / "plugins" / folder.name
            shutil.copytree(folder, alone, ignore=_leave_out)
            if list(alone.rglob("test_*.py")):
                _run(copy, "-m", "pytest", "-q", "--collect-only", "-p", "no:cacheprovider", str(alone))
            _run(copy, "-c", VALIDATE)
            shutil.rmtree(alone)


def _leave_out(folder: str, names: list[str]) -> list[str]:
    return [
        one
        for one in names
        if one[0] == "." or one == "__pycache__" or (folder, one) == (str(PROJECT / "data"), "runs")
    ]


def _run(folder: Path, *words: str) -> None:
    """Raises SystemExit if the command fails."""
    done = subprocess.run(
        [sys.executable, *words], cwd=folder, env={**os.environ, "PYTHONPATH": str(folder)}, check=False
    )
    if done.returncode:
        sys.exit(f"{' '.join(words[:3])} without the other plugins: status {done.returncode}")


if __name__ == "__main__":
    main()
