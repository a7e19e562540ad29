"""Commands that exchange releases with the Hugging Face Hub: publish, pull."""

from pathlib import Path
from typing import Annotated

import typer

from core.errors import UsageError
from core.project_files import RUNS_FOLDER
from flows.commands.command_options import (
    RELEASE_PANEL,
    JsonOption,
    OutOption,
    QuietOption,
    RunsOption,
    print_json,
    print_text,
)
from flows.terminal.console import SESSION

app = typer.Typer()


@app.command("publish", rich_help_panel=RELEASE_PANEL)
def publish_command(
    name: Annotated[
        Path,
        typer.Argument(metavar="RELEASE", help="A release: RECIPE/GENERATION, RECIPE for the newest, or its folder."),
    ],
    to: Annotated[str, typer.Option("--to", metavar="hf:OWNER/NAME", help="The dataset's repository on the Hub.")],
    *,
    student: Annotated[
        bool,
        typer.Option("--student", help="Also send the student of its run, GGUF files included, to OWNER/NAME-student."),
    ] = False,
    student_to: Annotated[
        str | None,
        typer.Option(
            "--student-to",
            metavar="hf:OWNER/NAME",
            help="Also send the student, to this repository.",
            show_default=False,
        ),
    ] = None,
    public: Annotated[
        bool, typer.Option("--public", help="Create public repositories, or send to public ones; default: private.")
    ] = False,
    allow_personal_data: Annotated[
        bool,
        typer.Option(
            "--allow-personal-data", help="Send although text looks like personal data; look at each place first."
        ),
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be sent; ask no network.")] = False,
    runs_dir: RunsOption = RUNS_FOLDER,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Send a release to the Hugging Face Hub, with the token in HF_TOKEN. Repeat it after an interruption.

    Exit 3 if the release did not meet the gate, or secrets or personal data are found.
    """
    from flows.data.run_storage import open_run_storage
    from plugins.publish.hub_publication import check_repositories, publish_plan
    from plugins.publish.publication_plan import check_contents, find_named_release, plan_publication
    from plugins.publish.publication_text import build_publication_record, format_plan, format_sent

    SESSION.quiet = quiet
    storage = open_run_storage(runs_dir)
    release = find_named_release(name, storage)
    sent = None
    with SESSION.exit_if_interrupted("complete files are kept on the Hub; the same command resumes"):
        plan = plan_publication(release, storage, to, student_to, public=public, with_student=student)
        if not dry_run:
            check_repositories(plan)  # before the search, which may take minutes
        allowed = check_contents(
            plan,
            allow_personal_data=allow_personal_data,
            progress=SESSION.show_unless_stopped,
            stopped=SESSION.check_stopped,
        )
        if not dry_run:
            sent = publish_plan(plan, SESSION.print_unless_stopped)
    if as_json:
        print_json(build_publication_record(plan, sent, allowed))
    else:
        print_text(format_plan(plan, allowed) if sent is None else format_sent(plan, sent, allowed))


@app.command("pull", rich_help_panel=RELEASE_PANEL)
def pull_command(
    name: Annotated[
        str, typer.Argument(metavar="hf:OWNER/NAME[@REVISION]", help="A published release; a commit pins its content.")
    ],
    out: OutOption,
    *,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Download a published release and verify the hash of every file. A private one needs the token in HF_TOKEN."""
    from plugins.publish.hub_pull import pull_release
    from plugins.publish.publication_plan import parse_pull_reference
    from plugins.publish.publication_text import format_pulled

    SESSION.quiet = quiet
    reference = parse_pull_reference(name)
    if not out.name:
        raise UsageError(f"--out {out}: must be the name of a new folder")
    with SESSION.exit_if_interrupted("complete files are kept; the same command resumes"):
        pulled = pull_release(reference, out, SESSION.print_unless_stopped, SESSION.check_stopped)
    if as_json:
        record = {"release": pulled.release, "path": str(pulled.path), "digest": pulled.digest}
        record |= {"statement": str(pulled.statement)} if pulled.statement else {}
        print_json(
            {**record, "repo": pulled.reference.repo, "revision": pulled.reference.revision, "files": pulled.files}
        )
        return
    print_text(format_pulled(pulled))
