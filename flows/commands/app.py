"""The typer application: all commands, in the order of the help. Heavy imports happen inside commands."""

import typer

from flows.commands import (
    dataset_commands,
    deployment_commands,
    recipe_commands,
    release_commands,
    result_commands,
    run_commands,
    student_commands,
)

EXIT_CODES_EPILOG = (
    "Exit codes: 0 done, 1 the run failed, 2 wrong use or recipe, 3 a gate was not met, 130 interrupted."
)

app = typer.Typer(
    help="One recipe in; a verified synthetic dataset and a small student model out.",
    epilog=EXIT_CODES_EPILOG,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for part in (
    recipe_commands,
    run_commands,
    dataset_commands,
    student_commands,
    deployment_commands,
    result_commands,
    release_commands,
):
    app.add_typer(part.app)
