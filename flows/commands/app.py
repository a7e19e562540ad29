"""The typer application: all commands, in the order of the help. Heavy imports happen inside commands."""

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from core.plugins import find_part, iterate_parts
from flows.commands import dataset_commands, recipe_commands, release_commands, run_commands, student_commands
from flows.commands.command_options import print_text

EXIT_CODES_EPILOG = (
    "Exit codes: 0 done, 1 the run failed, 2 wrong use or recipe, 3 a gate was not met, 130 interrupted."
)


class CommandGroup(TyperGroup):
    """The built-in commands, and those of plugins, whose modules are imported when the command or the help is asked for."""

    def list_commands(self, ctx: Any) -> list[str]:
        return [*super().list_commands(ctx), *(part.name for _, part in iterate_parts("command"))]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if built_in := super().get_command(ctx, cmd_name):
            return built_in
        if (found := find_part("command", cmd_name)) is None:
            return None
        group = typer.main.get_group(found[1].load())
        return group.commands.get(cmd_name)


app = typer.Typer(
    cls=CommandGroup,
    help="One recipe in; a verified synthetic dataset and a small student model out.",
    epilog=EXIT_CODES_EPILOG,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for part in (recipe_commands, run_commands, dataset_commands, student_commands, release_commands):
    app.add_typer(part.app)


def _print_version(asked: bool) -> None:
    if asked:
        from core.installation import read_version

        print_text(f"stillhouse {read_version()}")
        raise typer.Exit


@app.callback()
def read_program_options(
    *,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    pass
