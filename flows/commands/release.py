"""Commands for releases and the generations that they make."""

from typing import Annotated

import typer

from core.errors import GateNotMet, RunFailed, UsageError
from core.run import RUNS
from flows.commands.shared import RELEASE, JsonOption, RecipeArgument, RunArgument, RunsOption, say, say_json

app = typer.Typer()


@app.command(rich_help_panel=RELEASE)
def release(run_name: RunArgument, *, runs_dir: RunsOption = RUNS, as_json: JsonOption = False) -> None:
    """Make an immutable release of a run, the next generation of its recipe; refused where the gate is not met."""
    from core.run import summary
    from flows.gates import refusals
    from flows.places import place_of
    from flows.releasing import release_run, released_text

    place = place_of(runs_dir)
    found = place.run(run_name)
    try:
        with place.releasing(found.read_recipe().name):
            made = release_run(found)
    except GateNotMet:
        if as_json:
            manifest = found.read_manifest()
            say_json({**summary(manifest), "release": None, "gates": refusals(manifest)})
        raise
    if as_json:
        told = {"release": made.release.name, "path": str(made.release.path), "digest": made.release.manifest.digest}
        say_json({**summary(made.release.manifest.run), **told})
        return
    say(released_text(made))


@app.command(rich_help_panel=RELEASE)
def lineage(recipe: RecipeArgument, *, runs_dir: RunsOption = RUNS, as_json: JsonOption = False) -> None:
    """Draw the generations of a recipe and their metrics; every file is held against its hash."""
    from core.release import find_lineage
    from flows.lineage import generations_of, lineage_numbers, lineage_text
    from flows.places import place_of
    from flows.recipes import name_of

    there = place_of(runs_dir).lineage(name_of(recipe))
    found = find_lineage(there.recipe, there.path.parent)
    generations = generations_of(found)
    say_json(lineage_numbers(found, generations)) if as_json else say(lineage_text(found, generations))
    if any(one.fault for one in generations):
        raise SystemExit(RunFailed.exit_code)


@app.command(rich_help_panel=RELEASE)
def rollback(
    recipe: RecipeArgument,
    generation: Annotated[
        int | None, typer.Argument(help="The one to go back to; the last but one if left out.")
    ] = None,
    *,
    runs_dir: RunsOption = RUNS,
    as_json: JsonOption = False,
) -> None:
    """Go back to a generation; those after it are put aside, not deleted, and can be brought back."""
    from core.release import find_lineage, releases_of
    from flows.places import place_of
    from flows.recipes import name_of
    from flows.releasing import place_text

    place = place_of(runs_dir)
    if place.depot:
        raise UsageError(
            f"{runs_dir}: what is published on an object store stays; roll back where releases are folders"
        )
    found = find_lineage(name_of(recipe), releases_of(place.runs))
    found.roll_back(generation)
    if as_json:
        newest = next(reversed(found.generations()), None)
        say_json({"recipe": found.recipe, "state": "done", "newest": newest, "aside": found.aside()})
        return
    say(place_text(found))
