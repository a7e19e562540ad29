"""The contract of plugins: what a declaration and its parts are, and that a plugin that is not used changes nothing."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import get_args

import pytest
import typer

from agents.checks.base import Check
from agents.checks.registry import BUILT_IN_CHECKS
from agents.families import FAMILIES
from agents.families.base import RecipeFamily
from agents.sources.seed_source import SeedSource
from core.config.base import Mark, RecipeTable, list_inner_types, list_marked_keys
from core.config.filters import FILTER_TABLES, FilterTable
from core.config.recipe import Recipe
from core.hooks import RunHooks
from core.plugins import FOLDER, Part, Plugin, import_part, list_plugins
from core.project_files import PROJECT
from flows.recipes.recipe_reference import build_plugin_reference
from teachers.protocols import TeacherBatches, TeacherProtocol
from teachers.providers import PROVIDERS
from tests.support.forked import FORKS
from tests.support.installed_plugins import install_plugin

OWN = [plugin for plugin in list_plugins() if not plugin.origin]
PARTS = [
    pytest.param(plugin, part, id=f"{plugin.name}-{part.kind}-{part.name}") for plugin in OWN for part in plugin.parts
]
CLASSES = {"family": RecipeFamily, "filter": FilterTable, "source": SeedSource}
OBJECTS = {
    "command": typer.Typer, "check": Check, "hooks": RunHooks, "script": (dict, type), "protocol": TeacherProtocol,
    "batches": TeacherBatches,
}  # fmt: skip
MARKED_KEYS: dict[tuple[Mark, ...], tuple[str, ...]] = {
    ("endpoint",): ("url", "address", "endpoint", "host"),
    ("file", "program"): ("path", "module"),
    ("command",): ("command",),
    ("variable",): ("key_env",),
}
"""By marks: the ends of keys of which each must have one of these marks."""


@pytest.mark.parametrize(("plugin", "part"), PARTS)
def test_every_part_loads_and_is_of_its_kind(plugin: Plugin, part: Part) -> None:
    value = import_part(plugin, part)
    if part.kind == "section":
        assert all(issubclass(table, RecipeTable) for table in list_inner_types(value))
        assert list_inner_types(value) or get_args(value)[0] is str, "tables, or one text such as `language`"
    elif part.kind in CLASSES:
        assert issubclass(value, CLASSES[part.kind])
    elif part.kind in OBJECTS:
        assert isinstance(value, OBJECTS[part.kind])


def test_no_name_is_used_twice() -> None:
    core = [*(("family", name) for name in FAMILIES), *(("check", check.name) for check in BUILT_IN_CHECKS)]
    core += [*(("filter", name) for name in FILTER_TABLES), *(("section", name) for name in Recipe.model_fields)]
    core += [("protocol", name) for name in PROVIDERS]
    names = Counter(
        [*core, *((part.kind, part.name) for plugin in OWN for part in plugin.parts if part.kind != "hooks")]
    )
    assert [name for name, count in names.items() if count > 1] == []
    assert {plugin.name for plugin in OWN} == {file.parent.name for file in FOLDER.glob("*/__init__.py")}


def test_declarations_import_nothing_of_their_plugins() -> None:
    code = (
        "import sys\nfrom core.plugins import list_faults, list_plugins\nlist_plugins()\nassert not list_faults()\n"
        "rooms = {name.partition('.')[0] for name in sys.modules} & {'agents', 'flows', 'filters', 'students', 'pydantic'}\n"
        "inner = [name for name in sys.modules if name.startswith('plugins.') and name.count('.') > 1]\n"
        "assert not rooms and not inner, (rooms, inner)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=PROJECT)


@pytest.mark.parametrize("plugin", [pytest.param(plugin, id=plugin.name) for plugin in OWN])
def test_the_reference_of_a_plugin_is_what_its_types_say(plugin: Plugin) -> None:
    file = FOLDER / plugin.name / "reference.md"
    assert (file.read_text() if file.exists() else "") == build_plugin_reference(plugin), (
        f"run: python -m flows.recipes.recipe_reference {plugin.name} > plugins/{plugin.name}/reference.md"
    )
    assert (FOLDER / plugin.name / "README.md").is_file()


def list_keys(annotation: object, where: str = "") -> list[str]:
    keys = []
    for table in list_inner_types(annotation):
        for name, field in table.model_fields.items():
            keys += [f"{where}{name}", *list_keys(field.annotation, f"{where}{name}.")]
    return keys


@pytest.mark.parametrize("marks", MARKED_KEYS)
def test_a_section_marks_each_key_that_names_an_endpoint_a_file_a_program_or_a_key(marks: tuple[Mark, ...]) -> None:
    """So that a server for untrusted clients finds it, whichever plugin the section is of."""
    for plugin in OWN:
        for part in (part for part in plugin.parts if part.kind == "section"):
            table = import_part(plugin, part)
            named = [key for key in list_keys(table) if key.endswith(MARKED_KEYS[marks])]
            assert set(named) <= set(list_marked_keys(table, *marks)), part.name


PROBE = """import json, sys
from flows.recipes.recipe_catalog import load_recipe_plan
from core.config.recipe import build_recipe_identity
plan = load_recipe_plan("smoke", sys.argv[1:])
json.dump([sorted(type(plan.recipe).model_fields), build_recipe_identity(plan.recipe, plan.sources)], sys.stdout)
"""
SECTION = """from stillhouse import RecipeTable


class Mine(RecipeTable):
    number: int = 1
"""


def probe(site: Path, *settings: str) -> object:
    places = os.pathsep.join([str(PROJECT), str(site)])
    done = subprocess.run(
        [sys.executable, "-c", PROBE, *settings], cwd=PROJECT, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": places},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_an_installed_section_changes_a_recipe_only_where_it_is_named(tmp_path: Path) -> None:
    without = probe(tmp_path)
    install_plugin(tmp_path, "extra_section", SECTION, ("section", "mine", "extra_section:Mine"))
    assert probe(tmp_path) == without
    named = probe(tmp_path, "mine={number=2}")
    assert named != without
    assert named != probe(tmp_path, "mine={number=3}")


def test_a_wrong_key_of_a_section_and_an_unknown_section_are_named(tmp_path: Path) -> None:
    install_plugin(tmp_path, "extra_section", SECTION, ("section", "mine", "extra_section:Mine"))
    places = os.pathsep.join([str(PROJECT), str(tmp_path)])

    def validate(setting: str) -> str:
        done = FORKS.run("stillhouse", "validate", "smoke", "--set", setting, folder=tmp_path, PYTHONPATH=places)
        assert done.returncode == 2, done.stdout
        return done.stdout

    assert "mine.numbre: unknown key, did you mean `number`?" in validate("mine={numbre=2}")
    assert "mien: unknown key, did you mean `mine`?" in validate("mien={number=2}")


def test_plugins_are_listed_with_what_they_add(tmp_path: Path) -> None:
    install_plugin(tmp_path, "extra_section", SECTION, ("section", "mine", "extra_section:Mine"))
    places = os.pathsep.join([str(PROJECT), str(tmp_path)])
    done = FORKS.run("stillhouse", "plugins", "--json", folder=tmp_path, PYTHONPATH=places)
    listed = {plugin["name"]: plugin for plugin in json.loads(done.stdout)["plugins"]}
    assert listed.keys() == {"extra_section", *(plugin.name for plugin in OWN)}
    assert listed["extra_section"]["parts"] == {"section": ["mine"]}
    assert listed["extra_section"]["origin"] == "extra_section 1.0"
    one = FORKS.run("stillhouse", "plugins", "extra_section", folder=tmp_path, PYTHONPATH=places)
    assert "`number`, integer (`1`)" in one.stdout
    unknown = FORKS.run("stillhouse", "plugins", "extra_sectoin", folder=tmp_path, PYTHONPATH=places)
    assert (unknown.returncode, "did you mean 'extra_section'?" in unknown.stderr) == (2, True)
