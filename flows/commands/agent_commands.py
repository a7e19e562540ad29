"""The command `export-env`: a recipe as an environment for reinforcement learning."""

import shlex
from typing import Annotated

import typer

from core.project_files import RUNS_FOLDER
from flows.commands.command_options import (
    STUDENT_PANEL,
    JsonOption,
    OutOption,
    RunsOption,
    SetOption,
    print_json,
    print_text,
)

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
    from flows.environments.environment_export import export_environment

    storage = open_run_storage(runs_dir)
    exported = export_environment(source, overrides or [], out, storage, number=number, evaluated=evaluated)
    if as_json:
        print_json({**exported._asdict(), "folder": str(exported.folder)})
        return
    print_text(f"{exported.folder}  {exported.name}: {exported.train:,} tasks, {exported.evaluation:,} for evaluation")
    print_text(f"  reward    1 if an answer passes {', '.join(exported.checks)}, else 0")
    print_text(f"hint: install it next to Stillhouse: pip install -e {shlex.quote(str(exported.folder))}")
