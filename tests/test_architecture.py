import ast
import re
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from functools import cache
from graphlib import CycleError, TopologicalSorter
from importlib.util import find_spec
from pathlib import Path

import pytest

from agents.topologies.topology_graphs import draw_topology
from core.project_files import PROJECT
from flows.cli import PACKAGES
from flows.recipes.recipe_reference import build_recipe_reference

TOPOLOGIES = (PROJECT / "benchmarks" / "topologies.md").read_text()


def list_files() -> list[Path]:
    """The files of our packages, without tests of plugins."""
    found = [file for package in PACKAGES for file in (PROJECT / package).rglob("*.py")]
    return [file for file in found if "tests" not in file.relative_to(PROJECT).parts]


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom flows import cli\nsys.argv = ['stillhouse', '--help']\n"
        "try:\n    cli.main()\nexcept SystemExit: pass\n"
        "heavy = {'prefect', 'langgraph', 'torch', 'transformers', 'polars', 'aiohttp', 'pydantic', 'numpy'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=PROJECT, stdout=subprocess.DEVNULL)


def test_validating_a_recipe_imports_neither_langgraph_nor_prefect_nor_torch_nor_aiohttp() -> None:
    code = (
        "import sys\nfrom flows import cli\nsys.argv = ['stillhouse', 'validate', 'smoke']\n"
        "try:\n    cli.main()\nexcept SystemExit as done: assert not done.code, done.code\n"
        "heavy = {'prefect', 'langgraph', 'torch', 'transformers', 'aiohttp'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=PROJECT, stdout=subprocess.DEVNULL)


@pytest.mark.parametrize("name", PACKAGES)
def test_our_packages_are_ours(name: str) -> None:
    spec = find_spec(name)
    assert spec is not None
    assert spec.origin is not None
    assert Path(spec.origin).parent == PROJECT / name


def test_a_foreign_package_of_our_name_is_refused(tmp_path: Path) -> None:
    (tmp_path / "agents").mkdir()
    (tmp_path / "agents" / "__init__.py").write_text("")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from flows.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: `agents` is {tmp_path}")


def test_the_page_shows_the_topology_as_langgraph_draws_it() -> None:
    assert draw_topology("centralized").strip() in TOPOLOGIES


def test_every_module_opens_by_saying_what_it_is() -> None:
    bare = [
        str(file.relative_to(PROJECT))
        for file in list_files()
        if (text := file.read_text().strip()) and not text.startswith('"""') and file.name != "__main__.py"
    ]
    assert bare == []


def test_nothing_tracked_names_a_registry_or_holds_a_key() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=PROJECT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    hosts = ["pypi" + ".org", "files.python" + "hosted", "download." + "pytorch"]
    found = [
        f"{name}: {host}"
        for name in listed.stdout.split()
        if (PROJECT / name).is_file()
        for host in hosts
        if host in (PROJECT / name).read_text(errors="ignore")
    ]
    assert found == []


def test_the_page_of_all_keys_is_what_the_types_say() -> None:
    assert (PROJECT / "docs" / "recipe.md").read_text() == build_recipe_reference(), (
        "run: python -m flows.recipes.recipe_reference > docs/recipe.md"
    )


MOST_MODULES = 20
"""In one folder, without `__init__.py`: more are not found by their names."""
ENTRY_POINTS = re.compile(r"flows\.(cli$|commands\.)|plugins\.\w+\.commands$|plugins\.schedules\.flows$")
"""A command or a deployed flow has the name of its verb, like the function that it calls."""


@cache
def parse_modules() -> dict[str, ast.Module]:
    """Every module of our packages by its dotted name."""
    modules = {}
    for file in list_files():
        parts = file.relative_to(PROJECT).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        modules[name] = ast.parse(file.read_text())
    return modules


def list_imports(tree: ast.Module, modules: Mapping[str, object]) -> Iterator[str]:
    """Those of our own modules, in functions and under TYPE_CHECKING too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module in modules:
            for alias in node.names:
                module = f"{node.module}.{alias.name}"
                yield module if module in modules else node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in modules)


def test_no_modules_import_each_other_in_a_circle() -> None:
    modules = parse_modules()
    graph = {name: set(list_imports(tree, modules)) - {name} for name, tree in modules.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"a circle of imports: {' <- '.join(error.args[1])}")


def test_a_public_name_is_defined_in_one_module() -> None:
    places = defaultdict(list)
    for name, tree in parse_modules().items():
        for node in tree.body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and not node.name.startswith(
                "_"
            ):
                places[node.name].append(name)
    own = {name: [m for m in modules if not ENTRY_POINTS.match(m)] for name, modules in places.items()}
    assert {name: modules for name, modules in own.items() if len(modules) > 1} == {}


def test_no_folder_has_too_many_modules() -> None:
    folders = Counter(str(file.parent.relative_to(PROJECT)) for file in list_files() if file.name != "__init__.py")
    assert {folder: count for folder, count in folders.items() if count > MOST_MODULES} == {}
