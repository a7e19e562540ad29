"""A finished student on disk: weights, tokenizer, card, settings and log. `transformers` alone loads its text model.

Knows the results of a training, not its steps.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from itertools import takewhile
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, NamedTuple

from transformers import GenerationConfig
from transformers.utils import logging

from core.config.students import StudentConfig
from core.runs.student_records import TRAINING_LOG, EvaluationRecord, GeneralPanelRecord, StudentRecord
from core.sample import conversation_digest
from core.storage.atomic_files import write_atomically, write_text
from core.storage.image_files import UnreadableImage, decode_image_url
from students.chat_encoding import Conversation, EncodedConversation, find_pad_id, find_stop_ids
from students.predictions import find_image_reader, save_model
from students.start_model import ADAPTER_FOLDER, LoraAdapter, StartModel
from students.training_data import TrainingData

if TYPE_CHECKING:
    from students.training.steps import StepCode

SETTINGS_FILE = "student.json"
TRAINED_ROWS_FILE = "trained_rows.txt"
"""The digest of each training conversation of the student and its start, one per line."""
TRAINED_IMAGES_FILE = "trained_images.txt"
"""The digest of each image in these conversations, one per line."""
CARD_TEMPLATE = Path(__file__).with_name("card.md")
ASK_TEMPLATE = CARD_TEMPLATE.with_name("card_ask.md")
"""How the card says to ask a student that reads text alone."""

APACHE_NOTICE = (
    "The weights are a derivative of [{base}](https://huggingface.co/{base}), Apache-2.0, "
    "changed as described above, and are under the same licence. Its quantized form (Q4_1) was the source."
)
OTHER_LICENCE_NOTICE = "The licence of {base} applies to these weights; see its card."
SYNTHETIC_TEXT_NOTICE = "A language model wrote the training text. It is correct only as far as it was checked."
UNKNOWN_TEXT_NOTICE = (
    "The training text was given to Stillhouse as a file. Its author and its correctness are not recorded here."
)
TEXT_PIPELINE = "library_name: transformers\npipeline_tag: text-generation"
NEW_WEIGHTS_NOTICE = (
    "The weights are new; the tokenizer is that of SmolLM2 by Hugging Face, Apache-2.0. Use them under Apache-2.0."
)


class FinishedTraining(NamedTuple):
    """Everything to write about a training."""

    config: StudentConfig
    seed: int
    digest: str
    data: TrainingData
    record: StudentRecord
    log: list[dict[str, float]]
    trained: Sequence[Conversation]
    """The training conversations, in the order of `data.train`."""
    synthetic: bool
    """Whether a language model wrote the conversations, as in a run; False if unknown."""
    adapter: LoraAdapter | None = None
    steps: Sequence["StepCode"] = ()


def write_student(out: Path, start: StartModel, training: FinishedTraining) -> None:
    """Write the student to `out` in bfloat16, whole or not at all."""
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    tokenizer, model = start.tokenizer, start.model.bfloat16()
    model.generation_config = GenerationConfig(  # type: ignore[no-untyped-call]
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=find_stop_ids(tokenizer),
        pad_token_id=find_pad_id(tokenizer),
        max_new_tokens=training.config.max_tokens,
    )
    settings = {
        "digest": training.digest,
        "record": training.record.model_dump(mode="json"),
        "config": training.config.model_dump(mode="json"),
        "seed": training.seed,
        "unusable": training.data.unusable_counts,
    }
    with write_atomically(out) as partial:
        partial.mkdir()
        save_model(model, partial)
        tokenizer.save_pretrained(partial)
        if training.adapter:
            training.adapter.write_folder(partial / ADAPTER_FOLDER)
        (partial / "README.md").write_text(build_model_card(start, training), encoding="utf-8")
        for step in training.steps:
            step.write_files(partial)
        begun = Path(training.config.start)
        rows = {**read_trained_rows(begun), **dict.fromkeys(map(digest_trained_row, training.trained))}
        _write_digests(partial / TRAINED_ROWS_FILE, rows)
        if images := {**read_trained_images(begun), **dict.fromkeys(digest_images(training.trained))}:
            _write_digests(partial / TRAINED_IMAGES_FILE, images)
        (partial / SETTINGS_FILE).write_text(
            json.dumps(settings, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
        )
        (partial / TRAINING_LOG).write_text("".join(json.dumps(line) + "\n" for line in training.log), encoding="utf-8")


def read_trained_rows(student: Path) -> dict[str, None]:
    """The digests of a student's training conversations; empty if not recorded."""
    return _read_digests(student / TRAINED_ROWS_FILE)


def read_trained_images(student: Path) -> dict[str, None]:
    """The digests of the images in a student's training conversations; empty if not recorded, or if it reads text alone."""
    return _read_digests(student / TRAINED_IMAGES_FILE)


def digest_trained_row(conversation: Conversation) -> str:
    """The digest of a conversation, the same for each `data:` URL of the same image."""
    turns = (
        turn.model_copy(update={"images": tuple(map(_digest_image, turn.images))}) if turn.images else turn
        for turn in conversation
    )
    return conversation_digest([*turns])


def digest_images(conversations: Iterable[Conversation]) -> list[str]:
    """The digests of all images in the conversations."""
    return [_digest_image(url) for turns in conversations for turn in turns for url in turn.images]


def _digest_image(url: str) -> str:
    """The SHA-256 of the image's bytes; the address itself if the image is not in it."""
    try:
        return hashlib.sha256(decode_image_url(url)).hexdigest()
    except UnreadableImage:
        return url


def _write_digests(file: Path, digests: Iterable[str]) -> None:
    file.write_text("".join(f"{digest}\n" for digest in digests), encoding="utf-8")


def _read_digests(file: Path) -> dict[str, None]:
    return dict.fromkeys(file.read_text(encoding="utf-8").split()) if file.is_file() else {}


def list_result_rows(record: StudentRecord) -> list[str]:
    """The rows of the card's table that depend on the finished weights; that of the held-out loss first."""
    rows = [("held-out loss after", f"{record.loss_after:.3f}")]
    if record.kl_after is not None:
        change = f"{record.kl_before:.3f} before, {record.kl_after:.3f} after"
        rows.append(("held-out KL divergence from the teacher", change))
    if replay := record.replay:
        rows.append(("KL divergence on held-out conversations that its start wrote", replay.change))
    rows += [row for step in record.step_records for row in step.rows.items()]
    return [f"| {name} | {value} |" for name, value in rows]


def build_model_card(start: StartModel, training: FinishedTraining) -> str:
    """The model card, in Markdown with the front matter that the hub reads."""
    data, record, config = training.data, training.record, training.config
    reader = find_image_reader(start.model)
    front = ["license: apache-2.0" if start.licence == "apache-2.0" else "license: other"]
    if start.base:
        front.append(f"base_model: {start.base}")
    trained = "all weights"
    if lora := config.lora:
        matrices = ", ".join(lora.targets) or "all matrices of the layers"
        rank = f"rank {lora.rank}, alpha {lora.alpha}"
        trained = f"low-rank adapters ({rank}) on {matrices}, merged here; also unmerged in `{ADAPTER_FOLDER}`"

    rows = []  # of the table, in addition to the results
    if truncation := record.truncation:
        share = f"{truncation.truncated:,} of {truncation.conversations:,}" if truncation.truncated else "0"
        rows.append(f"| conversations truncated | {share}; the longest has {truncation.longest:,} tokens |")
    if record.average is not None:
        rows.append(f"| weights | start + {record.average:g} * (trained - start) |")
    if replay := record.replay:
        sizes = f"{replay.learned}, {replay.held_out}"
        rows.append(f"| conversations that its start wrote, learned as replay and held out | {sizes} |")

    return Template(CARD_TEMPLATE.read_text(encoding="utf-8")).substitute(
        {
            **config.model_dump(include={"epochs", "learning_rate", "schedule", "max_tokens"}),
            **record.model_dump(include={"train_samples", "held_out_samples", "steps"}),
            "per_step": config.batch_size * config.accumulate,
            "kept": "" if record.best_step is None else f" (the weights after step {record.best_step} are kept)",
            "front": "\n".join(front),
            "pipeline": "pipeline_tag: image-text-to-text" if reader else TEXT_PIPELINE,
            "ask": reader.describe_use() if reader else _format_ask(training),
            "tags": ", ".join(["stillhouse", *(["synthetic"] if training.synthetic else [])]),
            "wrote": SYNTHETIC_TEXT_NOTICE if training.synthetic else UNKNOWN_TEXT_NOTICE,
            "licence": _describe_licence(start),
            "parameters": f"{record.parameters / 1e6:.1f}",
            "made_from": start.made_from,
            "unusable": ", ".join(f"{count} ({why})" for why, count in data.unusable_counts.items()) or "0",
            "train_tokens": _count_learned_tokens(data.train),
            "held_out_tokens": _count_learned_tokens(data.held_out),
            "seed": training.seed,
            "loss_before": f"{record.loss_before:.3f}",
            "objective": _describe_objective(config),
            "rows": "\n".join([*list_result_rows(record), *rows]),
            "trained": trained,
        }
    )


def _format_ask(training: FinishedTraining) -> str:
    """How to ask the student, in Markdown."""
    messages = _choose_example(training.trained)
    return Template(ASK_TEMPLATE.read_text(encoding="utf-8")).substitute(messages=messages).rstrip()


EVALUATION_HEADING, LIMITS_HEADING = "## Evaluation\n", "## Limits\n"


def write_card_evaluation(student: Path, evaluation: EvaluationRecord) -> None:
    """Write the evaluation into the student's model card, above its limits, in place of an earlier one."""
    card = student / "README.md"
    head, _, rest = card.read_text(encoding="utf-8").partition(LIMITS_HEADING)
    head = head.partition(EVALUATION_HEADING)[0]
    write_text(card, f"{head}{_format_evaluation(evaluation)}\n{LIMITS_HEADING}{rest}")


def _format_evaluation(evaluation: EvaluationRecord) -> str:
    differences = {comparison.role: comparison.difference for comparison in evaluation.comparisons}
    lines = [
        EVALUATION_HEADING.rstrip(),
        f"{evaluation.requests} requests that no training conversation used, the same for each model, each asked once. An answer "
        "passes if",
        f"it passes every check of the recipe. Student and start are stored as {evaluation.type}.",
        "",
        "| | passed | 95 % | student minus it, in points |",
        "|---|---|---|---|",
    ]
    for model in evaluation.models:
        rate, found = model.pass_rate, differences.get(model.role)
        points = f"{100 * found.value:+.0f} ({100 * found.low:+.0f} to {100 * found.high:+.0f})" if found else ""
        lines.append(
            f"| {model.role} | {model.passed} of {evaluation.requests} | {rate.low:.0%} to {rate.high:.0%} | {points} |"
        )
    intervals = (
        "Wilson's score interval for shares, Newcombe's (1998, method 10) for differences between paired shares."
    )
    panel = _format_panel(evaluation.panel) if evaluation.panel else []
    return "\n".join([*lines, "", intervals, *panel, ""])


def _format_panel(panel: GeneralPanelRecord) -> list[str]:
    """What the student forgot, as a table of Markdown."""
    lines = [
        "",
        f"{panel.tasks} tasks that the recipe does not train, judged by programs, and the median length of answers to "
        f"{panel.questions} open questions",
        "(cut off at a limit):",
        "",
        "| | passed | 95 % | words |",
        "|---|---|---|---|",
    ]
    for model in panel.models:
        rate, shipped = model.pass_rate, ", shipped answers" * model.shipped
        lines.append(
            f"| {model.role}{shipped} | {model.passed} of {panel.tasks} | {rate.low:.0%} to {rate.high:.0%} | {model.words:.0f} |"
        )
    said = []
    if panel.comparison:
        found = panel.comparison.difference
        said.append(
            f"Student minus start: {100 * found.value:+.0f} points ({100 * found.low:+.0f} to {100 * found.high:+.0f})."
        )
    if panel.divergence:
        found = panel.divergence
        said.append(
            f"KL divergence from the start: {found.value:.2f} ({found.low:.2f} to {found.high:.2f}) nats per token."
        )
    return [*lines, "", *said]


def _describe_objective(config: StudentConfig) -> str:
    """The objectives with their weights, and the teacher, in words."""
    weights = config.objective_weights
    names = ", ".join(name if len(weights) == 1 else f"{weight:g} {name}" for name, weight in weights.items())
    distillation = config.distillation
    return f"{names}, of {distillation.teacher} ({distillation.signals})" if config.asks_teacher else names


def _choose_example(trained: Sequence[Conversation]) -> str:
    """The card's example: the shortest prompt of the data, as a Python literal that cannot close a code fence."""
    prompts = [list(takewhile(lambda message: message.role != "assistant", conversation)) for conversation in trained]
    shortest = min(prompts, key=lambda prompt: sum(len(message.content) for message in prompt))
    turns = [{"role": message.role, "content": message.content} for message in shortest]
    return json.dumps(turns, ensure_ascii=False).replace("`", "\\u0060").replace("\x7f", "\\u007f")


def _describe_licence(start: StartModel) -> str:
    """The licence of the weights, as far as known."""
    if start.base is None:
        return NEW_WEIGHTS_NOTICE
    return (APACHE_NOTICE if start.licence == "apache-2.0" else OTHER_LICENCE_NOTICE).format(base=start.base)


def _count_learned_tokens(encoded: Sequence[EncodedConversation]) -> int:
    return sum(sum(conversation.learned) for conversation in encoded)
