"""Commands for releases and their lineage."""

from pathlib import Path
from typing import Annotated

import typer

from core.errors import GateNotMet, RunFailed, UsageError
from core.plugins import load_part_of
from core.project_files import RUNS_FOLDER
from flows.commands.command_options import RELEASE_PANEL, JsonOption, RecipeArgument, RunsOption, print_json, print_text

app = typer.Typer()


@app.command("release", rich_help_panel=RELEASE_PANEL)
def release_command(
    run_name: Annotated[
        str, typer.Argument(metavar="RUN", help="The name of a run, its directory, or a folder that `filter` wrote.")
    ],
    *,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of a folder: the name of its releases; default: the folder's.")
    ] = None,
    reference: Annotated[
        str | None, typer.Option(metavar="FILE", help="Of a folder: real text to compare with, as for `assess`.")
    ] = None,
    license_name: Annotated[
        str | None, typer.Option("--license", metavar="SPDX", help="Of a folder: the licence of its rows.")
    ] = None,
    runs_dir: RunsOption = RUNS_FOLDER,
    as_json: JsonOption = False,
) -> None:
    """Make an immutable release of a run, the next generation of its recipe, or of a filtered folder. Refused if the release gate
    is not met.
    """
    from core.runs.records import summarize_manifest
    from flows.data.run_storage import open_run_storage
    from flows.release.release_creation import format_created_release, release_run
    from flows.release.release_gate import find_release_refusals

    storage = open_run_storage(runs_dir)
    if any((Path(run_name) / file).is_file() for file in ("work/input.json", "dropped.parquet")):  # of `filter`
        created = load_part_of("publish", "release", "rows", run_name)(
            Path(run_name), name, reference, license_name, storage
        )
    elif given := [
        option for option, value in (("--name", name), ("--reference", reference), ("--license", license_name)) if value
    ]:
        raise UsageError(f"{given[0]}: {run_name} is no folder that `filter` wrote; a run has it from its recipe")
    else:
        run = storage.find_run(run_name)
        try:
            created = release_run(run, storage)
        except GateNotMet:
            if as_json:
                manifest = run.read_manifest()
                gates = [str(refusal) for refusal in find_release_refusals(manifest)]
                print_json({**summarize_manifest(manifest), "release": None, "gates": gates})
            raise
    if as_json:
        release = created.release
        identity = {"release": release.name, "path": str(release.path), "digest": release.manifest.digest}
        promotion = release.lineage.promotion.model_dump(mode="json") if release.lineage.promotion else None
        print_json({**summarize_manifest(release.manifest.run), **identity, "promotion": promotion})
        return
    print_text(format_created_release(created, runs_dir))


@app.command("lineage", rich_help_panel=RELEASE_PANEL)
def lineage_command(recipe: RecipeArgument, *, runs_dir: RunsOption = RUNS_FOLDER, as_json: JsonOption = False) -> None:
    """Print the generations of a recipe and their metrics. Every file is checked against its hash."""
    from core.runs.lineage import find_lineage
    from flows.data.run_storage import open_run_storage
    from flows.recipes.recipe_catalog import read_recipe_name
    from flows.release.lineage_view import build_lineage_record, format_lineage, inspect_generations

    fetched = open_run_storage(runs_dir).fetch_lineage(read_recipe_name(recipe))
    lineage = find_lineage(fetched.recipe, fetched.path.parent)
    generations = inspect_generations(lineage)
    print_json(build_lineage_record(lineage, generations)) if as_json else print_text(
        format_lineage(lineage, generations, runs_dir)
    )
    if any(generation.fault for generation in generations):
        raise SystemExit(RunFailed.exit_code)


@app.command("rollback", rich_help_panel=RELEASE_PANEL)
def rollback_command(
    recipe: RecipeArgument,
    generation: Annotated[
        int | None, typer.Argument(help="The generation to go back to; default: the last but one.")
    ] = None,
    *,
    runs_dir: RunsOption = RUNS_FOLDER,
    as_json: JsonOption = False,
) -> None:
    """Go back to a generation. Later generations are set aside, not deleted, and can be restored."""
    from core.runs.lineage import find_lineage
    from core.runs.releases import locate_releases
    from flows.data.run_storage import open_run_storage
    from flows.recipes.recipe_catalog import read_recipe_name
    from flows.release.release_creation import format_rollback

    storage = open_run_storage(runs_dir)
    if storage.depot:
        raise UsageError(
            f"{runs_dir}: releases on an object store cannot be rolled back; roll back where releases are folders"
        )
    lineage = find_lineage(read_recipe_name(recipe), locate_releases(storage.runs))
    lineage.roll_back(generation)
    if as_json:
        newest = next(reversed(lineage.list_generations()), None)
        print_json({"recipe": lineage.recipe, "state": "done", "newest": newest, "aside": lineage.list_aside()})
        return
    print_text(format_rollback(lineage, runs_dir))
