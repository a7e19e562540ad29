"""`stillhouse disclosure`."""

from typing import Annotated

import typer

from core.errors import GateNotMet, UsageError
from core.project_files import RUNS_FOLDER
from flows.commands.command_options import CLEAN_PANEL, JsonOption, RunArgument, RunsOption, print_json, print_text

app = typer.Typer()


@app.command("disclosure", rich_help_panel=CLEAN_PANEL)
def disclosure_command(
    run: RunArgument,
    *,
    show: Annotated[int, typer.Option("--rows", min=0, max=10_000, help="The most rows to list.")] = 20,
    runs_dir: RunsOption = RUNS_FOLDER,
    as_json: JsonOption = False,
) -> None:
    """List the rows of a run that have a part of a document, and the documents. Never prints the part.

    Exit 3 if documents leak into more rows than the recipe's `disclosure.limit`.
    """
    from flows.data.run_storage import open_run_storage
    from flows.terminal.text_format import format_one_line
    from plugins.disclosure.config import NAME, DisclosureConfig
    from plugins.disclosure.disclosure import DisclosureRecord
    from plugins.disclosure.hooks import HOOKS, read_leaks

    found = open_run_storage(runs_dir).find_run(run)
    manifest = found.read_manifest()
    record = manifest.get(NAME, DisclosureRecord)
    if record is None:
        if found.read_recipe().section(DisclosureConfig):
            assessed = f"kept no row to compare with documents; `stillhouse show {found.path}` says why"
            waiting = "was not assessed yet; continue the run with --resume"
            raise UsageError(f"{found.name}: {assessed if manifest.collapse else waiting}")
        raise UsageError(
            f"{found.name}: no document was held back, so a leak cannot be distinguished from chance; make a run with "
            "--set disclosure.hold_back=0.5"
        )
    leaks = read_leaks(found)
    if as_json:
        listed = [leak.model_dump(mode="json") for leak in leaks[:show]]
        print_json({**record.model_dump(mode="json"), "leaks": record.leaks, "found": listed})
    else:
        lines = [f"disclosure of {found.name}", f"  {record.verdict}"]
        lines += [f"  {one.row}  {format_one_line(one.document)}: {', '.join(one.kinds)}" for one in leaks[:show]]
        lines += [f"  and {len(leaks) - show:,} more; --rows lists them"] if len(leaks) > show else []
        print_text("\n".join(lines))
    if HOOKS.list_release_faults(manifest):
        raise SystemExit(GateNotMet.exit_code)
