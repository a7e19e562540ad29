"""Runs pytest in a copy without any plugin; or tries each plugin alone in it: imports its tests and validates its recipes.

python deploy/without_plugins.py [tests and options of pytest]
"""

import os
import shutil
import subprocess
import sys
import traceback
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile

PROJECT = Path(__file__).resolve().parents[1]
PACKAGES = ("polars", "langgraph.graph", "prefect", "pytest", "torch", "transformers")
"""What most plugins take long to import: imported once, before the process of each is forked."""
REWRITTEN = ("-W", "ignore::pytest.PytestAssertRewriteWarning")
"""Without the warning that pytest cannot rewrite packages that are imported already."""


def main() -> None:
    with TemporaryDirectory() as name:
        copy = Path(name) / "core"
        shutil.copytree(PROJECT, copy, ignore=_leave_out, symlinks=True)
        if sys.argv[1:]:
            words = [sys.executable, "-m", "pytest", *sys.argv[1:]]
            sys.exit(
                subprocess.run(words, cwd=copy, env={**os.environ, "PYTHONPATH": str(copy)}, check=False).returncode
            )
        for package in PACKAGES:
            import_module(package)
        os.chdir(copy)
        sys.path.insert(0, str(copy))
        os.environ["PYTHONPATH"] = str(copy)
        failed = [
            one.parent.name for one in sorted(PROJECT.glob("plugins/*/__init__.py")) if not _try(one.parent, copy)
        ]
        sys.exit(f"alone, without other plugins, these fail: {', '.join(failed)}" if failed else 0)


def _leave_out(folder: str, names: list[str]) -> list[str]:
    """Keeps compiled modules, which need not be compiled again."""
    place = str(Path(folder).relative_to(PROJECT))
    hidden = [one for one in names if one[0] == "."]
    if place == "plugins":
        return [*hidden, *(one for one in names if (PROJECT / "plugins" / one).is_dir())]
    return [*hidden, *(["runs"] if place == "data" else [])]


def _try(folder: Path, copy: Path) -> bool:
    alone = copy / "plugins" / folder.name
    shutil.copytree(folder, alone)
    with TemporaryFile("w+") as log:
        if not (child := os.fork()):
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
            status = 1
            try:
                status = _import_tests_and_validate(Path("plugins", folder.name))
            except SystemExit as stopped:
                sys.stderr.write(f"{stopped}\n")
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(status)
        status = os.waitpid(child, 0)[1]
        log.seek(0)
        if status:
            sys.stdout.write(f"{folder.name}:\n{log.read()}")
    shutil.rmtree(alone)
    return not status


def _import_tests_and_validate(folder: Path) -> int:
    import pytest

    from core.errors import RecipeError
    from flows.recipes.recipe_catalog import load_recipe_plan

    for path in sorted(folder.glob("recipes/*.toml")):
        # The recipe of the study has the family of another plugin, as its page says.
        if path.stem != "topology-study":
            try:
                load_recipe_plan(str(path))
            except RecipeError as error:
                sys.exit(str(error))
    if not list(folder.rglob("test_*.py")):
        return 0
    return pytest.main(["--collect-only", "-q", "-p", "no:cacheprovider", *REWRITTEN, str(folder)])


if __name__ == "__main__":
    main()
