"""The commands `mcp`, `skill` (files in the format of agentskills.io), `export-env` and `import`."""

import os
import shlex
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import typer

from core.errors import UsageError
from core.project_files import RUNS_FOLDER
from core.storage.atomic_files import write_text
from flows.commands.command_options import (
    CLEAN_PANEL,
    MAKE_PANEL,
    STUDENT_PANEL,
    InputArgument,
    JsonOption,
    OutOption,
    QuietOption,
    RunsOption,
    SetOption,
    print_json,
    print_text,
)
from flows.terminal.console import SESSION

SKILL_NAME = "stillhouse"
"""Also the name of the folder, as the format demands."""
DEFAULT_SKILL_FOLDER = Path(".claude/skills") / SKILL_NAME
REFERENCE_FILE = "references/recipe.md"


class InstalledSkill(NamedTuple):
    folder: Path
    written: list[str]
    """Names of files that are new or replaced."""


def read_skill_text() -> str:
    """The text of `SKILL.md`."""
    return (files(__package__) / "SKILL.md").read_text(encoding="utf-8")


def _build_skill_files() -> dict[str, str]:
    """The texts of all files, by their names in the skill's folder."""
    from flows.recipes.recipe_reference import build_recipe_reference

    return {"SKILL.md": read_skill_text(), REFERENCE_FILE: build_recipe_reference(linked=False)}


def install_skill(folder: Path, *, replace: bool) -> InstalledSkill:
    """Write the skill's files to `folder`. Files that are the same already stay.

    Raises:
        UsageError: if a file there differs and `replace` is false, before anything is written.
        StoreError: if a file cannot be written.
    """
    contents = _build_skill_files()
    changed = {name: text for name, text in contents.items() if _read_if_there(folder / name) != text}
    _check_changes(folder, changed, replace=replace)
    for name, text in changed.items():
        write_text(folder / name, text)
    return InstalledSkill(folder, list(changed))


def _check_changes(folder: Path, changed: Mapping[str, str], *, replace: bool) -> None:
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder}: is not a folder; name another one with --out")
    there = [folder / name for name in changed if (folder / name).exists()]
    if there and not replace:
        raise UsageError(
            f"{there[0]}: differs from this version's skill; --force replaces it, or name another folder with --out"
        )


def _read_if_there(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, ValueError):  # a folder, or no text
        return ""


app = typer.Typer()


@app.command("mcp", rich_help_panel=MAKE_PANEL)
def mcp_command(
    *,
    root: Annotated[
        Path, typer.Option("--root", metavar="DIR", help="The folder that all files of a client must be in.")
    ] = Path(),
    allow_run: Annotated[
        bool, typer.Option("--allow-run", help="Allow preview, run, filter and release; needs a budget.")
    ] = False,
    max_requests: Annotated[
        int | None,
        typer.Option(
            "--max-requests", metavar="N", min=1, help="Requests to teachers, all runs together.", show_default=False
        ),
    ] = None,
    max_usd: Annotated[
        float | None,
        typer.Option(
            "--max-usd", metavar="USD", min=0, help="Cost of teachers, all runs together.", show_default=False
        ),
    ] = None,
    allow_code: Annotated[
        bool, typer.Option("--allow-code", help="Run programs and load weights that a recipe names.")
    ] = False,
    allow_url: Annotated[
        list[str] | None,
        typer.Option(
            "--allow-url", metavar="URL", help="An endpoint that recipes may use; repeatable.", show_default=False
        ),
    ] = None,
    allow_key: Annotated[
        list[str] | None,
        typer.Option(
            "--allow-key",
            metavar="NAME",
            help="A variable whose key goes to --allow-url; repeatable.",
            show_default=False,
        ),
    ] = None,
    runs_dir: RunsOption = RUNS_FOLDER,
) -> None:
    """Serve the commands as tools of the Model Context Protocol on stdin and stdout, for a coding agent. Read-only by default."""
    from core.addresses import parse_base_url_option

    if not root.is_dir():
        raise UsageError(f"--root {root}: is not a folder; name an existing one")
    if "://" in runs_dir:
        raise UsageError(f"--runs-dir {runs_dir}: the server needs runs on this machine; name a folder")
    if allow_run and max_requests is None and max_usd is None:
        raise UsageError("--allow-run: needs a budget; add --max-requests or --max-usd")
    if not allow_run and (max_requests is not None or max_usd is not None):
        raise UsageError(
            "--max-requests and --max-usd: a read-only server spends nothing; add --allow-run, or leave them out"
        )
    urls = tuple(parse_base_url_option("--allow-url", url) for url in allow_url or ())
    _check_mcp_package()
    from flows.recipes.recipe_catalog import guard_recipes
    from plugins.interop.access_policy import AccessPolicy
    from plugins.interop.protocol_server import serve_over_stdio
    from plugins.interop.run_process import ServerBudget
    from plugins.interop.server_tools import ServerTools

    os.chdir(root)
    folder = Path.cwd().resolve()
    policy = AccessPolicy(
        folder, folder / runs_dir, allow_run, allow_code, urls, tuple(allow_key or ()),
        limits_cost=max_usd is not None, limits_requests=max_requests is not None,
    )  # fmt: skip
    guard_recipes(policy.find_recipe_problems)
    serve_over_stdio(ServerTools(policy, ServerBudget(max_requests, max_usd)))


@app.command("skill", rich_help_panel=MAKE_PANEL)
def skill_command(
    *,
    install: Annotated[bool, typer.Option("--install", help="Write the skill's files instead of printing it.")] = False,
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="The folder that --install writes.")
    ] = DEFAULT_SKILL_FOLDER,
    force: Annotated[bool, typer.Option("--force", help="Replace files that differ.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Print a skill that teaches a coding agent to use Stillhouse, in the Agent Skills format; or install it in a project."""
    from plugins.interop.commands import _build_skill_files, install_skill, read_skill_text

    if not install:
        if force or out != DEFAULT_SKILL_FOLDER:
            raise UsageError("--out and --force: only with --install, which writes files")
        print_json(_build_skill_files()) if as_json else print_text(read_skill_text().rstrip())
        return
    installed = install_skill(out, replace=force)
    if as_json:
        print_json({"folder": str(installed.folder), "written": installed.written})
        return
    state = f"wrote {', '.join(installed.written)}" if installed.written else "is up to date"
    print_text(f"{installed.folder}  {state}")


def _check_mcp_package() -> None:
    from importlib.util import find_spec

    from core.installation import format_install_command

    if find_spec("mcp") is None:
        raise UsageError(f"the MCP server needs the extra `interop`: run {format_install_command('interop')}")


@app.command("export-env", rich_help_panel=STUDENT_PANEL)
def export_env_command(
    source: Annotated[
        str, typer.Argument(metavar="RECIPE", help="A recipe; or a run, for the requests of its samples.")
    ],
    out: OutOption,
    overrides: SetOption = None,
    *,
    number: Annotated[int, typer.Option("-n", min=1, max=1_000_000, help="The most tasks to train on.")] = 500,
    evaluated: Annotated[
        int, typer.Option("--eval", min=0, max=100_000, help="The most other tasks, for evaluation.")
    ] = 50,
    runs_dir: RunsOption = RUNS_FOLDER,
    as_json: JsonOption = False,
) -> None:
    """Export a recipe as an environment for reinforcement learning with `verifiers`: the reward is the recipe's own checks."""
    from flows.data.run_storage import open_run_storage
    from plugins.interop.environment_export import export_environment

    storage = open_run_storage(runs_dir)
    exported = export_environment(source, overrides or [], out, storage, number=number, evaluated=evaluated)
    if as_json:
        print_json({**exported._asdict(), "folder": str(exported.folder)})
        return
    print_text(f"{exported.folder}  {exported.name}: {exported.train:,} tasks, {exported.evaluation:,} for evaluation")
    print_text(f"  reward    1 if an answer passes {', '.join(exported.checks)}, else 0")
    print_text(f"hint: install it next to Stillhouse: pip install -e {shlex.quote(str(exported.folder))}")


@app.command("import", rich_help_panel=CLEAN_PANEL)
def import_command(
    source: InputArgument,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="The .jsonl file to write.")],
    *,
    rows: Annotated[
        Literal["conversations", "texts", "labels"],
        typer.Option(
            "--as",
            help="conversations: `messages`; texts: `text` up to the user's last words; labels: `text` up to the last reply, "
            "and this as `label`.",
        ),
    ] = "conversations",
    mask: Annotated[
        bool,
        typer.Option(
            "--mask/--no-mask", help="Replace e-mail addresses, phone and card numbers and API keys by placeholders."
        ),
    ] = True,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Read chat logs as rows: OpenAI requests with responses, batch files, traces of Langfuse and OpenTelemetry, ATIF."""
    from flows.terminal.suggested_commands import format_next_line
    from plugins.interop.chat_log_import import import_chat_logs

    SESSION.quiet = quiet
    report = import_chat_logs(source, out, rows, mask=mask)
    if as_json:
        print_json({"state": "done", "out": str(out), **report._asdict()})
        return
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in report.formats.items())
    print_text(
        f"{out}  {report.rows:,} rows ({kinds}); {report.repeats:,} repeats left out, {report.masked:,} rows masked"
    )
    for reason, count in report.skipped.items():
        print_text(f"  skipped {count:,}: {reason}")
    print_text(format_next_line("filter", str(out), "--out", f"{out.with_suffix('')}-clean"))
