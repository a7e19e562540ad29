"""A run's student after reinforcement learning: its requests, its weights, what it cost on the general panel, and its folder."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from typing import Any

from agents.planning.run_plan import RunPlan
from agents.studies.general_panel import ask_general_panel, build_general_panel
from agents.studies.held_out_evaluation import join_requests, require_held_out_seeds
from core.config.recipe import MAX_GENERAL_LOSS
from core.config.students import StudentConfig
from core.runs.run_dir import RunDir
from core.runs.student_records import VALIDATION_REQUESTS, StepRecord, StudentRecord
from core.sample import Message, json_digest
from core.shared_options import DEFAULT_GGUF_TYPE
from core.stop_signal import RunStopped
from core.storage.atomic_files import hash_file, read_json, write_atomically, write_text
from flows.data.student_files import configure_student_as_teacher
from flows.evaluate.student_evaluation import collect_used_requests
from flows.terminal.console import SESSION
from plugins.reinforcement.config import GrpoStep
from plugins.reinforcement.grading import build_reward
from plugins.reinforcement.policy_training import GROUP, PolicySettings, PolicyTraining, Reward
from students.chat_encoding import Conversation, EncodedConversation, encode_conversation, find_pad_id, render_chat
from students.comparison import write_untrained_student
from students.gguf_export import export_gguf, read_student
from students.predictions import compute_held_out_loss, round_weights
from students.replay import read_held_out_replay
from students.student_folder import SETTINGS_FILE, list_result_rows
from students.torch_teacher import load_original
from students.training.checkpoint import remove_checkpoint
from students.training.steps import StartReference

LOG_FILE = "grpo.jsonl"
"""A line for each step, in the student's folder."""


async def reinforce_run_student(
    run: RunDir, plan: RunPlan, step: GrpoStep, held_out: Sequence[Conversation]
) -> StudentRecord:
    """Make the run's student of the trained one. A killed run resumes from the last checkpoint, to the same weights.

    Where the reinforced weights lose more than `MAX_GENERAL_LOSS` on the panel, the student keeps the trained ones.

    Raises:
        RunStopped: on the stop signal. RunFailed: if the loss is not finite.
        UsageError: if there are too few requests, or the student cannot be exported.
    """
    config = plan.recipe.student
    assert config
    assert config.evaluation
    trained = run.path / "wip" / "student"
    number = config.evaluation.requests
    used = collect_used_requests(run, plan, SESSION.print_unless_stopped)
    seeds = require_held_out_seeds(plan, number + step.requests, used)[number:]  # after those of the evaluation
    questions = [plan.family.questions(seed) or () for seed in seeds]
    settings = PolicySettings(
        step.learning_rate, plan.recipe.agents.generator.max_tokens, config.precision == "bf16", plan.recipe.seed
    )
    weights = {file.name: hash_file(file) for file in sorted(trained.glob("*.safetensors"))}
    checks = [[bound.check.name, bound.config.model_dump(mode="json")] for bound in plan.free_checks]
    digest = json_digest([weights, [seed.digest for seed in seeds], checks, settings._asdict()])
    folder = run.path / "wip" / f"reinforced-{digest[:16]}"
    log = await _train(trained, folder, questions, build_reward(plan, seeds), settings, digest)
    panel = build_general_panel(plan, config.evaluation.panel, part="validation")
    passed = []
    for name, student in (("before", trained), ("after", folder)):
        SESSION.print_unless_stopped(f"grpo: the general panel, {name} reinforcement")
        model = configure_student_as_teacher(
            export_gguf(student, DEFAULT_GGUF_TYPE).path, plan.recipe.generator_teacher
        )
        asked = await ask_general_panel(panel, model, SESSION.stop, lambda _done: None, cache=None)
        passed.append(asked.passed)
    described = describe_reinforcement(log, passed, len(panel.judged), step.requests)
    SESSION.print_unless_stopped(f"grpo: {described.rows['reinforcement']}")
    requests = [join_requests(messages) for messages in questions]
    record = _write_student(trained, folder, described, run.student, held_out, requests, log)
    remove_checkpoint(folder)
    for path in (trained, *folder.parent.glob("reinforced-*")):
        shutil.rmtree(path, ignore_errors=True)
    return record


def describe_reinforcement(
    log: Sequence[dict[str, float]], panel: Sequence[int], tasks: int, requests: int
) -> StepRecord:
    """What was learned, and whether its weights are kept. `panel` has the `tasks` that passed before and after."""
    quarter = -(-len(log) // 4)
    first, last = (fmean(line["reward"] for line in part) for part in (log[:quarter], log[-quarter:]))
    before, after = (passed / max(1, tasks) for passed in panel)
    kept = round(before - after, 9) <= MAX_GENERAL_LOSS
    sentence = (
        f"{requests} requests, {GROUP} answers each; mean reward {first:.2f} in the first quarter of {len(log)} steps and "
        f"{last:.2f} in the last; general panel {before:.0%} before and {after:.0%} after"
    )
    if not kept:
        sentence += f", which is more than {MAX_GENERAL_LOSS:.0%} less, so the weights before are kept"
    values = {"kept": float(kept), "first": first, "last": last, "panel_before": before, "panel_after": after}
    note = (
        f"mean reward {first:.2f} -> {last:.2f} by grpo" if kept else "grpo lost too much, so its weights are not kept"
    )
    return StepRecord(type="grpo", rows={"reinforcement": sentence}, note=note, values=values)


async def _train(
    trained: Path, folder: Path, questions: Sequence[Sequence[Message]], reward: Reward, settings: PolicySettings, digest: str
) -> list[dict[str, float]]:  # fmt: skip
    """Write the weights to `folder`, whose name has the digest of all that they depend on, unless they are there: the log."""
    if (folder / LOG_FILE).is_file():
        return [json.loads(line) for line in (folder / LOG_FILE).read_text(encoding="utf-8").splitlines()]
    model, tokenizer = read_student(trained)
    texts = [render_chat(messages, tokenizer, answer_next=True) for messages in questions]
    prompts = [tuple(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts]
    training = PolicyTraining(model, tokenizer, prompts, reward, settings)

    def check_stop() -> None:
        if SESSION.stop.is_set():
            raise RunStopped

    log = await training.run(folder, digest, SESSION.print_unless_stopped, check_stop)
    round_weights(model)
    with write_atomically(folder) as partial:
        shutil.copytree(trained, partial, ignore=shutil.ignore_patterns("*.gguf", "*.safetensors*"))
        model.bfloat16().save_pretrained(partial)
        (partial / LOG_FILE).write_text("".join(f"{json.dumps(line)}\n" for line in log), encoding="utf-8")
    return log


def _write_student(
    trained: Path, reinforced: Path, described: StepRecord, out: Path, held_out: Sequence[Conversation],
    requests: Sequence[str], log: Sequence[dict[str, float]],
) -> StudentRecord:  # fmt: skip
    """The student with its record, its card and `requests`, which no evaluation may ask, whole or not at all."""
    settings = read_json(trained / SETTINGS_FILE)
    config, record = StudentConfig.model_validate(settings["config"]), StudentRecord.model_validate(settings["record"])
    changes: dict[str, Any] = {"step_records": [*record.step_records, described]}
    source = reinforced if described.values["kept"] else trained
    if source == reinforced:
        model, tokenizer = read_student(source)
        pad = find_pad_id(tokenizer)
        encoded = [encode_conversation(conversation, tokenizer, config.max_tokens) for conversation in held_out]
        if used := [one for one in encoded if isinstance(one, EncodedConversation)]:
            changes["loss_after"] = compute_held_out_loss(model, used, pad)
        if record.replay and config.replay:
            path = Path(config.replay.cache or trained.with_name(f"{trained.name}.replay.jsonl"))
            with TemporaryDirectory(prefix="start-") as start:
                write_untrained_student(trained, Path(start))
                original = load_original(read_student(Path(start))[0], tokenizer, config)
            reference, texts = StartReference(original, None), read_held_out_replay(path, record.replay.held_out)
            divergence = reference.measure_divergence(model, texts, pad)
            changes["replay"] = record.replay.model_copy(update={"divergence": divergence})
    changed = record.model_copy(update=changes)
    settings["record"] = changed.model_dump(mode="json")
    with write_atomically(out) as partial:
        shutil.copytree(source, partial, ignore=shutil.ignore_patterns("*.gguf"))
        text = json.dumps(settings, indent=2, ensure_ascii=False) + "\n"
        (partial / SETTINGS_FILE).write_text(text, encoding="utf-8")
        (partial / LOG_FILE).write_text("".join(f"{json.dumps(line)}\n" for line in log), encoding="utf-8")
        (partial / VALIDATION_REQUESTS).write_text(json.dumps(list(requests), ensure_ascii=False), encoding="utf-8")
        _write_card(partial / "README.md", record, changed)
    return changed


def _write_card(card: Path, trained: StudentRecord, reinforced: StudentRecord) -> None:
    """Write the measurements of the reinforced weights into the card of the trained ones."""
    text = card.read_text(encoding="utf-8")
    before, after = list_result_rows(trained), list_result_rows(reinforced)
    if trained.kl_after is not None:
        after[1] = after[1].removesuffix(" |") + " the training, before reinforcement |"
    after[len(before) - 1 :] = ["\n".join(after[len(before) - 1 :])]
    for old, new in zip(before, after, strict=True):
        text = text.replace(old, new)
    write_text(card, text)
