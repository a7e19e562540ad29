import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

from agents.topology import draw
from core.recipe import PROJECT
from flows.cli import PACKAGES
from flows.reference import reference

README = (PROJECT / "README.md").read_text()


def test_help_imports_nothing_heavy_and_answers_at_once() -> None:
    code = (
        "import sys\nfrom flows import cli\nsys.argv = ['stillhouse', '--help']\n"
        "try:\n    cli.main()\nexcept SystemExit: pass\n"
        "heavy = {'prefect', 'langgraph', 'torch', 'transformers', 'polars', 'aiohttp'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", code], check=True, cwd=PROJECT, stdout=subprocess.DEVNULL)
    assert time.monotonic() - began < 20, "a hang, not a benchmark"


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


def test_the_readme_shows_the_topology_as_langgraph_draws_it() -> None:
    assert draw("centralized").strip() in README


def test_every_module_opens_by_saying_what_it_is() -> None:
    bare = [
        str(file.relative_to(PROJECT))
        for package in PACKAGES
        for file in (PROJECT / package).rglob("*.py")
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
    assert (PROJECT / "docs" / "recipe.md").read_text() == reference(), (
        "run: python -m flows.reference > docs/recipe.md"
    )
