"""Commands for a student: train, export, evaluate, route, serve."""

import shlex
import sys
from typing import Annotated, Literal

import typer

from core.errors import INTERRUPTED
from core.run import RUNS
from flows.commands.shared import (
    RUN,
    HeldToOption,
    InputArgument,
    JsonOption,
    OutOption,
    QuietOption,
    RunsOption,
    ServedArgument,
    SetOption,
    StudentArgument,
    TypeOption,
    plan_of,
    say,
    say_json,
)
from flows.session import SESSION, Interrupted, speaks

app = typer.Typer()


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
        try:
            record = distill_dataset(source, out, parse_student(overrides or []), seed, SESSION.note)
        except (Interrupted, KeyboardInterrupt):
            if speaks():
                print(
                    "interrupted; the same command goes on from the last checkpoint, if one was reached",
                    file=sys.stderr,
                )
            raise SystemExit(INTERRUPTED) from None
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
    say(f'next: stillhouse evaluate {shlex.quote(str(student))}, or as a teacher: model = "local/{found.path}"')


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
    task = task_of(student, plan_of(recipe, None) if recipe else None, number, kind, names, rows)
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
    plan = plan_of(recipe, None) if recipe else None
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
    say(f"next: stillhouse serve {shlex.quote(str(student))}")


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
