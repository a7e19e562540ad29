"""A finished student on disk: weights, tokenizer, card, settings and log, loadable by `transformers` alone.

Knows what a training was; does none.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from string import Template
from typing import NamedTuple

from transformers import GenerationConfig
from transformers.utils import logging

from core.errors import UsageError
from core.run import TRAINING_LOG, StudentRecord
from core.store import read_json, written_whole
from core.student_config import LoraConfig, StudentConfig
from students import adapters
from students.adapters import Adapter
from students.data import Encoded, Prepared, pad_id, stop_ids
from students.start import Start

SETTINGS = "student.json"
KEPT = "kept.json"
"""What the start was made of, if it was wider."""
CARD = Path(__file__).with_name("card.md")

APACHE = (
    "The weights are a derivative of [{base}](https://huggingface.co/{base}), Apache-2.0, "
    "changed as said above, and are under the same licence. Its quantised form (Q4_1) was the source."
)
OTHER = "The licence of {base} holds for these weights; see its own card."
NONE = "The weights are new; the tokenizer is that of SmolLM2 by Hugging Face, Apache-2.0. Use them under Apache-2.0."


class Training(NamedTuple):
    """All there is to tell about one training."""

    config: StudentConfig
    seed: int
    digest: str
    data: Prepared
    record: StudentRecord
    log: list[dict[str, float]]
    adapter: Adapter | None = None


def finished(out: Path, digest: str) -> StudentRecord | None:
    """The record of the student at `out`, if it is the one that this training would make.

    Raises:
        UsageError: if anything else is there, since it would be replaced.
    """
    settings = out / SETTINGS
    if settings.is_file() and (there := read_json(settings))["digest"] == digest:
        return StudentRecord.model_validate(there["record"])
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise UsageError(
            f"{out}: is there already and is not the student of this data; remove it or choose another folder"
        )
    return None


def write_student(out: Path, start: Start, training: Training) -> None:
    """Write the student to `out` in bfloat16, whole or not at all."""
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    tokenizer, model = start.tokenizer, start.model.bfloat16()
    model.generation_config = GenerationConfig(  # type: ignore[no-untyped-call]
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=stop_ids(tokenizer),
        pad_token_id=pad_id(tokenizer),
        max_new_tokens=training.config.max_tokens,
    )
    settings = {
        "digest": training.digest,
        "record": training.record.model_dump(mode="json"),
        "config": training.config.model_dump(mode="json"),
        "seed": training.seed,
        "unusable": training.data.unusable,
    }
    with written_whole(out) as partial:
        partial.mkdir()
        model.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
        if training.adapter:
            training.adapter.write(partial / adapters.FOLDER)
        (partial / "README.md").write_text(card(start, training), encoding="utf-8")
        if start.kept:
            (partial / KEPT).write_text(json.dumps(start.kept._asdict()), encoding="utf-8")
        (partial / SETTINGS).write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        (partial / TRAINING_LOG).write_text("".join(json.dumps(line) + "\n" for line in training.log), encoding="utf-8")


def card(start: Start, training: Training) -> str:
    """The model card, in Markdown with the front matter that the hub reads."""
    data, record, config = training.data, training.record, training.config
    return Template(CARD.read_text(encoding="utf-8")).substitute(
        {
            **config.model_dump(include={"epochs", "learning_rate", "schedule", "max_tokens"}),
            **record.model_dump(include={"train_samples", "held_out_samples", "steps"}),
            "per_step": config.batch_size * config.accumulate,
            "kept": "" if record.best_step is None else f" (the weights after step {record.best_step} are kept)",
            "front": _front_matter(start),
            "licence": licence(start),
            "parameters": f"{record.parameters / 1e6:.1f}",
            "made_from": start.made_from,
            "unusable": ", ".join(f"{count} ({why})" for why, count in data.unusable.items()) or "0",
            "train_tokens": learned_tokens(data.train),
            "held_out_tokens": learned_tokens(data.held_out),
            "seed": training.seed,
            "loss_before": f"{record.loss_before:.3f}",
            "loss_after": f"{record.loss_after:.3f}",
            "objective": objective(config),
            "rows": "".join(f"\n| {name} | {said} |" for name, said in _rows(record)),
            "trained": "all weights" if config.lora is None else _adapters(config.lora),
        }
    )


def objective(config: StudentConfig) -> str:
    """What was learned and of whom, in words."""
    weights = config.weights
    named = ", ".join(name if len(weights) == 1 else f"{weight:g} {name}" for name, weight in weights.items())
    asked = config.distillation
    return f"{named}, of {asked.teacher} ({asked.signals})" if config.asks_teacher else named


def _adapters(lora: LoraConfig) -> str:
    matrices = ", ".join(lora.targets) or "all matrices of the layers"
    rank = f"rank {lora.rank}, alpha {lora.alpha}"
    return f"low-rank adapters ({rank}) on {matrices}, merged here; apart in `{adapters.FOLDER}`"


def _rows(record: StudentRecord) -> Iterator[tuple[str, str]]:
    """What not every student has."""
    if record.kl_after is not None:
        yield "held-out KL divergence from the teacher", f"{record.kl_before:.3f} before, {record.kl_after:.3f} after"
    if found := record.sparsity:
        loss = f"held-out loss unpruned {found.loss_unpruned:.3f}, pruned {record.loss_before:.3f}"
        yield "weights of the layers that are zero", f"{found.zeros:.1%}; {loss}, recovered {record.loss_after:.3f}"


def _front_matter(start: Start) -> str:
    licence_line = "license: apache-2.0" if start.licence == "apache-2.0" else "license: other"
    lines = [licence_line, *([f"base_model: {start.base}"] if start.base else [])]
    return "\n".join(lines)


def licence(start: Start) -> str:
    """What may be done with the weights, as far as is known here."""
    if start.base is None:
        return NONE
    return (APACHE if start.licence == "apache-2.0" else OTHER).format(base=start.base)


def learned_tokens(encoded: Sequence[Encoded]) -> int:
    return sum(sum(one.learned) for one in encoded)
