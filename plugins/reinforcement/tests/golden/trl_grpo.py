"""A step of TRL's GRPO, to compare ours with: writes `trl_grpo.json` next to this file.

Run where TRL is installed (1.16.0 wrote the numbers that are here), from the root of the project:
PYTHONPATH=. python plugins/reinforcement/tests/golden/trl_grpo.py

TRL samples from a tiny model and judges; the weights are then moved by `move_weights`, so that ratios are clipped and the
start is left, and TRL computes the loss and its gradient.
"""

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import trl
from datasets import Dataset
from transformers import PreTrainedTokenizerFast
from trl import GRPOConfig, GRPOTrainer

from plugins.reinforcement.tests.golden.moved_weights import move_weights
from tests.students.conftest import byte_level_bpe, tiny_llama

PROMPTS, GROUP = ("I like", "I like rivers and"), 4


def count_letters(prompts: list[str], completions: list[str], **_columns: Any) -> list[float]:
    """A reward that differs among the answers to the first request, and is 1 for all answers to the other one."""
    return [
        len(text) % 7 / 7 if prompt == PROMPTS[0] else 1.0 for prompt, text in zip(prompts, completions, strict=True)
    ]


def main() -> None:
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=byte_level_bpe(["I like bees and rivers."]), eos_token="<|im_end|>", pad_token="<|pad|>"
    )
    args = GRPOConfig(
        "unused", loss_type="grpo", beta=0.04, num_generations=GROUP, max_completion_length=12, top_k=0, num_iterations=2,
        per_device_train_batch_size=len(PROMPTS) * GROUP, max_steps=1, learning_rate=0.0, seed=3, use_cpu=True, bf16=False,
        model_init_kwargs={"dtype": "float32"}, report_to="none", disable_tqdm=True, save_strategy="no",
    )  # fmt: skip
    prompts = Dataset.from_list([{"prompt": prompt} for prompt in PROMPTS])
    found: dict[str, Any] = {}
    with TemporaryDirectory() as folder:  # TRL loads the start once more
        tiny_llama(len(tokenizer)).save_pretrained(folder)
        trainer = GRPOTrainer(folder, count_letters, args, train_dataset=prompts, processing_class=tokenizer)
    compute = trainer._compute_loss

    def record(learner: Any, inputs: dict[str, Any]) -> torch.Tensor:
        order = (
            inputs["advantages"].new_tensor([len(row.nonzero()) for row in inputs["prompt_mask"]]).argsort(stable=True)
        )
        inputs = {
            name: value[order] if torch.is_tensor(value) and value.dim() else value for name, value in inputs.items()
        }
        mask = inputs["completion_mask"]
        for row in range(len(mask)):  # no tiny model ends by itself
            mask[row, mask.shape[1] - row :] = 0
        state = {name: value.clone() for name, value in learner.state_dict().items()}
        move_weights(learner)
        loss = compute(learner, inputs)
        gradients = torch.autograd.grad(loss, [value for value in learner.parameters() if value.requires_grad])
        found.update(loss=loss.item(), gradient=torch.stack([one.norm() for one in gradients]).norm().item())
        found["advantages"] = inputs["advantages"].tolist()
        parts = {"prompts": ("prompt_ids", inputs["prompt_mask"]), "answers": ("completion_ids", mask)}
        for name, (ids, marks) in parts.items():
            rows = zip(inputs[ids].tolist(), marks.tolist(), strict=True)
            found[name] = [[token for token, mark in zip(*row, strict=True) if mark] for row in rows]
        texts = (
            tokenizer.batch_decode(inputs[ids], skip_special_tokens=True) for ids in ("prompt_ids", "completion_ids")
        )
        found["rewards"] = count_letters(*texts)
        learner.load_state_dict(state)
        return compute(learner, inputs)

    trainer._compute_loss = record
    trainer.train()
    golden = {"trl": trl.__version__, "torch": torch.__version__, **found}
    Path(__file__).with_suffix(".json").write_text(json.dumps(golden) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
