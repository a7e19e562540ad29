"""Every command that a message or a page names exists, with its options. `test_suggested_commands.py` pastes those of a run."""

import ast
import re
from collections.abc import Iterator
from functools import cache

import pytest
import typer

from core.project_files import PROJECT
from flows.commands.app import app

pytestmark = pytest.mark.whole

PACKAGES = ("core", "prompts", "teachers", "agents", "filters", "students", "flows", "stillhouse")
NAMED = re.compile(r"stillhouse ([a-z][a-z-]*)((?: (?!stillhouse )[^`\n;|&#]*)?)")
OPTION = re.compile(r"(?<![\w-])(--[a-z][a-z-]*|-[a-z](?![\w-]))")
HINTS = {"format_command", "format_next_line"}


@cache
def list_options() -> dict[str, set[str]]:
    """The options of each command."""
    group = typer.main.get_command(app)
    context = typer.Context(group)
    commands = {name: group.get_command(context, name) for name in group.list_commands(context)}  # type: ignore[attr-defined]
    return {
        name: {"--help", *(option for part in command.params for option in (*part.opts, *part.secondary_opts))}
        for name, command in commands.items()
    }


def find_faults(verb: str, words: str) -> list[str]:
    known = list_options().get(verb)
    if known is None:
        return [f"no command {verb!r}"]
    return [f"{verb} has no option {option}" for option in OPTION.findall(words) if option not in known]


def join_text(node: ast.expr) -> str:
    """A string or an f-string, whose values are `…`."""
    if isinstance(node, ast.JoinedStr):
        return "".join(part.value if isinstance(part, ast.Constant) else "…" for part in node.values)  # type: ignore[misc]
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def list_faults(code: str) -> Iterator[str]:
    """The unknown commands and options in the strings of a module, docstrings included."""
    for node in ast.walk(ast.parse(code)):
        if (
            isinstance(node, ast.Call)
            and getattr(node.func, "id", getattr(node.func, "attr", "")) in HINTS
            and node.args
        ):
            verb = join_text(node.args[0])
            words = [join_text(part) for argument in node.args[1:] for part in ast.walk(argument)]  # type: ignore[arg-type]
            if verb:
                yield from (f"{node.lineno}: {fault}" for fault in find_faults(verb, " ".join(words)))
        if isinstance(node, ast.Constant | ast.JoinedStr):
            for verb, words in NAMED.findall(join_text(node)):
                if "`" in join_text(node) or verb in list_options():
                    yield from (f"{node.lineno}: {fault}" for fault in find_faults(verb, words))


@pytest.mark.parametrize("package", PACKAGES)
def test_every_command_in_a_message_exists_with_its_options(package: str) -> None:
    files = sorted((PROJECT / package).rglob("*.py"))
    assert files
    assert [f"{file}:{fault}" for file in files for fault in list_faults(file.read_text(encoding="utf-8"))] == []


def test_every_command_in_the_prose_of_a_page_exists_with_its_options() -> None:
    pages = [PROJECT / "README.md", PROJECT / "CONTRIBUTING.md", *(PROJECT / "docs").glob("*.md")]
    found = [
        f"{page.name}: {fault}"
        for page in pages
        for code in re.findall(r"`(stillhouse [a-z][^`]*)`", page.read_text(encoding="utf-8"))
        for verb, words in NAMED.findall(code)
        for fault in find_faults(verb, words)
    ]
    assert found == []


@pytest.mark.parametrize(
    "code",
    [
        'format_next_line("filter", x, "--resume")',
        'e = f"{a}: run `stillhouse filter {b} --resume`"',
        'format_command("no", x)',
    ],
)
def test_a_hint_for_an_option_that_does_not_exist_is_found(code: str) -> None:
    assert [*list_faults(code)]
