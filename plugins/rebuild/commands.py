"""`stillhouse rebuild`."""

from pathlib import Path
from typing import Annotated

import typer

from core.errors import GateNotMet, RunFailed, UsageError
from core.project_files import RUNS_FOLDER
from flows.commands.command_options import RELEASE_PANEL, JsonOption, QuietOption, RunsOption, print_json, print_text
from flows.terminal.console import SESSION

app = typer.Typer()


@app.command("rebuild", rich_help_panel=RELEASE_PANEL)
def rebuild_command(
    name: Annotated[
        Path,
        typer.Argument(metavar="RELEASE", help="A release: RECIPE/GENERATION, RECIPE for the newest, or its folder."),
    ],
    *,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FOLDER", help="Keep what is made, in this empty folder.", show_default=False),
    ] = None,
    sign: Annotated[
        str | None,
        typer.Option(
            "--sign",
            metavar="KEY",
            help="If nothing differs, sign a statement of all files: a file with a private key, or env:VARIABLE.",
            show_default=False,
        ),
    ] = None,
    verify: Annotated[
        str | None,
        typer.Option(
            "--verify",
            metavar="KEY",
            help="Make nothing: compare the signed statement with all files, by a public key.",
            show_default=False,
        ),
    ] = None,
    student: Annotated[
        bool, typer.Option("--student", help="Train its student again too, and compare held-out losses.")
    ] = False,
    order_test: Annotated[
        Path | None,
        typer.Option(
            "--order-test",
            metavar="FOLDER",
            help="Make nothing: test whether the model in this folder has read the held-out requests.",
            show_default=False,
        ),
    ] = None,
    runs_dir: RunsOption = RUNS_FOLDER,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Make a release again from its recording, without a teacher, and compare every byte of its dataset and every verdict.

    Exit 1 if anything differs, 3 if a model has read the held-out requests.
    """
    from flows.data.run_storage import open_run_storage
    from plugins.rebuild.held_out import check_order, format_order_test
    from plugins.rebuild.rebuild import format_rebuild, locate_requests, open_named_release, rebuild_release
    from plugins.rebuild.statement import sign_release, verify_release

    SESSION.quiet = quiet
    storage = open_run_storage(runs_dir)
    if (verify or order_test) and (sign or out or student or (verify and order_test)):
        raise UsageError(
            "--verify and --order-test make nothing; give one of them, without --sign, --out and --student"
        )
    release = open_named_release(name, storage)
    if verify:
        number, key = verify_release(release, verify)
        record = {"release": release.name, "files": number, "key": key}
        print_json(record) if as_json else print_text(f"{release.name}: signed by {key}, {number} files are unchanged")
        return
    if order_test:
        tested = check_order(release.name, locate_requests(release), order_test)
        print_text(tested.model_dump_json() if as_json else format_order_test(tested))
        if tested.contaminated:
            raise SystemExit(GateNotMet.exit_code)
        return
    with SESSION.exit_if_interrupted("nothing is stored; the same command begins again"):
        found = rebuild_release(release, storage, out, student=student)
    statement = sign_release(release, sign) if sign and found.equal else None
    print_text(found.model_dump_json() if as_json else format_rebuild(found))
    if statement:
        SESSION.print_message(f"signed: {statement}")
    if not found.equal:
        raise SystemExit(RunFailed.exit_code)
