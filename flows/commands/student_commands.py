"""Commands for a student: train, export, evaluate, route, serve, chat."""

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from core.errors import INTERRUPTED_EXIT_CODE, UsageError
from core.project_files import RUNS_FOLDER
from core.shared_options import (
    DEFAULT_DRAFT_TOKENS,
    DEFAULT_GGUF_TYPE,
    DEFAULT_PANEL,
    MOST_DRAFT_TOKENS,
    CacheType,
    GgufType,
)
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
    SetOption,
    StudentArgument,
    TypeOption,
    load_command_plan,
    print_json,
    print_text,
)
from flows.rows.column_names import name_columns
from flows.terminal.console import SESSION, UserInterrupt, is_reporting_process

app = typer.Typer()

CacheTypeOption = Annotated[
    CacheType | None,
    typer.Option("--cache-type", help="The student's KV cache; default: f16. q8_0 takes half the memory."),
]

DraftTokensOption = Annotated[
    int | None,
    typer.Option(
        "--draft-tokens",
        min=1,
        max=MOST_DRAFT_TOKENS,
        help=f"With a draft: tokens that it proposes at once; default: {DEFAULT_DRAFT_TOKENS}.",
    ),
]


@app.command("distill", rich_help_panel=STUDENT_PANEL)
def distill_command(
    source: InputArgument,
    out: OutOption,
    overrides: SetOption = None,
    *,
    columns: ColumnsOption = None,
    seed: Annotated[int, typer.Option(help="Random seed.")] = 7,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Train a student on a run or any dataset. `--set` takes the keys of the student table, as in `--set epochs=2`."""
    from flows.run.dataset_distillation import distill_dataset, parse_student_settings
    from flows.terminal.suggested_commands import format_next_line
    from flows.terminal.text_format import advise_on_truncation

    SESSION.quiet = quiet or not is_reporting_process()
    source = name_columns(source, columns)
    with SESSION.handle_interrupts():
        try:
            record = distill_dataset(
                source, out, parse_student_settings(overrides or []), seed, SESSION.print_unless_stopped
            )
        except (UserInterrupt, KeyboardInterrupt):
            if is_reporting_process():
                print(
                    "interrupted; the same command resumes from the last checkpoint, if there is one",
                    file=sys.stderr,
                )
            raise SystemExit(INTERRUPTED_EXIT_CODE) from None
    if not is_reporting_process():
        return
    if as_json:
        print_json({"out": str(out), "state": "done", "student": record.model_dump(mode="json")})
        return
    kl = "" if record.kl_after is None else f", KL from the teacher {record.kl_before:.2f} -> {record.kl_after:.2f}"
    kl += "".join(f", {note}" for note in record.start_notes)
    print_text(
        f"student {out}  held-out loss {record.loss_before:.2f} -> {record.loss_after:.2f} nats per assistant token{kl}"
    )
    if advice := advise_on_truncation(record.truncation, "max_tokens"):
        print_text(advice)
    print_text(
        format_next_line("evaluate", str(out), "--data", str(source), *(["--columns", columns] if columns else []))
    )


@app.command("export", rich_help_panel=STUDENT_PANEL)
def export_command(
    student: StudentArgument,
    *,
    form: Annotated[
        Literal["gguf"], typer.Option("--format", help="The file format; llama.cpp and similar runtimes load gguf.")
    ] = "gguf",
    kind: TypeOption = DEFAULT_GGUF_TYPE,
    as_json: JsonOption = False,
) -> None:
    """Export a student as one file for other runtimes, next to the student: weights, tokenizer and chat template."""
    from flows.data.student_files import export_student
    from flows.terminal.suggested_commands import format_next_line

    found = export_student(student, kind)
    if as_json:
        projector = {"projector": str(found.projector)} if found.projector else {}
        print_json(
            {"state": "done", "format": form, "type": kind, "path": str(found.path), "bytes": found.bytes, **projector}
        )
        return
    print_text(f"{found.path}  {found.bytes / 1e6:.1f} MB, {found.parameters / 1e6:.1f}M parameters")
    if found.projector:
        print_text(f"{found.projector}  its embedder of images, which belongs next to it")
    print_text(f'hint: as a teacher in a recipe: model = "local/{found.path}"')
    print_text(format_next_line("serve", str(found.path)))


@app.command(rich_help_panel=STUDENT_PANEL)
def evaluate(
    student: StudentArgument,
    *,
    recipe: RecipeOption = None,
    number: Annotated[
        int, typer.Option("-n", min=1, max=100_000, help="Number of held-out seeds, or of rows of --data.")
    ] = 100,
    kind: TypeOption = DEFAULT_GGUF_TYPE,
    tasks: Annotated[
        str, typer.Option(help="Tasks of lm-evaluation-harness too, by name or .yaml file, separated by commas.")
    ] = "",
    rows: Annotated[
        int | None, typer.Option("--task-rows", min=1, help="The first N rows of each task; default: all.")
    ] = None,
    panel: Annotated[
        int,
        typer.Option(
            min=0, max=10_000, help="Tasks that the recipe does not train, which show what was forgotten; 0: none."
        ),
    ] = DEFAULT_PANEL,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="INPUT", help="Your own rows in place of seeds; rows that the student was trained on are left out."
        ),
    ] = None,
    columns: ColumnsOption = None,
    check: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="With --data: `exact` (the row's answer, ignoring white space), a built-in check, or FILE.py:NAME (executed).",
        ),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="With --check: an option of the check; repeatable."),
    ] = None,
    runs_dir: RunsOption = RUNS_FOLDER,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Run the recipe's checks on a student, its teacher and its start; measure loss and size.

    With --data: student and start on held-out rows of a dataset, by loss and, with --check, by pass rate. A student that sees is
    asked with the picture, blind and with another picture.
    """
    import asyncio

    from core.stop_signal import RunStopped
    from flows.evaluate.evaluation_options import (
        EvaluationOptions,
        format_evaluation,
        prepare_evaluation,
        run_evaluation,
    )

    SESSION.quiet = quiet
    if columns and data is None:
        raise UsageError("--columns: names columns of --data; give both")
    data = data and name_columns(data, columns)
    options = EvaluationOptions(number, kind, recipe, tasks, rows, data, check, overrides or [], runs_dir, panel)
    options.validate()
    plan = load_command_plan(recipe, None) if recipe else None
    with SESSION.handle_interrupts():
        task = prepare_evaluation(student, plan, options)
        try:
            evaluation = asyncio.run(run_evaluation(task, SESSION))
        except RunStopped:
            raise UserInterrupt from None
    print_text(evaluation.model_dump_json() if as_json else format_evaluation(evaluation))


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
    from flows.data.student_files import ROUTING_FILE
    from plugins.serving.cascade.cascade_calibration import (
        calibrate_cascade,
        format_routing_result,
        prepare_cascade_calibration,
    )
    from plugins.serving.cascade.serving_setup import suggest_serve_command

    SESSION.quiet = quiet
    plan = load_command_plan(recipe, None) if recipe else None
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
        GgufType | None,
        typer.Option("--type", help="The number format of the weights; default: as calibrated."),
    ] = None,
    slots: Annotated[int, typer.Option(min=1, max=256, help="Concurrent conversations of the student.")] = 8,
    slot_tokens: Annotated[int, typer.Option(min=256, help="Tokens of prompt and answer per conversation.")] = 1536,
    cache_type: CacheTypeOption = None,
    draft: Annotated[
        str | None,
        typer.Option(
            metavar="DRAFT",
            help="What proposes tokens to STUDENT: a smaller student's folder, a .gguf file, `ngram`, or `mtp`, its own layer.",
        ),
    ] = None,
    draft_tokens: DraftTokensOption = None,
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

    from flows.http_server.host_names import parse_host_names
    from plugins.serving.cascade.chat_server import check_serving_host, run_chat_server
    from plugins.serving.cascade.serving_setup import ServingOptions, prepare_serving
    from plugins.serving.decision_students.decision_student import find_decision_student

    SESSION.quiet = quiet
    check_serving_host(host)
    names = parse_host_names(host_names or [])
    named = load_command_plan(recipe, None).recipe.generator_teacher if recipe else None
    options = ServingOptions(
        teacher, teacher_url, teacher_key_env, named, threshold, share, signal, draft, draft_tokens
    )
    if find_decision_student(student):
        from plugins.serving.decisions.decision_serving import serve_decision_student

        if kind or cache_type:
            raise UsageError("--type and --cache-type: a decision student has one form and no cache; leave them out")
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
                    setup, slots, slot_tokens, without_teacher, host, port, names, SESSION, print_address, cache_type
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
