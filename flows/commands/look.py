"""Commands to look before a run: recipes, their prompts and their graph."""

import json
import shlex
from pathlib import Path
from typing import Annotated

import typer

from core.errors import UsageError
from flows.commands.shared import LOOK, JsonOption, QuietOption, RecipeArgument, SetOption, plan_of, say, say_json
from flows.session import SESSION, Interrupted
from flows.words import plural

app = typer.Typer()


@app.command(rich_help_panel=LOOK)
def recipes(*, as_json: JsonOption = False) -> None:
    """List the built-in recipes, with what each makes and needs."""
    from flows.recipes import built_in, headline

    found = {name: headline(path) for name, path in built_in().items()}
    if as_json:
        say_json(found)
        return
    for name, text in found.items():
        say(f"{name}\n  " + text.replace("\n", "\n  "))
    say("next: stillhouse validate RECIPE")


@app.command(rich_help_panel=LOOK)
def validate(
    recipe: RecipeArgument,
    overrides: SetOption = None,
    *,
    live: Annotated[bool, typer.Option("--live", help="Ask each teacher one short question.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Check a recipe, all problems at once, and print it in full with its defaults."""
    plan = plan_of(recipe, overrides)
    from agents.seeds import Seeds

    seeds = Seeds(plan, "validate")
    seeds.check()
    resolved = plan.recipe.model_dump(mode="json", exclude_none=True)
    answers: dict[str, str] = {}
    if live:
        import asyncio

        from agents.preview import ask_teachers

        answers = asyncio.run(ask_teachers(plan))
    if as_json:
        say_json({"recipe": resolved, "live": answers})
        return
    say(json.dumps(resolved, indent=2, ensure_ascii=False))
    for name, answer in answers.items():
        say(f"teacher {name}: {answer}")
    say(f"valid: {plural(len(seeds.rows), 'seed')} for {plural(plan.recipe.samples, 'candidate')} at the most")
    say(f"next: stillhouse preview {shlex.quote(recipe)}")


@app.command(rich_help_panel=LOOK)
def preview(
    recipe: RecipeArgument,
    overrides: SetOption = None,
    *,
    number: Annotated[int, typer.Option("-n", min=1, max=50, help="How many samples.")] = 3,
    as_json: JsonOption = False,
) -> None:
    """Make a few samples and show every agent's turn; keeps nothing."""
    import asyncio

    from agents.brake import Stopped
    from agents.preview import preview_samples

    plan = plan_of(recipe, overrides)
    with SESSION.interruptible():
        try:
            samples = asyncio.run(preview_samples(plan, number, SESSION.stop))
        except Stopped:
            raise Interrupted from None
    if as_json:
        say_json([sample.model_dump(mode="json") for sample in samples])
        return
    from flows.card import sample_text

    say("\n\n".join(map(sample_text, samples)))
    say(f"next: stillhouse run {shlex.quote(recipe)}")


@app.command(rich_help_panel=LOOK)
def graph(
    kind: Annotated[str, typer.Argument(metavar="TOPOLOGY")] = "centralized",
) -> None:
    """Draw a topology as LangGraph sees it, in Mermaid."""
    from agents.topology import BUILDERS, draw

    if kind not in BUILDERS:
        raise UsageError(f"{kind}: no such topology; there are {', '.join(BUILDERS)}")
    say(draw(kind))


@app.command(rich_help_panel=LOOK)
def study(
    recipe: RecipeArgument,
    overrides: SetOption = None,
    *,
    topologies: Annotated[str, typer.Option(help="Which to compare, separated by commas.")] = (
        "single,independent,decentralized,centralized"
    ),
    samples: Annotated[int | None, typer.Option(min=1, help="Seeds for each; the recipe's number if left out.")] = None,
    budget: Annotated[
        int | None, typer.Option(metavar="TOKENS", min=1, help="For each topology; the recipe's if left out.")
    ] = None,
    held_out: Annotated[
        list[str] | None,
        typer.Option("--held-out", metavar="CHECK", help="A check that only the study uses; repeatable."),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="A JSON file for the result.")] = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Compare topologies on the same seeds: yield, errors that get through, and what they cost."""
    import asyncio

    from agents.brake import Stopped
    from agents.study import kinds_of, study_of
    from core.store import write_text
    from flows.study import study_report, study_text

    SESSION.quiet = quiet
    planned = study_of(plan_of(recipe, overrides), samples, budget, held_out or [])
    kinds = kinds_of(topologies)
    with SESSION.interruptible():
        try:
            report = asyncio.run(study_report(planned, kinds, SESSION))
        except Stopped:
            raise Interrupted from None
    text = report.model_dump_json(indent=2)
    if out:
        write_text(out, text + "\n")
    say(report.model_dump_json() if as_json else study_text(report))
