"""Commands of students that answer: route, serve, chat, and decision students."""

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from core.errors import INTERRUPTED_EXIT_CODE, UsageError
from core.project_files import RUNS_FOLDER
from core.shared_options import DEFAULT_GGUF_TYPE
from flows.commands.command_options import (
    STUDENT_PANEL,
    ColumnsOption,
    InputArgument,
    JsonOption,
    OutOption,
    QuietOption,
    RecipeOption,
    RunsOption,
    ServedStudentArgument,
    TypeOption,
    print_json,
    print_text,
)
from flows.rows.column_names import name_columns
from flows.terminal.console import SESSION, UserInterrupt

app = typer.Typer()


@app.command("route", rich_help_panel=STUDENT_PANEL)
def route_command(
    student: ServedStudentArgument,
    *,
    recipe: RecipeOption = None,
    number: Annotated[int, typer.Option("-n", min=20, max=10_000, help="Number of held-out seeds.")] = 200,
    draws: Annotated[
        int, typer.Option(min=0, max=16, help="Further student answers per seed, for agreement; 0 turns agreement off.")
    ] = 3,
    teacher: Annotated[
        Path | None,
        typer.Option(
            metavar="STUDENT",
            help="A larger student (folder, run or GGUF file) to ask in the place of the recipe's teacher.",
        ),
    ] = None,
    kind: TypeOption = DEFAULT_GGUF_TYPE,
    runs_dir: RunsOption = RUNS_FOLDER,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Calibrate a student-first cascade: which answers to trust, and the gain and cost of asking the teacher for the others.

    After an interruption, the same command resumes: answers are stored with the runs.
    """
    import asyncio

    from core.runs.run_dir import RunDir
    from core.stop_signal import RunStopped
    from flows.data.run_storage import open_run_storage
    from plugins.serving.cascade.cascade_calibration import (
        calibrate_cascade,
        format_routing_result,
        prepare_cascade_calibration,
    )
    from plugins.serving.cascade.routing_result import ROUTING_FILE
    from plugins.serving.cascade.serving_setup import suggest_serve_command

    SESSION.quiet = quiet
    from flows.recipes.recipe_catalog import load_recipe_plan

    plan = load_recipe_plan(recipe) if recipe else None
    with SESSION.handle_interrupts():
        runs = open_run_storage(runs_dir).runs
        cache = RunDir(runs / "route").cache
        task = prepare_cascade_calibration(student, plan, number, kind, draws, cache, runs, teacher)
        try:
            found = asyncio.run(calibrate_cascade(task, SESSION))
        except (RunStopped, UserInterrupt):
            print("interrupted; answers are stored; the same command resumes", file=sys.stderr)
            raise SystemExit(INTERRUPTED_EXIT_CODE) from None
    if as_json:
        print_json({"state": "done", "path": str(task.folder / ROUTING_FILE), **found.model_dump(mode="json")})
        return
    print_text(format_routing_result(found))
    print_text(suggest_serve_command(str(student), None if teacher else recipe, found))


@app.command(rich_help_panel=STUDENT_PANEL)
def serve(
    student: ServedStudentArgument,
    *,
    teacher: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="`provider/model`, or `none`; default: the calibrated teacher."),
    ] = None,
    teacher_url: Annotated[
        str | None, typer.Option(metavar="URL", help="The teacher's address, up to and including /v1.")
    ] = None,
    teacher_key_env: Annotated[
        str | None, typer.Option(metavar="NAME", help="The environment variable with the teacher's key.")
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            "--recipe",
            metavar="RECIPE",
            help="The recipe whose teacher answers, with its address, key variable and engine.",
        ),
    ] = None,
    host: Annotated[
        str, typer.Option(help="The address to listen on; one that other machines can reach needs a key.")
    ] = "127.0.0.1",
    host_names: Annotated[
        list[str] | None,
        typer.Option(
            "--host-name",
            metavar="NAME",
            help="Another name of this server that requests may have in their header Host; repeatable.",
        ),
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes any free port.")] = 8000,
    threshold: Annotated[
        float | None, typer.Option(help="The teacher is asked where the signal is below this value.")
    ] = None,
    share: Annotated[
        float | None, typer.Option(min=0, max=1, help="The share of queries that goes to the teacher.")
    ] = None,
    signal: Annotated[
        str | None, typer.Option(metavar="NAME", help="The signal that decides; default: the best.")
    ] = None,
    without_teacher: Annotated[
        Literal["student", "error"],
        typer.Option(help="The reply when the teacher fails: the student's answer, or status 502."),
    ] = "student",
    kind: Annotated[
        str | None,
        typer.Option("--type", help="The number format of the weights; default: as calibrated."),
    ] = None,
    slots: Annotated[int, typer.Option(min=1, max=256, help="Concurrent conversations of the student.")] = 8,
    slot_tokens: Annotated[int, typer.Option(min=256, help="Tokens of prompt and answer per conversation.")] = 1536,
    draft: Annotated[
        str | None,
        typer.Option(
            metavar="DRAFT",
            help="What proposes tokens to STUDENT: a smaller student's folder, a .gguf file, `ngram`, or `mtp`, its own layer.",
        ),
    ] = None,
    audit: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Of a decision student: the share of its answers that the teacher gives too, to watch agreement; default: 0.02.",
        ),
    ] = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Answer OpenAI's chat protocol: the student first, the teacher where the calibrated signal does not trust its answer. A
    decision student also answers /v1/decide.
    """
    import asyncio

    from flows.application_server import parse_host_names
    from plugins.serving.cascade.chat_server import check_serving_host, run_chat_server
    from plugins.serving.cascade.serving_setup import ServingOptions, prepare_serving
    from plugins.serving.decision_students.decision_student import find_decision_student

    SESSION.quiet = quiet
    check_serving_host(host)
    names = parse_host_names(host_names or [])
    from flows.recipes.recipe_catalog import load_recipe_plan

    named = load_recipe_plan(recipe).recipe.generator_teacher if recipe else None
    options = ServingOptions(teacher, teacher_url, teacher_key_env, named, threshold, share, signal, draft)
    if find_decision_student(student):
        from plugins.serving.decisions.decision_server import serve_decision_student

        if kind:
            raise UsageError("--type: a decision student has one form; leave it out")
        share_audited = 0.02 if audit is None else audit
        serve_decision_student(student, options, share_audited, host, port, names, as_json=as_json)
        return
    if audit is not None:
        raise UsageError(f"--audit {audit:g}: is for a decision student, and {student} is none; leave it out")
    setup = prepare_serving(student, kind, options)
    SESSION.print_message(f"serve: {setup.description}")

    def print_address(url: str) -> None:
        models = {"teacher": setup.teacher and setup.teacher.model, "signal": setup.rule and setup.rule.signal}
        address = {"state": "serving", "url": url, "student": str(setup.weights), **models}
        print_json(address) if as_json else print_text(f"serving {student} at {url}")
        sys.stdout.flush()

    with SESSION.handle_interrupts():
        try:
            asyncio.run(
                run_chat_server(
                    setup, slots, slot_tokens, without_teacher, host, port, names, SESSION, print_address
                )
            )  # fmt: skip
        except KeyboardInterrupt:
            raise UserInterrupt from None


@app.command("chat", rich_help_panel=STUDENT_PANEL)
def chat_command(
    student: ServedStudentArgument,
    *,
    system: Annotated[str | None, typer.Option(metavar="TEXT", help="The system prompt.")] = None,
    temperature: Annotated[
        float | None,
        typer.Option(min=0, max=2, help="0 takes the most likely token; default: as in the student's recipe."),
    ] = None,
    max_tokens: Annotated[
        int | None, typer.Option(min=1, max=32_768, help="Longest reply; default: as in the student's recipe.")
    ] = None,
    thinking: Annotated[
        bool, typer.Option("--thinking", help="Show the thinking of a student that was trained on it.")
    ] = False,
    runs_dir: RunsOption = RUNS_FOLDER,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Talk to a student: at a prompt, or with a line per turn from a pipe. Ctrl-D ends the conversation."""
    from plugins.serving.cascade.terminal_chat import (
        check_chat_failures,
        choose_chat_settings,
        find_chat_student,
        open_conversation,
        run_chat,
    )

    SESSION.quiet = quiet
    found = find_chat_student(student, runs_dir)
    settings = choose_chat_settings(found, system, temperature, max_tokens, thinking=thinking)
    SESSION.print_message(f"chat: loading {found.weights or found.folder}; Ctrl-D ends")
    with open_conversation(found, settings) as conversation:
        failures = run_chat(conversation, quiet=as_json)
    if as_json:
        state = "partial" if failures else "done"
        student_name = str(found.folder or found.weights)
        print_json({"state": state, "student": student_name, "turns": conversation.turns, "failures": failures})
    check_chat_failures(failures)


@app.command("decisions", rich_help_panel=STUDENT_PANEL)
def decisions_command(
    source: InputArgument,
    out: OutOption,
    *,
    columns: ColumnsOption = None,
    questions: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="A TOML file with `[[questions]]`, or a recipe of the family `decisions`; default: of the run, or one question "
            "about the column `label`.",
        ),
    ] = None,
    test: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Rows that people labeled, to evaluate on too.")
    ] = None,
    agreement: Annotated[
        float,
        typer.Option(
            "--target", min=0.5, max=0.999, help="The least share of its answers that agree with the teacher."
        ),
    ] = 0.95,
    confidence: Annotated[
        float, typer.Option(min=0.5, max=0.999, help="The probability with which the target is met.")
    ] = 0.95,
    calibration: Annotated[
        Literal["held-out", "cross"],
        typer.Option(
            help="Test thresholds on texts of their own, with an exact bound, or on out-of-fold predictions of all texts: no "
            "proof, for few labels."
        ),
    ] = "held-out",
    encoder: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="`minilm` (packaged: meaning), `ngrams` (spelling, fastest), `minilm+ngrams` (both), a folder or OWNER/NAME "
            "of an encoder of Transformers, or a generative student's .gguf file.",
        ),
    ] = "minilm+ngrams",
    seed: Annotated[int, typer.Option(help="Random seed.")] = 7,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Make a student that answers typed questions about a text: fit it to a teacher's labels, and certify when to trust it."""
    from flows.terminal.suggested_commands import format_next_line
    from plugins.serving.decision_students.agreement_bound import AgreementTarget
    from plugins.serving.decisions.student_creation import DecisionSettings, create_decision_student
    from plugins.serving.decisions.student_report import format_decision_report, write_decision_page

    SESSION.quiet = quiet
    target = AgreementTarget(agreement=agreement, confidence=confidence)
    source, test = name_columns(source, columns), test and name_columns(test, columns)
    settings = DecisionSettings(source, out, questions, test, encoder, target, calibration, seed)
    with SESSION.handle_interrupts():
        report = create_decision_student(settings, SESSION.print_unless_stopped)
    page = write_decision_page(out, report)
    if as_json:
        print_json({"state": "done", "out": str(out), **report.model_dump(mode="json")})
        return
    print_text(format_decision_report(report))
    print_text(f"  {page}")
    print_text(format_next_line("serve", str(out)))
