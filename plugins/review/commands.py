"""The command `review`: people look at samples on a local page."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from core.errors import UsageError
from core.project_files import RUNS_FOLDER
from flows.commands.command_options import (
    CLEAN_PANEL,
    ColumnsOption,
    JsonOption,
    QuietOption,
    RunsOption,
    print_json,
    print_text,
)
from flows.rows.column_names import name_columns
from flows.terminal.console import SESSION, UserInterrupt

if TYPE_CHECKING:
    from plugins.review.review_samples import ReviewSource

app = typer.Typer()


@app.command("review", rich_help_panel=CLEAN_PANEL)
def review_command(
    source: Annotated[
        str,
        typer.Argument(metavar="RUN|FILE", help="The name of a run or its directory; or a data file."),
    ],
    *,
    columns: ColumnsOption = None,
    reviewer: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Who decides, as written in the log; default: your user name.", show_default=False
        ),
    ] = None,
    blind: Annotated[bool, typer.Option("--blind", help="Hide the machine's verdict until you have decided.")] = False,
    random_size: Annotated[
        int | None,
        typer.Option(
            "--random", metavar="N", min=1, help="Review a random sample of N, from which the error rate is estimated."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="With --random: another seed draws another sample.")] = 0,
    summary: Annotated[
        bool, typer.Option("--summary", help="Print counts, error rate and agreement, and start no page.")
    ] = False,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes any free port.")] = 0,
    browser: Annotated[
        bool, typer.Option("--browser/--no-browser", help="Open the page in your browser, where there is a display.")
    ] = True,
    runs_dir: RunsOption = RUNS_FOLDER,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Look at samples on a local page, and keep, drop or correct them. Ctrl-C ends; every decision is stored at once."""
    from contextlib import ExitStack

    from core.runs.records import RunState
    from flows.data.run_storage import open_run_storage
    from plugins.review.review_samples import index_file, index_run
    from plugins.review.review_session import ReviewSession, check_reviewer_name

    SESSION.quiet = quiet
    if as_json and not summary:
        raise UsageError("--json: prints the summary; add --summary")
    name = check_reviewer_name(_find_user_name() if reviewer is None else reviewer)
    storage = open_run_storage(runs_dir)
    with ExitStack() as stack, SESSION.handle_interrupts():
        if Path(source).is_file():
            found = index_file(name_columns(Path(source), columns))
        else:
            run = storage.find_run(source)
            if not summary:
                stack.enter_context(storage.lock_run(run))
            state = storage.read_manifest(run).state
            if random_size is not None and state not in (RunState.done, RunState.partial):
                raise UsageError(
                    f"--random: {run.name} is {state}, so the samples to draw from may change; finish it first"
                )
            found = index_run(run)
        review = ReviewSession(found, name, blind=blind)
        if random_size is not None:
            review.draw_queue(random_size, seed)
        if summary:
            _print_summary(review.summarize(), found, source, runs_dir, as_json=as_json)
            return
        _serve_page(review, found, port, browser=browser)
    sentences = review.summarize()["sentences"]
    print_text("\n".join(sentences) or "nothing is reviewed yet")
    print_text(_suggest_next(found, source, runs_dir))


def _find_user_name() -> str:
    """The name of the user's account. Raises UsageError where there is none."""
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        raise UsageError("--reviewer: this account has no name; say who reviews, as in --reviewer anna") from None


def _serve_page(review: Any, found: "ReviewSource", port: int, *, browser: bool) -> None:
    import asyncio
    from contextlib import ExitStack

    from plugins.review.browser_opening import open_in_browser
    from plugins.review.review_server import serve_reviews

    with ExitStack() as stack:

        def start(url: str) -> None:
            print_text(f"review of {found.name} by {review.reviewer}: {url}")
            sys.stdout.flush()
            SESSION.print_message(f"decisions: {found.log.path}; Ctrl-C ends")
            if browser:
                stack.enter_context(open_in_browser(url))

        try:
            asyncio.run(serve_reviews(review, port, SESSION, start))
        except KeyboardInterrupt:
            raise UserInterrupt from None


def _print_summary(result: dict[str, Any], found: "ReviewSource", source: str, runs_dir: str, *, as_json: bool) -> None:
    if as_json:
        print_json({"source": found.name, "log": str(found.log.path), **result})
        return
    print_text("\n".join([f"reviews of {found.name}  {found.log.path}", *(f"  {one}" for one in result["sentences"])]))
    if not result["sentences"]:
        print_text("  nothing is reviewed yet")
    print_text(_suggest_next(found, source, runs_dir))


def _suggest_next(found: "ReviewSource", source: str, runs_dir: str) -> str:
    """Curation where a run has decisions, else the page."""
    from flows.terminal.suggested_commands import build_runs_dir_arguments, format_next_line

    is_run = not Path(source).is_file()
    options = build_runs_dir_arguments(runs_dir) if is_run else []
    decided = next(found.log.list_decided(), None) is not None
    return format_next_line("curate" if is_run and decided else "review", source, *options)
