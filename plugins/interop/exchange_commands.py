"""The commands `export-env` and `import`: a recipe as an environment for reinforcement learning, chat logs as rows."""

import shlex
from pathlib import Path
from typing import Annotated, Literal

import typer

from core.project_files import RUNS_FOLDER
from flows.commands.command_options import (
    CLEAN_PANEL,
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

app = typer.Typer()


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
