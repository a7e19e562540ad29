"""Commands to use before a run: list, start, check and preview recipes, draw topologies, list plugins."""

from pathlib import Path
from typing import Annotated

import typer

from core.errors import RecipeError, UsageError
from core.project_files import RUNS_FOLDER
from core.shared_options import DEFAULT_PREVIEW_SAMPLES, MOST_PREVIEW_SAMPLES
from flows.commands.command_options import (
    MAKE_PANEL,
    TRY_PANEL,
    JsonOption,
    RecipeArgument,
    RunsOption,
    SetOption,
    print_json,
    print_text,
)
from flows.terminal.console import SESSION

app = typer.Typer()


@app.command("recipes", rich_help_panel=TRY_PANEL)
def recipes_command(*, as_json: JsonOption = False) -> None:
    """List the built-in recipes, with their output and requirements."""
    from flows.recipes.recipe_catalog import list_built_in_recipes, read_recipe_headline

    headlines = {name: read_recipe_headline(path) for name, path in list_built_in_recipes().items()}
    if as_json:
        print_json(headlines)
        return
    for name, text in headlines.items():
        print_text(f"{name}\n  " + text.replace("\n", "\n  "))
    from flows.terminal.suggested_commands import format_next_line

    print_text("hint: stillhouse new NAME --from RECIPE writes a folder to start from")
    print_text(format_next_line("preview", "smoke"))


@app.command("new", rich_help_panel=MAKE_PANEL)
def new_command(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="The recipe's name, and the folder if --out is left out.")
    ],
    *,
    source: Annotated[str, typer.Option("--from", metavar="RECIPE", help="The recipe to start from.")],
    out: Annotated[Path | None, typer.Option("--out", metavar="DIR", help="The folder to write.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Write a folder to start from: a small recipe that extends RECIPE, some of its seeds, and its prompts."""
    from flows.recipes.recipe_scaffold import build_folder_argument, create_recipe_folder
    from flows.terminal.suggested_commands import format_command, format_next_line

    folder = out or Path(name)
    written = create_recipe_folder(name, source, folder)
    shown = build_folder_argument(folder)
    if as_json:
        print_json({"folder": shown, "files": written})
        return
    print_text("\n  ".join([f"wrote {shown}", *written]))
    print_text(format_next_line("validate", shown))
    print_text(f"then: {format_command('preview', shown)}; {format_command('run', shown)}")


@app.command("validate", rich_help_panel=MAKE_PANEL)
def validate_command(
    recipe: RecipeArgument,
    overrides: SetOption = None,
    *,
    live: Annotated[
        bool, typer.Option("--live", help="Ask each teacher a few short questions, and list the tools of MCP servers.")
    ] = False,
    resolved: Annotated[
        bool, typer.Option("--resolved", help="Print every key with its value, as a recipe that can be run.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Check a recipe. Prints the verdict first, then all problems at once, or what the recipe does.

    This executes the files of the recipe's own checks (`path`), modules of its own tools in the sandbox, and with --live the
    commands of its tool servers: such a recipe is a program.
    """
    import asyncio

    from flows.recipes.recipe_catalog import (
        describe_invalid_recipe,
        format_findings,
        format_invalid_recipe,
        format_recipe_summary,
        format_resolved_recipe,
        inspect_recipe,
        validate_recipe,
    )
    from flows.terminal.suggested_commands import build_recipe_arguments, format_command, format_next_line

    try:
        validated = validate_recipe(recipe, overrides or [])
    except RecipeError as error:
        if resolved:
            raise
        print_json(describe_invalid_recipe(error)) if as_json else print_text(format_invalid_recipe(error))
        raise SystemExit(error.exit_code) from None
    plan, verdict = validated.plan, validated.describe()
    findings = asyncio.run(inspect_recipe(plan, live=live))
    if as_json:
        whole = plan.recipe.model_dump(mode="json", exclude_none=True)
        print_json({"valid": True, "verdict": verdict, "recipe": whole, **findings.to_json()})
        return
    notes = [*format_findings(findings, plan.recipe), *validated.seeds.notes]
    if resolved:
        comments = [f"# {' '.join(note.split())}" for note in [verdict, *notes]]
        print_text("\n".join([*comments, "", format_resolved_recipe(plan.recipe, plan.folder).rstrip()]))
        return
    words = build_recipe_arguments(recipe, overrides)
    print_text("\n".join([verdict, *format_recipe_summary(plan.recipe), *notes]))
    print_text(f"hint: every key with its value: {format_command('validate', *words, '--resolved')}")
    print_text(format_next_line("preview", *words))


@app.command("preview", rich_help_panel=TRY_PANEL)
def preview_command(
    recipe: RecipeArgument,
    overrides: SetOption = None,
    *,
    number: Annotated[
        int, typer.Option("-n", min=1, max=MOST_PREVIEW_SAMPLES, help="Number of samples.")
    ] = DEFAULT_PREVIEW_SAMPLES,
    runs_dir: RunsOption = RUNS_FOLDER,
    as_json: JsonOption = False,
) -> None:
    """Make a few samples, print every turn, and estimate what a run takes. Keeps no sample; exit 1 if none could be judged.

    The generator is that of the next run: the recipe's own, or a promoted student.
    """
    from agents.studies.preview import estimate_run, preview_samples
    from core.config.recipe import recipe_digest
    from core.sample import SampleStatus
    from flows.data.run_storage import store_estimate
    from flows.recipes.recipe_catalog import load_recipe_plan
    from flows.run.run_preparation import plan_next_run
    from flows.terminal.run_summary import format_estimate
    from flows.terminal.sample_history import format_sample_history
    from flows.terminal.suggested_commands import (
        build_recipe_arguments,
        build_runs_dir_arguments,
        build_unjudged_error,
        suggest_after_preview,
    )

    written = load_recipe_plan(recipe, overrides)
    plan = plan_next_run(written, runs_dir)
    generator = plan.recipe.generator_teacher
    preview = SESSION.run_interruptibly(preview_samples(plan, number, SESSION.stop))
    samples, estimate = preview.samples, estimate_run(plan, preview)
    judged = any(sample.state is not SampleStatus.failed for sample in samples)
    if judged:
        store_estimate(recipe_digest(written.recipe, written.sources), estimate)
    if as_json:
        print_json({
            "generator": generator.model,
            "samples": [sample.model_dump(mode="json") for sample in samples],
            "estimate": estimate.model_dump(mode="json") if judged else None,
        })  # fmt: skip
    else:
        if generator.student_of:
            print_text(f"generator: the promoted student of {generator.student_of}\n")
        print_text("\n\n".join(map(format_sample_history, samples)))
        if judged:
            print_text("\n" + "\n".join(format_estimate(estimate, plan.recipe.name)))
    words = [*build_recipe_arguments(recipe, overrides), *build_runs_dir_arguments(runs_dir)]
    if not judged:
        raise build_unjudged_error(samples, words, number)
    if not as_json:
        print_text("\n".join(suggest_after_preview(samples, words, number, MOST_PREVIEW_SAMPLES)))


@app.command("graph", rich_help_panel=MAKE_PANEL)
def graph_command(
    kind: Annotated[str, typer.Argument(metavar="TOPOLOGY")] = "centralized",
) -> None:
    """Print a topology's LangGraph graph as a Mermaid diagram."""
    from agents.topologies.topology_graphs import TOPOLOGY_BUILDERS, draw_topology

    if kind not in TOPOLOGY_BUILDERS:
        raise UsageError(f"{kind}: unknown topology; choose one of {', '.join(TOPOLOGY_BUILDERS)}")
    print_text(draw_topology(kind))


@app.command("plugins", rich_help_panel=TRY_PANEL)
def plugins_command(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="One plugin, with its recipe keys.")] = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """List the installed plugins: what each adds, where it comes from, and what it lacks here."""
    from core.installation import format_install_command, list_missing_packages
    from core.plugins import Plugin, find_plugin, list_faults, list_plugins

    def describe(plugin: Plugin) -> dict[str, object]:
        missing = list_missing_packages(plugin.extra) if plugin.extra else []
        parts: dict[str, list[str]] = {}
        for part in plugin.parts:
            parts.setdefault(part.kind, []).append(part.name)
        origin, install = plugin.origin or "stillhouse", format_install_command(plugin.extra) if missing else ""
        return {"name": plugin.name, "about": plugin.about, "origin": origin, "parts": parts, "install": install}

    described = [describe(find_plugin(name))] if name else [describe(plugin) for plugin in list_plugins()]
    faults = [] if name else [str(fault) for fault in list_faults()]
    if as_json:
        print_json({"plugins": described, "faults": faults})
        return
    for plugin in described:
        state = f"needs {plugin['install']}" if plugin["install"] else "ready"
        print_text(f"{plugin['name']}  {plugin['about']}\n  {plugin['origin']}, {state}")
        print_text("\n".join(f"  {kind}: {', '.join(names)}" for kind, names in plugin["parts"].items()))  # type: ignore[attr-defined]
    for fault in faults:
        print_text(f"left out: {fault}")
    if name:
        from flows.recipes.recipe_reference import build_plugin_reference

        print_text(build_plugin_reference(find_plugin(name)))
