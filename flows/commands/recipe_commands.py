"""Commands to use before a run: list, check and preview recipes, draw and compare topologies."""

import json
from pathlib import Path
from typing import Annotated

import typer

from core.errors import RunFailed, UsageError
from flows.commands.command_options import (
    RECIPE_PANEL,
    JsonOption,
    QuietOption,
    RecipeArgument,
    SetOption,
    load_command_plan,
    print_json,
    print_text,
)
from flows.terminal.console import SESSION, UserInterrupt
from flows.terminal.text_format import format_count

app = typer.Typer()

MOST_PREVIEW_SAMPLES = 50
"""Maximum number of samples in one preview."""


@app.command("recipes", rich_help_panel=RECIPE_PANEL)
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

    print_text("hint: stillhouse validate RECIPE prints a recipe in full")
    print_text(format_next_line("preview", "smoke"))


@app.command("validate", rich_help_panel=RECIPE_PANEL)
def validate_command(
    recipe: RecipeArgument,
    overrides: SetOption = None,
    *,
    live: Annotated[bool, typer.Option("--live", help="Ask each teacher two short questions.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Check a recipe, report all problems at once, and print it in full with its defaults.

    This executes the files of the recipe's own checks (`path`): such a recipe is a program.
    """
    plan = load_command_plan(recipe, overrides)
    from agents.planning.seeds import RunSeeds

    seeds = RunSeeds(plan, "validate")
    seeds.check()
    resolved = plan.recipe.model_dump(mode="json", exclude_none=True)
    answers: dict[str, str] = {}
    if live:
        import asyncio

        from agents.studies.preview import probe_teachers

        answers = asyncio.run(probe_teachers(plan))
    from flows.release.release_gate import describe_release_gate

    collapse = plan.recipe.collapse
    gate = describe_release_gate(
        collapse.gate if collapse else True, has_reference=bool(collapse and collapse.reference)
    )
    if as_json:
        print_json({"recipe": resolved, "live": answers, "gate": gate})
        return
    print_text(json.dumps(resolved, indent=2, ensure_ascii=False))
    for name, answer in answers.items():
        print_text(f"teacher {name}: {answer}")
    for note in seeds.notes:
        print_text(note)
    print_text(
        f"valid: {format_count(len(seeds.rows), 'seed')} for at most {format_count(plan.recipe.samples, 'candidate')}"
    )
    print_text(f"release gate: {gate}")
    from flows.terminal.suggested_commands import build_recipe_arguments, format_next_line

    print_text(format_next_line("preview", *build_recipe_arguments(recipe, overrides)))


@app.command("preview", rich_help_panel=RECIPE_PANEL)
def preview_command(
    recipe: RecipeArgument,
    overrides: SetOption = None,
    *,
    number: Annotated[int, typer.Option("-n", min=1, max=MOST_PREVIEW_SAMPLES, help="Number of samples.")] = 3,
    as_json: JsonOption = False,
) -> None:
    """Make a few samples and print every agent's turn. Nothing is stored. Exit 1 if no sample could be judged."""
    import asyncio
    from collections import Counter

    from agents.studies.preview import preview_samples
    from core.sample import SampleStatus
    from core.stop_signal import RunStopped

    plan = load_command_plan(recipe, overrides)
    with SESSION.handle_interrupts():
        try:
            samples = asyncio.run(preview_samples(plan, number, SESSION.stop))
        except RunStopped:
            raise UserInterrupt from None
    from flows.data.curated_run import FailureCounter, format_drop_reason
    from flows.terminal.sample_history import format_sample_history
    from flows.terminal.suggested_commands import build_recipe_arguments, format_next_line

    if as_json:
        print_json([sample.model_dump(mode="json") for sample in samples])
    else:
        print_text("\n\n".join(map(format_sample_history, samples)))
    words = build_recipe_arguments(recipe, overrides)
    dropped = Counter(format_drop_reason(s.reason or "", s.detail) for s in samples if s.state is not SampleStatus.kept)
    if all(sample.state is SampleStatus.failed for sample in samples):
        faults = FailureCounter()
        for sample in samples:
            faults.add(sample)
        fault = faults.most_common()
        error = RunFailed(
            f"{recipe}: none of {format_count(len(samples), 'sample')} could be judged; most often {fault.text}"
        )
        checked = format_next_line("preview", *words, "-n", str(number))
        error.hint = checked if fault.check_broke else format_next_line("validate", *words, "--live")
        raise error
    if as_json:
        return
    if dropped.total() == len(samples):
        reasons = ", ".join(f"{reason} {count}" for reason, count in dropped.most_common())
        print_text(
            f"hint: none of {format_count(len(samples), 'sample')} is kept ({reasons}); a run may keep none: preview more"
        )
        print_text(format_next_line("preview", *words, "-n", str(min(MOST_PREVIEW_SAMPLES, 3 * number))))
    else:
        print_text(format_next_line("run", *words))


@app.command("graph", rich_help_panel=RECIPE_PANEL)
def graph_command(
    kind: Annotated[str, typer.Argument(metavar="TOPOLOGY")] = "centralized",
) -> None:
    """Print a topology's LangGraph graph as a Mermaid diagram."""
    from agents.topologies.topology_graphs import TOPOLOGY_BUILDERS, draw_topology

    if kind not in TOPOLOGY_BUILDERS:
        raise UsageError(f"{kind}: unknown topology; choose one of {', '.join(TOPOLOGY_BUILDERS)}")
    print_text(draw_topology(kind))


@app.command("study", rich_help_panel=RECIPE_PANEL)
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
    import asyncio

    from agents.studies.topology_study import build_study, parse_topologies
    from core.stop_signal import RunStopped
    from core.storage.atomic_files import write_text
    from flows.evaluate.topology_comparison import format_study_report, run_topology_study

    SESSION.quiet = quiet
    plan = build_study(load_command_plan(recipe, overrides), samples, budget, held_out or [])
    kinds = parse_topologies(topologies)
    with SESSION.handle_interrupts():
        try:
            report = asyncio.run(run_topology_study(plan, kinds, SESSION))
        except RunStopped:
            raise UserInterrupt from None
    text = report.model_dump_json(indent=2)
    if out:
        write_text(out, text + "\n")
    print_text(report.model_dump_json() if as_json else format_study_report(report))
