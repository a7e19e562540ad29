"""`stillhouse improve`."""

from pathlib import Path
from typing import Annotated

import typer

from flows.commands.command_options import (
    MAKE_PANEL,
    JsonOption,
    OptionalOutOption,
    QuietOption,
    RecipeArgument,
    SetOption,
    print_text,
)
from flows.terminal.console import SESSION, UserInterrupt
from plugins.improve.search_names import SearchName

app = typer.Typer()


@app.command("improve", rich_help_panel=MAKE_PANEL)
def improve_command(
    recipe: RecipeArgument,
    overrides: SetOption = None,
    *,
    search: Annotated[SearchName | None, typer.Option(
        help="`examples` and temperature; `gepa`: a teacher rewrites the prompt; `random`: the control. Default: examples "
        "for the embedded teacher and GGUF models, else gepa.", show_default=False,
    )] = None,
    teacher: Annotated[str, typer.Option(metavar="NAME", help="The teacher of the recipe that reflects, for gepa.")] = "main",
    train: Annotated[int, typer.Option(min=20, max=10_000, help="Seeds on which the search scores.")] = 48,
    held_out: Annotated[int, typer.Option(
        "-n", "--held-out", min=20, max=10_000, help="Seeds on which start and winner are compared."
    )] = 100,
    calls: Annotated[int, typer.Option(min=1, max=1_000_000, help="The most first drafts of the search.")] = 400,
    floor: Annotated[bool, typer.Option("--floor/--no-floor", help="Refuse prompts with certainly less diverse drafts.")] = True,
    out: OptionalOutOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be searched, and stop.")] = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:  # fmt: skip
    """Search better prompts for a recipe's generator: more verified rows per teacher token, not certainly less diverse.

    A winner is accepted if it is better on held-out seeds. The same command resumes after an interruption.
    """
    from core.stop_signal import RunStopped
    from flows.recipes.recipe_catalog import load_recipe_plan
    from flows.terminal.suggested_commands import build_recipe_arguments, format_next_line
    from plugins.improve.improved_recipe import list_kept_overrides, write_improved_recipe
    from plugins.improve.improvement import ImproveOptions, prepare_improvement, run_improvement
    from plugins.improve.results import format_improvement

    SESSION.quiet = quiet
    plan = load_recipe_plan(recipe, overrides)
    folder = out or Path(f"{plan.recipe.name}-improved")
    options = ImproveOptions(search, teacher, train, held_out, calls, floor)
    task = prepare_improvement(plan, options, folder)
    if dry_run:
        print_text(task.declared.model_dump_json() if as_json else task.declared.describe())
        return
    with SESSION.exit_if_interrupted("drafts are stored; the same command resumes"):
        try:
            found = run_improvement(task, SESSION)
        except RunStopped:
            raise UserInterrupt from None
    print_text(found.model_dump_json() if as_json else format_improvement(found))
    if found.candidate and found.held_out and found.held_out.accepted:
        write_improved_recipe(recipe, plan, found.candidate, folder / "recipe")
        kept = list_kept_overrides(overrides or (), found.candidate)
        if not as_json:
            print_text(format_next_line("run", *build_recipe_arguments(str(folder / "recipe"), kept)))
