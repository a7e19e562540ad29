"""Commands to look at results: reports and samples."""

import shlex
from typing import Annotated

import typer

from core.run import RUNS
from flows.commands.shared import RESULTS, JsonOption, RunArgument, RunsOption, say, say_json

app = typer.Typer()


@app.command(rich_help_panel=RESULTS)
def report(run_name: RunArgument, *, runs_dir: RunsOption = RUNS, as_json: JsonOption = False) -> None:
    """Print the run card, and where the page is; writes the page again from what is on disk."""
    from core.run import summary
    from flows.card import run_card
    from flows.curated import dropped_samples, kept_samples
    from flows.places import place_of
    from flows.report import write_report

    found = place_of(runs_dir).run(run_name)
    manifest = found.read_manifest()
    if manifest.counts.candidates:
        write_report(found, manifest, found.read_recipe(), kept_samples(found), dropped_samples(found))
    say_json(summary(manifest)) if as_json else say(run_card(manifest, found))


@app.command(rich_help_panel=RESULTS)
def show(
    run_name: RunArgument,
    sample: Annotated[str | None, typer.Argument(help="An id, or the number at its end.")] = None,
    *,
    runs_dir: RunsOption = RUNS,
    as_json: JsonOption = False,
) -> None:
    """Print a sample with every turn, critique and verdict; without SAMPLE, list the run's samples."""
    from flows.card import sample_line, sample_text
    from flows.curated import find_sample, made_samples
    from flows.places import place_of

    found = place_of(runs_dir).run(run_name)
    if sample is None:
        if as_json:
            keys = {"id", "state", "reason", "detail"}
            say_json([s.model_dump(mode="json", include=keys) for s in made_samples(found)])
            return
        for made in made_samples(found):
            say(sample_line(made))
        say(f"next: stillhouse show {shlex.quote(run_name)} 0")
        return
    one = find_sample(found, sample)
    say(one.model_dump_json() if as_json else sample_text(one))
