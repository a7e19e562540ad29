"""Hybrid students that draft with their own layer: what its training costs in loss, what llama.cpp accepts, and what that gains.

The students learn the embedded teacher's own conversations (`data/replay`), each seed with and without the layer for multi-token
prediction. Drafts are judged twice: after each token of the teacher's held-out answers, in torch, and in llama.cpp in the
students' own greedy replies, which repeat themselves, so that drafts of them are easy. The control exchanges the layer's two
inputs, hidden state and embedding: fewer of its drafts of the held-out answers must be accepted. Every greedy reply must be
identical with and without drafts. The benchmark fails if one of them is not so.

    python -m benchmarks.multi_token [--seeds N] [--epochs N] [--requests N]
"""

import argparse
import asyncio
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file, save_file

from benchmarks.distillation import encode_all
from benchmarks.draft_results import DraftResult, build_draft_result
from benchmarks.draft_speed import compare_with_draft, measure_step_seconds
from benchmarks.drafts import read_conversations
from benchmarks.machine import describe_measurement
from core.config.students import StudentConfig
from core.config.teachers import TeacherConfig
from flows.terminal.console import SESSION
from flows.terminal.text_format import format_percent
from plugins.forms.mtp import load_mtp_block
from students.chat_encoding import Conversation
from students.comparison import measure_text_loss
from students.gguf_export import export_gguf, read_student
from students.training.student_training import train_student

SEEDS, EPOCHS, REQUESTS, REPLY_TOKENS, MAX_TOKENS = 2, 5, 20, 64, 256
LARGEST_LOSS, LEAST_ACCEPTED, LEAST_LOST = 0.02, 0.5, 0.1
"""Nats per token that the layer may cost; the share of its drafts that must be accepted; by how much more than the control's."""
STUDENT = {
    "start": "random", "steps": [{"type": "hybrid"}], "layers": 4, "hidden_size": 256, "vocabulary": 8192, "learning_rate": 2e-3,
}  # fmt: skip


class Drafts(NamedTuple):
    """Of one student."""

    accepted: float
    """After each token of a held-out answer: the share of drafts that are what the student says next but one."""
    replies: DraftResult
    """Of its own greedy replies."""


class Outcome(NamedTuple):
    """Of one seed."""

    plain_loss: float
    """Held-out nats per token of the student without the layer."""
    loss: float
    drafts: Drafts
    control: Drafts


def measure_seed(seed: int, epochs: int, requests: int, folder: Path) -> Outcome:
    learned, held_out = read_conversations(requests)
    losses = {}
    for name, changes in (("plain", {}), ("mtp", {"steps": [{"type": "hybrid"}, {"type": "mtp"}]})):
        config = StudentConfig.model_validate({**STUDENT, **changes, "epochs": epochs})
        train_student(
            learned, config, folder / name, seed=seed, progress=SESSION.print_unless_stopped, held_out=held_out
        )
        model, tokenizer = read_student(folder / name)
        found = measure_text_loss(model, tokenizer, held_out, MAX_TOKENS).nats_per_token
        assert found is not None
        losses[name] = found
    arms = (folder / "mtp", exchange_inputs(folder / "mtp", folder / "control"))
    return Outcome(losses["plain"], losses["mtp"], *(measure_drafts(arm, held_out) for arm in arms))


def exchange_inputs(student: Path, out: Path) -> Path:
    """The student, whose layer takes the embedding for the hidden state and the other way round."""
    shutil.copytree(student, out)
    weights = load_file(student / "model.safetensors")
    weights["mtp.fc.weight"] = torch.cat(weights["mtp.fc.weight"].chunk(2, 1)[::-1], 1).contiguous()
    save_file(weights, out / "model.safetensors", {"format": "pt"})
    return out


def measure_drafts(student: Path, held_out: Sequence[Conversation]) -> Drafts:
    return Drafts(measure_accepted(student, held_out), measure_replies(student, held_out))


@torch.no_grad()
def measure_accepted(student: Path, held_out: Sequence[Conversation]) -> float:
    model: Any
    model, tokenizer = read_student(student)
    load_mtp_block(model, student)
    model.train(False)
    accepted = []
    for encoded in encode_all(held_out, tokenizer):
        ids = torch.tensor([encoded.ids])
        states = model.model(ids).last_hidden_state
        said = model.lm_head(states)[0].argmax(-1)  # the token after each place
        drafted = model.lm_head(model.mtp(states[:, :-1], ids[:, 1:]))[0].argmax(-1)  # the one after that
        learned = torch.tensor(encoded.learned[1:])
        accepted.append((drafted == said[1:])[learned])
    return float(torch.cat(accepted).float().mean())


def measure_replies(student: Path, held_out: Sequence[Conversation]) -> DraftResult:
    """One token proposed at a time, since the layer's second would follow from its own first."""
    asked = [list(conversation[:1]) for conversation in held_out]
    file = export_gguf(student, "q8_0").path
    teacher = TeacherConfig(model=f"local/{file}", draft="mtp", logprobs=False, threads=1, timeout_seconds=600)
    steps = asyncio.run(measure_step_seconds(teacher, file))
    compared = asyncio.run(compare_with_draft(teacher, file, "mtp", asked, REPLY_TOKENS, lambda _done: None))
    return build_draft_result(compared, [messages[-1].content for messages in asked], 1, steps)


def find_faults(outcomes: list[Outcome]) -> list[str]:
    """What the numbers do not show, in words."""
    faults = []
    for seed, outcome in enumerate(outcomes, 1):
        drafts, control = outcome.drafts, outcome.control
        if drafts.replies.different or control.replies.different:
            faults.append(f"seed {seed}: greedy replies differ with drafts")
        if drafts.accepted < LEAST_ACCEPTED:
            faults.append(f"seed {seed}: {drafts.accepted:.0%} accepted, {LEAST_ACCEPTED:.0%} needed")
        if control.accepted > drafts.accepted - LEAST_LOST:
            faults.append(f"seed {seed}: with exchanged inputs {control.accepted:.0%} are accepted as well")
    cost = mean(outcome.loss - outcome.plain_loss for outcome in outcomes)
    if cost > LARGEST_LOSS:
        faults.append(f"the layer costs {cost:.3f} nats per token, at most {LARGEST_LOSS} is allowed")
    return faults


def table(seeds: int = SEEDS, epochs: int = EPOCHS, requests: int = REQUESTS) -> str:
    """As Markdown. Raises RuntimeError if an arm misses its number, or the control reaches it."""
    outcomes = []
    for seed in range(1, seeds + 1):
        with tempfile.TemporaryDirectory() as folder:
            outcomes.append(measure_seed(seed, epochs, requests, Path(folder)))
    lines = [
        f"{describe_measurement()}. `python -m benchmarks.multi_token`",
        "",
        f"Hybrids of {STUDENT['layers']} layers, {STUDENT['hidden_size']} wide, {STUDENT['vocabulary']:,} tokens, {epochs} "
        f"epochs of the embedded teacher's own conversations; nats per token of an answer on {requests} others, whose requests "
        f"each student then answers greedily ({REPLY_TOKENS} tokens, Q8_0, one thread), one token drafted at a time.",
        "",
        "| seed | layer | nats without it | with it | drafts accepted in held-out answers | in own replies | break-even | times "
        "as fast, 95 % | other replies |",
        "|---:|---|---:|---:|---:|---:|---:|---|---:|",
    ]
    for seed, (plain, loss, drafts, control) in enumerate(outcomes, 1):
        for arm, (share, replies) in (("as trained", drafts), ("its inputs exchanged (control)", control)):
            even = "-" if replies.break_even is None else format_percent(replies.break_even)
            speed = "-" if replies.speedup is None else replies.speedup.format(lambda value: f"{value:.2f}")
            lines.append(
                f"| {seed} | {arm} | {plain:.3f} | {loss:.3f} | {format_percent(share)} | {format_percent(replies.acceptance)} "
                f"| {even} | {speed} | {replies.different} |"
            )
    if faults := find_faults(outcomes):
        raise RuntimeError("\n".join([*lines, "", *faults]))
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--requests", type=int, default=REQUESTS)
    options = parser.parse_args()
    sys.stdout.write(f"{table(options.seeds, options.epochs, options.requests)}\n")


if __name__ == "__main__":
    main()
