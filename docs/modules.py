"""Prints one line per module: its name and the first sentence of its docstring. Reads source files and imports none.

python docs/modules.py            # all packages
python docs/modules.py filters    # one package or folder
"""

import ast
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES: list[str] = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["root_packages"]


def list_lines(folder: Path) -> Iterator[str]:
    for file in sorted(folder.rglob("*.py")):
        name = file.relative_to(ROOT)
        if "tests" not in name.parts:
            about = (ast.get_docstring(ast.parse(file.read_text())) or "").partition(".")[0]
            yield f"{name}: {' '.join(about.split())}"


if __name__ == "__main__":
    for package in sys.argv[1:] or PACKAGES:
        sys.stdout.write("\n".join(list_lines(ROOT / package)) + "\n")
