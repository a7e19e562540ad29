"""Commands for any dataset: filters, indexes, collapse, gaps."""

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from core.errors import INTERRUPTED, GateNotMet, RunFailed, UsageError
from core.run import RUNS
from flows.commands.shared import (
    RUN,
    InputArgument,
    JsonOption,
    OutOption,
    QuietOption,
    ReferenceOption,
    RunsOption,
    SetOption,
    plan_of,
    say,
    say_json,
)
from flows.session import SESSION, Interrupted

app = typer.Typer()


@app.command("filter", rich_help_panel=RUN)
def filter_command(
    source: InputArgument,
    out: OutOption,
    overrides: SetOption = None,
    *,
    filters: Annotated[
        str | None, typer.Option(metavar="TYPES", help="Which filters, separated by commas, with their defaults.")
    ] = None,
    recipe: Annotated[str | None, typer.Option(metavar="RECIPE", help="Take the filters of a recipe.")] = None,
    index: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Drop what repeats an earlier release in this index, too.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes that judge rows; as many as processors if left out.")
    ] = None,
    cluster: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Judge and compare on the workers of a Dask scheduler.")
    ] = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Drop rows that filters find wanting, of any dataset; kept rows stay unchanged, but for what a filter is told to mask.

    Stopped, the same command goes on. With other thresholds in the same folder, no row is judged again.
    """
    from flows.curation import parse_filters, with_index
    from flows.filter_report import filter_card
    from flows.filtering import filter_dataset

    SESSION.quiet = quiet
    if recipe and (filters or overrides):
        raise UsageError("--recipe: brings its own filters; leave out --filters and --set")
    plan = plan_of(recipe, None) if recipe else None
    configs = plan.recipe.filters if plan else parse_filters(overrides or [], filters)
    configs = with_index(configs, index) if index else configs
    with SESSION.interruptible():
        try:
            report = filter_dataset(source, out, configs, plan.folder if plan else Path(), cluster or workers)
        except (Interrupted, KeyboardInterrupt):
            print("interrupted; what is judged is stored; the same command goes on with it", file=sys.stderr)
            raise SystemExit(INTERRUPTED) from None
    say_json(report.model_dump(mode="json")) if as_json else say(filter_card(report))
    if report.counts.failed:
        raise SystemExit(RunFailed.exit_code)


@app.command(rich_help_panel=RUN)
def index(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder of the index.")],
    *,
    add: Annotated[Path | None, typer.Option(metavar="INPUT", help="A dataset to take in.")] = None,
    name: Annotated[str | None, typer.Option(help="What its rows are called; INPUT if left out.")] = None,
    ngram: Annotated[int, typer.Option(min=1, max=20, help="Words in a shingle.")] = 5,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Keep an index of released rows, which `filter --index` checks new ones against; without --add, tell what it holds."""
    from flows.curation import add_to_index, index_record

    SESSION.quiet = quiet
    added = 0
    with SESSION.interruptible():
        if add:
            added = add_to_index(folder, add, name or str(add), ngram, SESSION.note)
    record = index_record(folder, ngram)
    if as_json:
        say_json({"index": str(folder), "added": added, **record})
        return
    say(f"index {folder}  {record['documents']:,} rows, {record['bytes']:,} bytes")
    for source, count in record["sources"].items():
        say(f"  {source}  {count:,}")
    say(f"next: stillhouse filter INPUT --out DIR --index {shlex.quote(str(folder))}")


@app.command(rich_help_panel=RUN)
def assess(
    source: InputArgument,
    reference: ReferenceOption,
    *,
    parent: Annotated[
        Path | None, typer.Option("--parent", help="The dataset before it: a run, a folder or a file.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="PAGE", help="An HTML file to write.")] = None,
    seed: Annotated[int, typer.Option(help="Of the draws from the reference.")] = 7,
    runs_dir: RunsOption = RUNS,
    as_json: JsonOption = False,
) -> None:
    """Is a dataset poorer than real text, or than its parent? Exit 3 when it is; too few documents are no pass, but exit 0."""
    from core.run import CollapseVerdict, RunDir
    from flows.curation import assess_dataset
    from flows.places import place_of

    cache = RunDir(place_of(runs_dir).runs / "assess").cache
    found = assess_dataset(source, reference, seed, parent=parent, cache=cache)
    if out:
        from flows.collapse_page import write_assessment

        write_assessment(out, source, found)
    if as_json:
        say_json({"state": "done", "verdict": found.verdict, "gates": found.gates, **found.model_dump(mode="json")})
    else:
        from flows.card import verdict_lines

        say("\n".join(verdict_lines(found)))
    if found.verdict is CollapseVerdict.collapse:
        raise SystemExit(GateNotMet.exit_code)


@app.command(rich_help_panel=RUN)
def gaps(
    source: InputArgument,
    reference: ReferenceOption,
    *,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="SEEDS", help="A JSONL file of seeds for what is lacking.")
    ] = None,
    number: Annotated[int, typer.Option("-n", min=1, max=1_000_000, help="How many seeds at the most.")] = 100,
    as_json: JsonOption = False,
) -> None:
    """What real text has and a dataset lacks: topics and words, and seeds for the next run that begin from them."""
    from flows.gaps import find_gaps, gaps_text

    found = find_gaps(source, reference, out, number)
    say(found.model_dump_json() if as_json else gaps_text(found))
