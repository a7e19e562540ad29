"""`stillhouse study`."""

from pathlib import Path
from typing import Annotated

import typer

from flows.commands.command_options import (
    MAKE_PANEL,
    JsonOption,
    QuietOption,
    RecipeArgument,
    SetOption,
    print_text,
)
from flows.terminal.console import SESSION

app = typer.Typer()


@app.command("study", rich_help_panel=MAKE_PANEL)
def study_command(
    recipe: RecipeArgument,
    overrides: SetOption = None,
    *,
    topologies: Annotated[str, typer.Option(help="Topologies to compare, separated by commas.")] = (
        "single,independent,decentralized,centralized"
    ),
    samples: Annotated[
        int | None, typer.Option(min=1, help="Seeds for each topology; default: the recipe's number of samples.")
    ] = None,
    budget: Annotated[
        int | None, typer.Option(metavar="TOKENS", min=1, help="Token budget for each topology; default: the recipe's.")
    ] = None,
    held_out: Annotated[
        list[str] | None,
        typer.Option("--held-out", metavar="CHECK", help="A check that only the study uses; repeatable."),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="A JSON file for the result.")] = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Compare topologies on the same seeds: yield, undetected errors and cost."""
    from core.storage.atomic_files import write_text
    from plugins.study.topology_comparison import format_study_report, run_topology_study
    from plugins.study.topology_study import build_study, parse_topologies

    SESSION.quiet = quiet
    from flows.recipes.recipe_catalog import load_recipe_plan

    plan = build_study(load_recipe_plan(recipe, overrides), samples, budget, held_out or [])
    kinds = parse_topologies(topologies)
    report = SESSION.run_interruptibly(run_topology_study(plan, kinds, SESSION))
    text = report.model_dump_json(indent=2)
    if out:
        write_text(out, text + "\n")
    print_text(report.model_dump_json() if as_json else format_study_report(report))
