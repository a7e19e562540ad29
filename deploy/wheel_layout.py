"""The layout of the wheel: all packages under the one name `stillhouse`, so that it can share an environment with packages that
are called `agents` or `core` too.

The packages sit at the root of the checkout and import each other by their own names. In the wheel they sit in `stillhouse/`, and
this build hook writes `stillhouse.` before each of these names where a module is imported.

Nothing less does it while the root names stay. An import hook, or the wheel's folder on `sys.path`, cannot see who imports:
`import agents` of any other package in the process would get ours, or ours theirs, by which came first in `sys.modules`. A longer
`__path__` adds `stillhouse.agents`, while our modules still import `agents`. Top-level packages in site-packages collide on disk.
"""

import ast
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PACKAGES = ("core", "prompts", "teachers", "agents", "filters", "students", "flows", "plugins")
SHIPPED_DATA = (
    "bike_shop",
    "calibration",
    "documents",
    "images",
    "panel",
    "reference",
    "replay",
    "seeds",
    "tools",
    "words",
)
"""Folders of `data/` with what shipped recipes name. `core/project_files.py` looks for them in `core/shipped`."""
PRICE_TABLE = "data/prices.toml"
NOT_SHIPPED = ("__pycache__", "*.pyc", "make.py", "tests", "benchmarks")


class WheelLayout(BuildHookInterface[Any]):
    """Called by hatchling, once for each wheel."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Write the tree of the wheel to a temporary folder. An editable install has the layout of the checkout."""
        if version == "editable":
            return
        self._folder = TemporaryDirectory()
        build_data["force_include"][self._folder.name] = "stillhouse"
        write_wheel_tree(Path(self.root), Path(self._folder.name))

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        if version != "editable":
            self._folder.cleanup()


def write_wheel_tree(project: Path, target: Path) -> None:
    """Write what becomes the folder `stillhouse` in site-packages to `target`."""
    ignored = shutil.ignore_patterns(*NOT_SHIPPED)
    shutil.copytree(project / "stillhouse", target, ignore=ignored, dirs_exist_ok=True)
    for package in PACKAGES:
        shutil.copytree(project / package, target / package, ignore=ignored)
    for folder in SHIPPED_DATA:
        shutil.copytree(project / "data" / folder, target / "core" / "shipped" / "data" / folder, ignore=ignored)
    shutil.copy2(project / PRICE_TABLE, target / "core" / "shipped" / PRICE_TABLE)
    for module in target.rglob("*.py"):
        module.write_text(prefix_imports(module.read_text(encoding="utf-8")), encoding="utf-8")
    deployments = (project / "prefect.yaml").read_text(encoding="utf-8")
    deployments = re.sub(r"(?m)^(\s*entrypoint: )plugins\.", r"\1stillhouse.plugins.", deployments)
    (target / "prefect.yaml").write_text(deployments, encoding="utf-8")


def prefix_imports(code: str) -> str:
    """`code` with `stillhouse.` before our packages in its import statements.

    Raises:
        ValueError: for an import that cannot be prefixed without changing what it binds, such as `import core.errors`.
    """
    lines = code.splitlines(keepends=True)
    statements = sorted(_find_own_imports(ast.parse(code)), key=lambda one: (one.lineno, one.col_offset), reverse=True)
    for statement in statements:  # the last first, so that the columns of others in its line stay
        line = lines[statement.lineno - 1]
        start = len(line.encode()[: statement.col_offset].decode())
        if isinstance(statement, ast.ImportFrom):
            changed = re.sub(r"^from\s+", "from stillhouse.", line[start:], count=1)
        elif len(statement.names) == 1 and "." not in statement.names[0].name:
            changed = re.sub(r"^import\s+", "from stillhouse import ", line[start:], count=1)
        else:
            raise ValueError(
                f"line {statement.lineno}: {line.strip()!r}: import one package alone, or names from a module"
            )
        lines[statement.lineno - 1] = line[:start] + changed
    prefixed = "".join(lines)
    for statement in _find_own_imports(ast.parse(prefixed)):
        raise ValueError(f"line {statement.lineno}: {lines[statement.lineno - 1].strip()!r}: still imports our package")
    return prefixed


def _find_own_imports(tree: ast.Module) -> Iterator[ast.Import | ast.ImportFrom]:
    for node in ast.walk(tree):
        if (isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in PACKAGES) or (
            isinstance(node, ast.Import) and any(alias.name.partition(".")[0] in PACKAGES for alias in node.names)
        ):
            yield node
