"""TRL: `SFTTrainer`, and `GKDTrainer` on the given texts (lmbda 0) with the forward KL divergence (beta 0)."""

from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer
from trl.experimental.gkd import GKDConfig, GKDTrainer

from benchmarks.peers.train_work import Work, main


def train(work: Work) -> None:
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
    }
    if work.objective == "sft":
        SFTTrainer(
            model, args=SFTConfig(**settings), train_dataset=Dataset.from_list(work.rows), processing_class=tokenizer
        ).train()
        return
    rows = [{"messages": [*row["prompt"], *row["completion"]]} for row in work.rows]
    teacher = AutoModelForCausalLM.from_pretrained(work.teacher, dtype="float32")
    GKDTrainer(
        model,
        teacher,
        args=GKDConfig(**settings, lmbda=0.0, beta=0.0, temperature=1.0),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
    ).train()


main(train)
