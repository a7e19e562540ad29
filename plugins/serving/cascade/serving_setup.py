"""What `stillhouse serve` answers with: the student's weights, the teacher and the routing rule, from options and calibration.

Knows no socket and no request.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from core.addresses import parse_base_url_option
from core.config.teachers import MODELLESS_DRAFTS, OPENAI_URL, TeacherConfig
from core.errors import UsageError
from core.secrets import redact_text
from core.shared_options import DEFAULT_GGUF_TYPE, DRAFT_TOKENS, name_student_file
from core.storage.atomic_files import hash_file
from flows.data.stranger_files import starts_local_program
from flows.data.student_files import (
    export_student,
    find_student_folder,
    is_weights_file,
)
from flows.terminal.suggested_commands import format_command, format_next_line
from flows.terminal.text_format import format_number, format_percent
from plugins.serving.cascade.chat_router import LOCAL_PREFIXES, RoutingRule
from plugins.serving.cascade.routing_curves import choose_threshold
from plugins.serving.cascade.routing_result import ROUTING_FILE, RoutingResult, read_routing_result
from plugins.serving.cascade.routing_signals import CONFIDENCE_SIGNALS, check_question_router
from teachers.drafts import find_draft_problem
from teachers.local_weights import find_llama_problem
from teachers.providers import uses_installed_protocol

NO_TEACHER = "none"


class ServingOptions(NamedTuple):
    """The options of `serve` that choose the teacher, the routing rule and the student's draft."""

    teacher: str | None = None
    """`provider/model`, `none`, or None for the calibrated teacher."""
    teacher_url: str | None = None
    teacher_key_env: str | None = None
    """The environment variable with the teacher's key."""
    recipe: TeacherConfig | None = None
    """The teacher of the recipe in `--recipe`, with its address, its key's variable and its engine."""
    threshold: float | None = None
    share: float | None = None
    signal: str | None = None
    draft: str | None = None
    """What proposes tokens to the student: `ngram`, `mtp`, a GGUF file or a student's folder."""


class ServingSetup(NamedTuple):
    weights: Path
    teacher: TeacherConfig | None
    rule: RoutingRule | None
    defaults: dict[str, Any]
    """Sampling parameters for requests that have none."""
    description: str
    """The setup in a sentence."""
    draft: str | None = None
    """What proposes tokens to the student: a GGUF file, `ngram` or `mtp`."""


def prepare_serving(name: Path, kind: str | None, options: ServingOptions) -> ServingSetup:
    """Combine the student in `name`, the calibration next to it, and the options.

    Raises:
        UsageError: if there is no student, the calibration is of another student or teacher, or options exclude each other.
    """
    if options.threshold is not None and options.share is not None:
        raise UsageError("--threshold and --share: both say when the teacher is asked; leave one out")
    if problem := find_llama_problem():
        raise UsageError(f"{name}: {problem}")
    setup = _choose_cascade(name, kind, options)
    return add_draft(setup, options.draft) if options.draft else setup


def _choose_cascade(name: Path, kind: str | None, options: ServingOptions) -> ServingSetup:
    """The student alone, or with the teacher and the rule that options and calibration give."""
    weights, routing = _find_served_student(name, kind, alone=options.teacher == NO_TEACHER)
    defaults = routing.sampling.model_dump() if routing else {}
    if options.teacher == NO_TEACHER:
        return ServingSetup(weights, None, None, defaults, "the student alone, as requested")
    alone = (
        routing and routing.verdict in ("student", "nothing") and options.threshold is None and options.share is None
    )
    if routing and alone and options.teacher is None and options.recipe is None:
        return ServingSetup(weights, None, None, defaults, _describe_lone_student(routing))
    teacher = _choose_teacher(name, options, routing)
    if teacher is None:
        return ServingSetup(weights, None, None, defaults, f"the student alone: there is no {ROUTING_FILE} next to it")

    if routing:
        known = [curve.signal for curve in routing.curves]
    else:
        known = [key for key, signal in CONFIDENCE_SIGNALS.items() if not signal.draws]
    chosen = options.signal or (routing.best if routing else known[0])
    if chosen not in known:
        raise UsageError(f"--signal {chosen}: is not known here; known signals are {', '.join(known)}")
    if routing and alone:
        return ServingSetup(weights, None, None, defaults, _describe_lone_student(routing))

    if options.threshold is not None:
        threshold = options.threshold
    elif routing:
        curve = routing.find_curve(chosen)
        threshold = choose_threshold(curve.scores, curve.at_quality.aim if options.share is None else options.share)
    else:
        raise UsageError(
            f"--share: no calibration gives its threshold; calibrate first: {format_command('route', str(name))}"
        )
    rule = RoutingRule(chosen, threshold, routing, routing.draws if routing and routing.needs_draws(chosen) else 0)
    if routing and rule.by_question:
        check_question_router(routing.question)
    return ServingSetup(weights, teacher, rule, defaults, _describe_setup(options, routing, rule, teacher))


def add_draft(setup: ServingSetup, draft: str) -> ServingSetup:
    """The setup with a draft for the student: `ngram`, `mtp`, a GGUF file, or a student, which is exported.

    Raises:
        UsageError: if there is no such student or file, its tokens are not those of the student that is served, or a rule reads
            the probabilities of the student's tokens.
    """
    if setup.rule and not setup.rule.by_question:
        raise UsageError(
            "--draft: the cascade reads the probabilities of the student's tokens, which llama.cpp does not return with a draft; "
            "leave it out, or serve the student alone (--teacher none)"
        )
    if draft not in MODELLESS_DRAFTS:
        name = Path(draft)
        draft = str((name if is_weights_file(name) else export_student(name, DEFAULT_GGUF_TYPE).path).resolve())
    drafting = TeacherConfig(model=f"local/{setup.weights}", draft=draft, logprobs=False)
    if problem := find_draft_problem(drafting, setup.weights):
        raise UsageError(f"--draft: {problem}")
    proposes = f"{draft} proposes {DRAFT_TOKENS} tokens at once to the student"
    return setup._replace(draft=draft, description=f"{setup.description}; {proposes}")


def _describe_lone_student(routing: RoutingResult) -> str:
    return f"the student alone. {routing.answer} To ask the teacher anyway, give --share or --threshold"


def _find_served_student(name: Path, kind: str | None, *, alone: bool) -> tuple[Path, RoutingResult | None]:
    """The GGUF file, exported again unless it is the calibrated file; and the calibration, unless the student is `alone`."""
    file = is_weights_file(name)
    folder = name.parent if file else find_student_folder(name)
    calibrated = folder / ROUTING_FILE
    routing = read_routing_result(calibrated) if calibrated.is_file() and not alone else None
    if file:
        weights = name
    else:
        form = kind or (routing and routing.type) or DEFAULT_GGUF_TYPE
        weights = folder / name_student_file(form)
        if not (routing and weights.is_file() and hash_file(weights) == routing.weights):
            weights = export_student(folder, form).path
    if routing and hash_file(weights) != routing.weights:
        raise UsageError(
            f"{calibrated}: is of another student than {weights}: calibrate again "
            f"({format_command('route', str(name))}), or serve it without a teacher: --teacher none"
        )
    return weights, routing


def _choose_teacher(name: Path, options: ServingOptions, routing: RoutingResult | None) -> TeacherConfig | None:
    """The teacher, whose key is set; None if neither an option nor the calibration names any."""
    model = options.teacher or (options.recipe.model if options.recipe else None)
    if model is None and routing:
        model = routing.teacher.model
    if model is None:
        return None
    if routing and _are_same_file(model, routing.teacher.model):
        model = routing.teacher.model
    calibrated = routing is not None and model == routing.teacher.model
    if routing and calibrated and options.recipe is None:
        given = {
            "--teacher-url": options.teacher_url,
            "--teacher-key-env": options.teacher_key_env,
            "--teacher": options.teacher,
        }
        _check_recorded_teacher((name if name.is_dir() else name.parent) / ROUTING_FILE, routing.teacher, given)
    if routing and calibrated and options.threshold is None and routing.teacher_weights:
        file = Path(model.removeprefix("local/"))
        if not file.is_file() or hash_file(file) != routing.teacher_weights:
            raise UsageError(
                f"--teacher {model}: is not the file that was calibrated; calibrate again "
                f"({format_command('route', str(name))}), or give your own --threshold"
            )
    if options.threshold is None and not calibrated:
        why = f"the calibration is of {routing.teacher.model}" if routing else f"no {ROUTING_FILE} next to the student"
        raise UsageError(
            f"--teacher {model}: {why}, so there is no threshold for it: calibrate first "
            f"({format_command('route', str(name))}), or give your own --threshold"
        )
    return build_option_teacher(model, options)


def _are_same_file(one: str, other: str) -> bool:
    """Whether two names of teachers are paths of one file of weights."""
    paths = [Path(name.removeprefix("local/")).resolve() for name in (one, other) if name.startswith("local/")]
    return len(paths) == 2 and paths[0] == paths[1]


def build_option_teacher(model: str, options: ServingOptions) -> TeacherConfig:
    """The teacher `model` with the address and the key of the options.

    Raises:
        UsageError: if a key is not set.
    """
    base = options.recipe if options.recipe and options.recipe.model == model else TeacherConfig(model=model)
    url = parse_base_url_option("--teacher-url", options.teacher_url) if options.teacher_url else None
    changes = {"base_url": url, "api_key_env": options.teacher_key_env}
    teacher = base.model_copy(update={key: value for key, value in changes.items() if value is not None})

    if options.teacher_key_env and not os.environ.get(options.teacher_key_env):
        raise UsageError(
            f"--teacher-key-env {options.teacher_key_env}: the environment variable {options.teacher_key_env} is not set"
        )
    hosted = teacher.model.startswith("openai/") and teacher.base_url is None
    if hosted and not os.environ.get(teacher.api_key_env):
        raise UsageError(
            f"{teacher.model}: the environment variable {teacher.api_key_env} holds no key for api.openai.com; set it, "
            "give another address (--teacher-url), or serve without a teacher (--teacher none)"
        )
    return teacher


def _list_teacher_options(recorded: TeacherConfig) -> dict[str, tuple[str, str]]:
    """The options of `serve` that confirm a recorded teacher: the value of each, and its purpose.

    `--recipe` has no value: the file does not know the recipe's path.
    """
    default_key = TeacherConfig.model_fields["api_key_env"].default
    options = {}
    if recorded.base_url:
        options["--teacher-url"] = recorded.base_url, f"the address {recorded.base_url} (--teacher-url URL)"
    if recorded.api_key_env not in (default_key, ""):
        options["--teacher-key-env"] = (
            recorded.api_key_env, f"the key in {recorded.api_key_env} (--teacher-key-env NAME)"
        )  # fmt: skip
    if starts_local_program(recorded.model) or uses_installed_protocol(recorded.model):
        options["--teacher"] = recorded.model, f"to start {recorded.model} (--teacher {recorded.model})"
    if recorded.engine:
        options["--recipe"] = "", f"engine options {', '.join(recorded.engine)} (--recipe RECIPE)"
    return options


def _check_recorded_teacher(file: Path, recorded: TeacherConfig, given: Mapping[str, str | None]) -> None:
    """Check that the options `given` on the command line confirm the teacher in `file`.

    Raises:
        UsageError: naming what the file has and the command line lacks.
    """
    lacking = [purpose for option, (_, purpose) in _list_teacher_options(recorded).items() if given.get(option) is None]
    if lacking:
        raise UsageError(
            f"{file.parent}: its {file.name} names {'; '.join(lacking)}: only the name of a teacher is taken from a file; give "
            "these options, or --recipe RECIPE, whose teacher has them, or serve the student alone (--teacher none)"
        )


def suggest_serve_command(student: str, recipe: str | None, routing: RoutingResult) -> str:
    """The command that serves a calibrated student."""
    options = _list_teacher_options(routing.teacher)
    if recipe is not None:
        return format_next_line("serve", student, "--recipe", recipe)
    if routing.verdict in ("student", "nothing") or not options:
        return format_next_line("serve", student)
    if "--recipe" in options:
        return f"hint: {format_command('serve', student)} --recipe RECIPE"
    words = [word for option, (value, _) in options.items() for word in (option, value)]
    return format_next_line("serve", student, *words)


def _describe_setup(
    options: ServingOptions, routing: RoutingResult | None, rule: RoutingRule, teacher: TeacherConfig
) -> str:
    address = _describe_teacher_address(teacher)
    if rule.by_question:
        first = f"the student, or before it is asked {teacher.model} {address}"
    else:
        first = f"the student first, then {teacher.model} {address}"
    cascade = f"{first} where {rule.signal} is under {format_number(rule.threshold)}"
    if routing is None or options.threshold is not None:
        return f"{cascade}, an uncalibrated threshold"
    if options.share is not None:
        return f"{cascade}, to send it {format_percent(options.share)} of the queries"
    share = routing.find_curve(rule.signal).at_quality.share.value
    return f"{cascade}: {format_percent(share)} of the queries in the calibration"


def _describe_teacher_address(teacher: TeacherConfig) -> str:
    """The destination of the prompts."""
    if teacher.model.startswith(LOCAL_PREFIXES):
        return "(started here)"
    return f"({redact_text(teacher.base_url or OPENAI_URL)})"
