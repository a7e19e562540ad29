"""TRL: `SFTTrainer`, and `GKDTrainer` on the given texts (lmbda 0) with the forward KL divergence (beta 0)."""

from typing import Any

from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer
from trl.experimental.gkd import GKDConfig, GKDTrainer

from benchmarks.peers.train_work import HELD_OUT, Work, main


def train_and_time(work: Work) -> None:
    tokenizer = AutoTokenizer.from_pretrained(work.start)
    model = AutoModelForCausalLM.from_pretrained(work.start, dtype="float32")
    settings = {
        "output_dir": work.out,
        "per_device_train_batch_size": work.batch_size,
        "num_train_epochs": 1,
        "learning_rate": work.learning_rate,
        "lr_scheduler_type": "cosine",
        "max_length": work.max_tokens,
        "bf16": True,
        "use_cpu": True,
        "gradient_checkpointing": False,
        "report_to": "none",
        "save_strategy": "no",
        "eval_on_start": True,
        "per_device_eval_batch_size": HELD_OUT,
    }
    if work.objective == "sft":
        SFTTrainer(model, args=SFTConfig(**settings), **_build_datasets(work.rows), processing_class=tokenizer).train()
        return
    rows = [{"messages": [*row["prompt"], *row["completion"]]} for row in work.rows]
    teacher = AutoModelForCausalLM.from_pretrained(work.teacher, dtype="float32")
    GKDTrainer(
        model,
        teacher,
        args=GKDConfig(**settings, lmbda=0.0, beta=0.0, temperature=1.0),
        **_build_datasets(rows),
        processing_class=tokenizer,
    ).train()


def _build_datasets(rows: list[Any]) -> dict[str, Dataset]:
    return {"train_dataset": Dataset.from_list(rows), "eval_dataset": Dataset.from_list(rows[:HELD_OUT])}


main(train_and_time)
