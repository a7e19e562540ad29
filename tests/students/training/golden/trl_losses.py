"""Losses as TRL computes them, to compare ours with: writes `trl_losses.json` next to this file.

Run where TRL is installed (1.16.0 wrote the numbers that are here), from the root of the project:
PYTHONPATH=. python tests/students/training/golden/trl_losses.py
"""

import json
from pathlib import Path
from types import SimpleNamespace

import torch
import trl
from datasets import Dataset
from transformers import LlamaForCausalLM
from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer
from trl.experimental.gkd import GKDTrainer
from trl.experimental.server_distillation.server_distillation_trainer import ServerDistillationTrainer

from tests.students.conftest import byte_level_bpe, tiny_llama

TOKENS, WORDS, IGNORED = 6, 9, -100
BETAS = (0.0, 0.1, 0.5, 0.9, 1.0)
TEMPERATURES = (1.0, 2.5)
KEPT = 3


def divergences() -> dict[str, object]:
    """GKD's generalised JSD, and the server trainer's forward KL over the top 3 with a tail, of random logits."""
    torch.manual_seed(0)
    student, teacher = (3 * torch.randn(1, TOKENS, WORDS, dtype=torch.float64) for _ in range(2))
    labels = torch.tensor([[IGNORED, 4, 0, 8, IGNORED, 2]])
    losses = [
        {"beta": beta, "temperature": temperature, "loss": GKDTrainer.generalized_jsd_loss(
            student, teacher, labels, beta=beta, temperature=temperature).item()}
        for beta in BETAS for temperature in TEMPERATURES
    ]  # fmt: skip
    log_probs, ids = teacher.log_softmax(-1).topk(KEPT)
    server = SimpleNamespace(
        loss_add_tail=True, _reduce_divergence_loss=ServerDistillationTrainer._reduce_divergence_loss
    )
    top_k = ServerDistillationTrainer._compute_server_forward_kl_loss(
        server, {"topk_logprobs": log_probs, "topk_token_ids": ids}, student.log_softmax(-1), labels
    )
    return {
        "student": student[0].tolist(),
        "teacher": teacher[0].tolist(),
        "learned": (labels[0] != IGNORED).tolist(),
        "jsd": losses,
        "top_k": {"kept": KEPT, "loss": top_k.item()},
    }


def preference() -> list[dict[str, float]]:
    """DPOTrainer's loss of one pair each, between two random models, with what it says of their log-probabilities."""
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=byte_level_bpe(["I like bees and rivers."]), eos_token="<|im_end|>", pad_token="<|pad|>"
    )
    found = []
    for beta in (0.1, 0.7):
        models = two_models(len(tokenizer))
        pair = {"prompt": "I like", "chosen": " bees and rivers.", "rejected": " rivers"}
        args = DPOConfig(
            "unused",
            beta=beta,
            use_cpu=True,
            bf16=False,
            report_to="none",
            per_device_eval_batch_size=1,
            disable_tqdm=True,
        )
        trainer = DPOTrainer(
            models[0], models[1], args, train_dataset=Dataset.from_list([pair]), eval_dataset=Dataset.from_list([pair]),
            processing_class=tokenizer,
        )  # fmt: skip
        metrics = trainer.evaluate()
        found.append(
            {
                "beta": beta,
                "loss": metrics["eval_loss"],
                **{f"{side}_now": metrics[f"eval_logps/{side}"] for side in ("chosen", "rejected")},
                **{
                    f"{side}_before": metrics[f"eval_logps/{side}"] - metrics[f"eval_rewards/{side}"] / beta
                    for side in ("chosen", "rejected")
                },
            }
        )
    return found


def two_models(words: int) -> list[LlamaForCausalLM]:
    models = []
    for seed in (1, 2):
        model = tiny_llama(words)
        torch.manual_seed(seed)
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
        models.append(model)
    return models


def verdicts() -> list[dict[str, float]]:
    """KTOTrainer's loss of a kept and a refused answer to two prompts, with its log-probabilities and its divergence."""
    from transformers import PreTrainedTokenizerFast

    texts = ["I like bees and rivers.", "You like rivers and bees and rivers."]
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=byte_level_bpe(texts), eos_token="<|im_end|>", pad_token="<|pad|>"
    )
    rows = [
        {"prompt": "I like", "completion": " bees and rivers.", "label": True},
        {"prompt": "You like", "completion": " rivers and bees and rivers.", "label": False},
    ]
    found = []
    for beta, models in ((0.1, two_models(len(tokenizer))), (0.7, two_models(len(tokenizer))[::-1])):
        args = KTOConfig(
            "unused", beta=beta, use_cpu=True, bf16=False, report_to="none", per_device_eval_batch_size=2,
            per_device_train_batch_size=2, disable_tqdm=True,
        )  # fmt: skip
        trainer = KTOTrainer(
            *models, args, train_dataset=Dataset.from_list(rows), eval_dataset=Dataset.from_list(rows),
            processing_class=tokenizer,
        )  # fmt: skip
        metrics = trainer.evaluate()
        sides = ("chosen", "rejected")
        now = [metrics[f"eval_logps/{side}"] for side in sides]
        gains = [metrics[f"eval_rewards/{side}"] / beta for side in sides]
        found.append(
            {"beta": beta, "loss": metrics["eval_loss"], "divergence": metrics["eval_kl"], "now": now,
             "before": [end - gain for end, gain in zip(now, gains, strict=True)]}
        )  # fmt: skip
    return found


if __name__ == "__main__":
    golden = {
        "trl": trl.__version__,
        "torch": torch.__version__,
        **divergences(),
        "dpo": preference(),
        "kto": verdicts(),
    }
    Path(__file__).with_suffix(".json").write_text(json.dumps(golden, indent=1) + "\n", encoding="utf-8")
