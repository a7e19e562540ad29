"""The command line: parse, call one flow or stage, print where the result is. Heavy imports happen inside commands."""

import gc
import json
import os
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from core.errors import INTERRUPTED, GateNotMet, RunFailed, StillhouseError, UsageError
from core.recipe import PROJECT
from core.run import RUNS
from flows.session import SESSION, Interrupted, speaks

if TYPE_CHECKING:
    from agents.plan import Plan

EPILOG = "Exit codes: 0 done, 1 the run failed, 2 wrong use or recipe, 3 a gate was not met, 130 interrupted."
LOOK, RUN, RESULTS, RELEASE = "Look before you run", "Run", "Look at results", "Release"
PREFECT = "Have a Prefect server do it"
PACKAGES = ("core", "prompts", "agents", "filters", "students", "flows")

app = typer.Typer(
    help="One recipe in; a verified synthetic dataset and a small student model out.",
    epilog=EPILOG,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

RecipeArgument = Annotated[str, typer.Argument(metavar="RECIPE", help="A built-in name or a path to a .toml file.")]
InputArgument = Annotated[
    Path,
    typer.Argument(
        metavar="INPUT", help="A run, a release, a folder, or a .jsonl (also .gz, .bz2, .xz, .zst) or .parquet file."
    ),
]
StudentArgument = Annotated[
    Path, typer.Argument(metavar="STUDENT", help="The folder of a student, or a run that has one.")
]
ServedArgument = Annotated[
    Path, typer.Argument(metavar="STUDENT", help="The folder of a student, a run that has one, or a .gguf file.")
]
HeldToOption = Annotated[
    str | None,
    typer.Option("--recipe", metavar="RECIPE", help="Whose seeds and checks; those of the student's run if left out."),
]
RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="The name of a run, or its directory.")]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a key of the recipe; repeatable.")
]
RunsOption = Annotated[
    str,
    typer.Option(
        "--runs-dir", metavar="DIR", envvar="STILLHOUSE_RUNS", show_default=True,
        help="Where runs are kept: a folder, or s3://BUCKET/FOLDER.",
    ),
]  # fmt: skip
ResumeOption = Annotated[bool, typer.Option("--resume", help="Go on with the run if it is there.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Tell no progress.")]
TypeOption = Annotated[
    Literal["f32", "f16", "q8_0", "q4_0"], typer.Option("--type", help="How the weights are stored.")
]
ReferenceOption = Annotated[Path, typer.Option("--reference", help="A JSONL file of real text, one `text` a line.")]
OutOption = Annotated[Path, typer.Option("--out", help="The folder to write.")]


def say(text: str) -> None:
    print(text)


def say_json(value: Any) -> None:
    say(json.dumps(value, ensure_ascii=False))


# Look before you run


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
    plan = _plan(recipe, overrides)
    from agents.seeds import Seeds

    Seeds(plan, "validate").check()
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
    say(f"next: stillhouse preview {recipe}")


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

    plan = _plan(recipe, overrides)
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
    say(f"next: stillhouse run {recipe}")


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
    planned = study_of(_plan(recipe, overrides), samples, budget, held_out or [])
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


# Run


@app.command(rich_help_panel=RUN)
def run(
    recipe: RecipeArgument,
    overrides: SetOption = None,
    *,
    runs_dir: RunsOption = RUNS,
    resume: ResumeOption = False,
    deployment: Annotated[
        str | None, typer.Option(metavar="NAME", help="Have a deployment do it on a Prefect server; does not wait.")
    ] = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Do all of it: produce, curate, assess, package, and distill if the recipe has a student."""
    if deployment:
        _hand_over(deployment, recipe, overrides, runs_dir, as_json=as_json)
        return
    _run(recipe, overrides, runs_dir, resume=resume, as_json=as_json, quiet=quiet, distill=True)


@app.command(rich_help_panel=RUN)
def generate(
    recipe: RecipeArgument,
    overrides: SetOption = None,
    *,
    runs_dir: RunsOption = RUNS,
    resume: ResumeOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Seeds to a dataset and its report; no student."""
    _run(recipe, overrides, runs_dir, resume=resume, as_json=as_json, quiet=quiet, distill=False)


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
    plan = _plan(recipe, None) if recipe else None
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
    say(f"next: stillhouse filter INPUT --out DIR --index {folder}")


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


@app.command(rich_help_panel=RUN)
def distill(
    source: InputArgument,
    out: OutOption,
    overrides: SetOption = None,
    *,
    seed: Annotated[int, typer.Option(help="Of all randomness.")] = 7,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Train a student on a run or any dataset. `--set` takes the keys of the student table, as in `--set epochs=2`."""
    from flows.curation import distill_dataset, parse_student

    SESSION.quiet = quiet or not speaks()
    with SESSION.interruptible():
        record = distill_dataset(source, out, parse_student(overrides or []), seed, SESSION.note)
    if not speaks():
        return
    if as_json:
        say_json({"out": str(out), "state": "done", "student": record.model_dump(mode="json")})
        return
    kl = "" if record.kl_after is None else f", KL from the teacher {record.kl_before:.2f} -> {record.kl_after:.2f}"
    say(
        f"student {out}  held-out loss {record.loss_before:.2f} -> {record.loss_after:.2f} nats per assistant token{kl}"
    )


@app.command(rich_help_panel=RUN)
def export(
    student: StudentArgument,
    *,
    form: Annotated[
        Literal["gguf"], typer.Option("--format", help="What to write; gguf is what llama.cpp and its kin load.")
    ] = "gguf",
    kind: TypeOption = "q8_0",
    as_json: JsonOption = False,
) -> None:
    """Write a student as a file that other runtimes load, beside it: weights, tokenizer and chat template in one."""
    from flows.student_files import export_student

    found = export_student(student, kind)
    if as_json:
        say_json({"state": "done", "format": form, "type": kind, "path": str(found.path), "bytes": found.bytes})
        return
    say(f"{found.path}  {found.bytes / 1e6:.1f} MB, {found.parameters / 1e6:.1f}M parameters")
    say(f'next: stillhouse evaluate {student}, or as a teacher: model = "local/{found.path}"')


@app.command(rich_help_panel=RUN)
def evaluate(
    student: StudentArgument,
    *,
    recipe: HeldToOption = None,
    number: Annotated[int, typer.Option("-n", min=1, max=100_000, help="How many held-out seeds.")] = 100,
    kind: TypeOption = "q8_0",
    tasks: Annotated[
        str, typer.Option(help="Tasks of lm-evaluation-harness too, by name or .yaml file, separated by commas.")
    ] = "",
    rows: Annotated[
        int | None, typer.Option("--task-rows", min=1, help="The first so many of each; absent, all.")
    ] = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Hold a student, its teacher and what it began as to the recipe's checks; measure loss, speed, size and memory."""
    import asyncio

    from agents.brake import Stopped
    from flows.evaluation import evaluate as evaluate_student
    from flows.evaluation import evaluation_card, task_of

    SESSION.quiet = quiet
    names = [name.strip() for name in tasks.split(",") if name.strip()]
    task = task_of(student, _plan(recipe, None) if recipe else None, number, kind, names, rows)
    with SESSION.interruptible():
        try:
            found = asyncio.run(evaluate_student(task, SESSION))
        except Stopped:
            raise Interrupted from None
    say(found.model_dump_json() if as_json else evaluation_card(found))


@app.command(rich_help_panel=RUN)
def route(
    student: ServedArgument,
    *,
    recipe: HeldToOption = None,
    number: Annotated[int, typer.Option("-n", min=20, max=10_000, help="How many held-out seeds.")] = 200,
    draws: Annotated[
        int, typer.Option(min=0, max=16, help="Further answers of the student to each, for agreement; 0 does without.")
    ] = 3,
    kind: TypeOption = "q8_0",
    runs_dir: RunsOption = RUNS,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Calibrate a student-first cascade: which answers to trust, and what asking the teacher for the others brings and costs.

    Stopped, the same command goes on: answers are kept beside the runs.
    """
    import asyncio

    from agents.brake import Stopped
    from core.run import RunDir
    from flows.places import place_of
    from flows.routing import calibrate, routing_card, task_of

    SESSION.quiet = quiet
    plan = _plan(recipe, None) if recipe else None
    with SESSION.interruptible():
        task = task_of(student, plan, number, kind, draws, RunDir(place_of(runs_dir).runs / "route").cache)
        try:
            found = asyncio.run(calibrate(task, SESSION))
        except (Stopped, Interrupted):
            print("interrupted; answers are kept; the same command goes on with them", file=sys.stderr)
            raise SystemExit(INTERRUPTED) from None
    if as_json:
        say_json({"state": "done", "path": str(task.folder / "routing.json"), **found.model_dump(mode="json")})
        return
    say(routing_card(found))
    say(f"next: stillhouse serve {student}")


@app.command(rich_help_panel=RUN)
def serve(
    student: ServedArgument,
    *,
    teacher: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="`provider/model`, or `none`; the one it was calibrated with if left out."),
    ] = None,
    teacher_url: Annotated[
        str | None, typer.Option(metavar="URL", help="Where the teacher answers, up to and with /v1.")
    ] = None,
    host: Annotated[str, typer.Option(help="The address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes any free one.")] = 8000,
    threshold: Annotated[float | None, typer.Option(help="The teacher is asked where the signal is under it.")] = None,
    share: Annotated[float | None, typer.Option(min=0, max=1, help="Of the queries, to go to the teacher.")] = None,
    signal: Annotated[
        str | None, typer.Option(metavar="NAME", help="Which signal decides; the best one if left out.")
    ] = None,
    without_teacher: Annotated[
        Literal["student", "error"],
        typer.Option(help="What a request gets when the teacher fails: the student's answer, or status 502."),
    ] = "student",
    kind: Annotated[
        Literal["f32", "f16", "q8_0", "q4_0"] | None,
        typer.Option("--type", help="How the weights are stored; as calibrated if left out."),
    ] = None,
    slots: Annotated[int, typer.Option(min=1, max=256, help="Conversations that the student has at once.")] = 8,
    slot_tokens: Annotated[int, typer.Option(min=256, help="Tokens of prompt and answer that one holds.")] = 1536,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Answer OpenAI's chat protocol: the student first, the teacher where the calibrated signal does not trust its answer."""
    import asyncio

    from flows.serving import Wishes, counts_text, router_of, setup_of
    from flows.serving import serve as serve_router

    SESSION.quiet = quiet
    setup = setup_of(student, kind, Wishes(teacher, teacher_url, threshold, share, signal))
    SESSION.tell(f"serve: {setup.told}")

    def started(url: str) -> None:
        told = {"state": "serving", "url": url, "student": str(setup.weights)}
        named = {"teacher": setup.teacher and setup.teacher.model, "signal": setup.rule and setup.rule.signal}
        say_json({**told, **named}) if as_json else say(f"serving {student} at {url}")
        sys.stdout.flush()

    async def answer() -> None:
        async with router_of(setup, slots, slot_tokens, without_teacher) as router:
            await serve_router(router, host, port, SESSION, started)
            SESSION.tell(counts_text(router))

    with SESSION.interruptible():
        try:
            asyncio.run(answer())
        except KeyboardInterrupt:
            raise Interrupted from None


# Have Prefect do it


@app.command(rich_help_panel=PREFECT)
def deploy(
    *,
    notify: Annotated[
        str | None,
        typer.Option(
            metavar="TYPE/NAME", envvar="STILLHOUSE_NOTIFY", help="A notification block, told of refused releases."
        ),
    ] = None,
    secrets: Annotated[
        list[str] | None,
        typer.Option(
            "--secret", metavar="VARIABLE=BLOCK", help="For runs: a variable from a Secret block; repeatable."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Hand all deployments of prefect.yaml to the Prefect server that PREFECT_API_URL names, with a work pool for them, and
    automations: a run whose process died goes on, a refused release is told.
    """
    from flows import deploying

    automations = deploying.deploy(notify, secrets or [])
    made = deploying.deployments()
    if as_json:
        told = {"work_pool": deploying.POOL, "deployments": made, "automations": automations}
        say_json({"state": "done", **told})
        return
    for name in (*made, *automations):
        say(name)
    if not notify:
        say("a refused release is told to nobody new; name a notification block: --notify TYPE/NAME")
    say(f"next: prefect worker start --pool {deploying.POOL}, and stillhouse run RECIPE --deployment once")


# Look at results


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
        say(f"next: stillhouse show {run_name} 0")
        return
    one = find_sample(found, sample)
    say(one.model_dump_json() if as_json else sample_text(one))


# Release


@app.command(rich_help_panel=RELEASE)
def release(run_name: RunArgument, *, runs_dir: RunsOption = RUNS, as_json: JsonOption = False) -> None:
    """Make an immutable release of a run, the next generation of its recipe; refused where the gate is not met."""
    from core.errors import GateNotMet
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


def _plan(recipe: str, overrides: list[str] | None) -> "Plan":
    from flows.recipes import load

    return load(recipe, overrides or [])


def _run(
    recipe: str, overrides: list[str] | None, runs_dir: str, *, resume: bool, as_json: bool, quiet: bool, distill: bool
) -> None:
    """One run through Prefect, its card, and the command to go on with if it stops early."""
    from flows.card import run_card

    SESSION.quiet = quiet
    plan = _plan(recipe, overrides)
    found = _open_for(plan, runs_dir, resume=resume)
    command = _command(recipe, overrides, runs_dir, "run" if distill else "generate")
    with SESSION.interruptible():
        try:
            summary = _through_prefect(recipe, overrides or [], runs_dir, distill=distill)
        except (Interrupted, KeyboardInterrupt):
            print(f"interrupted; what is finished is stored; go on with: {command} --resume", file=sys.stderr)
            raise SystemExit(INTERRUPTED) from None
    say_json(summary) if as_json else say(run_card(found.read_manifest(), found, f"{command} --resume"))
    if summary["shortfalls"]:
        raise SystemExit(RunFailed.exit_code)


def _open_for(plan: "Plan", runs_dir: str, *, resume: bool) -> Any:
    """Make the run's directory or find it, before anything slow starts, so that a mistake is told at once."""
    from core.release import open_next
    from flows.places import place_of
    from flows.recipes import sources

    place = place_of(runs_dir)
    place.fetch_for(plan)
    return open_next(place.runs, plan.recipe, sources(plan), resume=resume)


def _hand_over(deployment: str, recipe: str, overrides: list[str] | None, runs_dir: str, *, as_json: bool) -> None:
    """The recipe is checked here before the server hears of it; a path is told whole, since the worker stands elsewhere."""
    from flows.deploying import start, started_text

    _plan(recipe, overrides)
    place = Path(recipe)
    asked = {"recipe": str(place.resolve()) if place.is_file() else recipe, "overrides": overrides or []}
    where = runs_dir if "://" in runs_dir else str(Path(runs_dir).resolve())
    told = start(deployment, {**asked, **({} if runs_dir == RUNS else {"runs_dir": where})})
    say_json(told) if as_json else say(started_text(told))


def _through_prefect(recipe: str, overrides: list[str], runs_dir: str, *, distill: bool) -> dict[str, Any]:
    import asyncio

    from flows.prefect_settings import quiet_prefect

    with quiet_prefect(SESSION) as server:
        import httpx

        from flows.pipeline import run_flow

        gc.freeze()  # half a million imported objects need not be gone through again at every collection
        try:
            result: dict[str, Any] = asyncio.run(run_flow(recipe, overrides, runs_dir, resume=True, distill=distill))
        except httpx.TransportError as gone:
            raise RunFailed(
                f"Prefect's server at {server} does not answer ({gone}); what is made is stored: go on with --resume, or "
                "unset PREFECT_API_URL for a server of the command's own"
            ) from None
    return result


def _command(recipe: str, overrides: list[str] | None, runs_dir: str, verb: str) -> str:
    import shlex

    parts = ["stillhouse", verb, recipe, *(part for o in overrides or [] for part in ("--set", o))]
    if runs_dir != RUNS:
        parts += ["--runs-dir", runs_dir]
    return shlex.join(parts)


def check_packages() -> None:
    """Raises UsageError where another distribution's package (`agents` of openai-agents, say) stands before ours."""
    for name in PACKAGES:
        spec = find_spec(name)
        place = Path(spec.origin).parent if spec and spec.origin else None
        if place != PROJECT / name:
            raise UsageError(
                f"`{name}` is {place or 'not found'}, not {PROJECT / name}; run in the project's own environment (`make install`)"
            )


def main() -> None:
    """Run a command; a mistake of the user is one sentence on stderr and an exit code."""
    command: Callable[[], Any] = app
    try:
        check_packages()
        command()
    except Interrupted:
        print("interrupted", file=sys.stderr)
        raise SystemExit(INTERRUPTED) from None
    except StillhouseError as error:
        from core.run import redacted

        print(f"error: {redacted(str(error))}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(0) from None
