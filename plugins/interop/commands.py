"""The commands `mcp` and `skill`."""

import os
from pathlib import Path
from typing import Annotated

import typer

from core.errors import UsageError
from core.project_files import RUNS_FOLDER
from flows.commands.command_options import MAKE_PANEL, JsonOption, RunsOption, print_json, print_text
from plugins.interop.skill_files import DEFAULT_SKILL_FOLDER

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
    from plugins.interop.server_budget import ServerBudget
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
    from plugins.interop.skill_files import build_skill_files, install_skill, read_skill_text

    if not install:
        if force or out != DEFAULT_SKILL_FOLDER:
            raise UsageError("--out and --force: only with --install, which writes files")
        print_json(build_skill_files()) if as_json else print_text(read_skill_text().rstrip())
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
