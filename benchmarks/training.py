"""What a training step costs: next to TRL on the same start and rows, and by where a teacher's probabilities come from.

Peers run in the environment `STILLHOUSE_PEERS`/trl; without it the first table lacks them. Some twenty minutes on two quiet
cores.
"""

import json
import os
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from transformers import AutoTokenizer

from benchmarks.children import PROJECT, run_process
from benchmarks.machine import describe_measurement
from core.runs.run_dir import collect_versions
from students.start_model import TEACHER_LAYERS, start_from_layers

REFERENCE = PROJECT / "data" / "reference" / "english.jsonl"
ROWS, BATCH, MAX_TOKENS, WORDS = 32, 8, 256, 70
SMALL_ROWS = 256
"""For the small student, whose steps are short."""
ROUNDS = 5
OURS, TRL = "ours", "TRL"
OBJECTIVES = {"sft": "SFT", "forward_kl": "forward KL, teacher loaded"}
TINY = {"start": "random", "layers": 6, "hidden_size": 256, "vocabulary": 8192}
SIGNALS: dict[str, dict[str, Any]] = {
    "cross-entropy alone": {"objective": "sft"},
    "forward KL, top 8 captured": {"objective": "forward_kl", "distillation": {"signals": "top_k"}},
    "forward KL, 13 drawn captured": {"objective": "forward_kl", "distillation": {"signals": "sampled"}},
    "forward KL, teacher loaded": {"objective": "forward_kl"},
}


class StepTimes(NamedTuple):
    """Seconds of CPU and of the clock: from the start of the process to the end of its first step, and of each later one."""

    first_cpu: float
    first: float
    step_cpu: float
    step: float


def table() -> str:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_models(folder)
        rows, more_rows = build_answers(ROWS), build_answers(SMALL_ROWS)
        tokens = count_tokens(rows, folder / "start")
        peers = Path(os.environ.get("STILLHOUSE_PEERS", "")) / "trl" / "bin" / "python"
        pythons = {OURS: Path(sys.executable), **({TRL: peers} if peers.is_file() else {})}
        compared: dict[tuple[str, str], list[StepTimes]] = {}
        for turn in range(ROUNDS):
            for objective in OBJECTIVES:
                for system, python in pythons.items():
                    took = time_training(system, python, folder, rows, objective, {}, f"{turn}")
                    compared.setdefault((objective, system), []).append(took)
        small: dict[str, list[StepTimes]] = {arm: [] for arm in SIGNALS}
        for turn in range(ROUNDS):
            for i, (arm, more) in enumerate(SIGNALS.items()):
                took = time_training(OURS, pythons[OURS], folder, more_rows, "", {**TINY, **more}, f"{i} {turn}")
                small[arm].append(took)
    return "\n".join(
        [format_caption(tokens, peers), "", *_format_trainers(compared, tokens), "", *_format_signals(small)]
    )


def write_models(folder: Path) -> None:
    for name, layers in (("start", TEACHER_LAYERS // 2), ("teacher", TEACHER_LAYERS)):
        start = start_from_layers(layers)
        start.model.save_pretrained(folder / name)
        start.tokenizer.save_pretrained(folder / name)


def build_answers(number: int) -> list[dict[str, list[dict[str, str]]]]:
    """Beginnings of real texts of unequal lengths, each as the answer to one question."""
    lines = REFERENCE.read_text(encoding="utf-8").splitlines()[:number]
    texts = [" ".join(json.loads(line)["text"].split()[: WORDS // 2 + i % WORDS]) for i, line in enumerate(lines)]
    asked = [{"role": "user", "content": "Write some sentences."}]
    return [{"prompt": asked, "completion": [{"role": "assistant", "content": text}]} for text in texts]


def count_tokens(rows: list[dict[str, list[dict[str, str]]]], start: Path) -> int:
    tokenizer = AutoTokenizer.from_pretrained(start)
    texts = [tokenizer.apply_chat_template([*row["prompt"], *row["completion"]], tokenize=False) for row in rows]
    return sum(len(ids) for ids in tokenizer(texts, add_special_tokens=False)["input_ids"])


def time_training(
    system: str, python: Path, folder: Path, rows: Any, objective: str, more: Mapping[str, Any], name: str
) -> StepTimes:
    work, told = folder / "work.json", folder / "moments.json"
    work.write_text(
        json.dumps({
            "start": str(folder / "start"), "teacher": str(folder / "teacher"), "objective": objective, "rows": rows,
            "batch_size": BATCH, "max_tokens": MAX_TOKENS, "learning_rate": 1e-4, "more": more,
            "out": str(folder / f"{system} {objective} {name}"),
        })
    )  # fmt: skip
    module = "train_ours" if system == OURS else "train_trl"
    began = time.time()
    command = [str(python), "-m", f"benchmarks.peers.{module}", str(work), str(told)]
    ended = run_process(
        command, more_env={"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(PROJECT)}, timeout=1800
    )
    if ended.code:
        raise RuntimeError(f"{' '.join(command)} ended with {ended.code}: {ended.err[-2000:]}")
    moments = json.loads(told.read_text())
    (first, first_cpu), (last, last_cpu), later = moments[0], moments[-1], len(moments) - 1
    return StepTimes(first_cpu, first - began, (last_cpu - first_cpu) / later, (last - first) / later)


def _format_trainers(found: Mapping[tuple[str, str], list[StepTimes]], tokens: int) -> list[str]:
    """Medians of CPU seconds with the least and the most, medians of seconds, and the ratios of both."""
    lines = [
        "| objective | trainer | a step, CPU s | s | tokens per CPU s | to the first step, CPU s | s | of TRL: a step | first |",
        "|---|---|---|---:|---:|---|---:|---:|---:|",
    ]
    for (objective, system), took in found.items():
        firsts, steps = ([one[place] for one in took] for place in (0, 2))
        peer = found.get((objective, TRL), took)
        ratios = (
            f"{median(steps) / median(one.step_cpu for one in peer):.2f} | "
            f"{median(firsts) / median(one.first_cpu for one in peer):.2f}"
        )
        lines.append(
            f"| {OBJECTIVES[objective]} | {system} | {_format_spread(steps)} | {median(one.step for one in took):.2f} "
            f"| {tokens * BATCH / ROWS / median(steps):,.0f} | {_format_spread(firsts)} "
            f"| {median(one.first for one in took):.1f} | {ratios if system == OURS else ' | '} |"
        )
    return lines


def _format_spread(seconds: list[float]) -> str:
    return f"{median(seconds):.2f} ({min(seconds):.2f} to {max(seconds):.2f})"


def _format_signals(found: Mapping[str, list[StepTimes]]) -> list[str]:
    """Ten epochs of the small student."""
    plain = median(one.step for one in found["cross-entropy alone"])
    steps = 10 * SMALL_ROWS // BATCH
    lines = [
        f"A student of 6.8M parameters with 8,192 tokens, {SMALL_ROWS} rows; ten epochs are {steps} steps, "
        "capture and loading of the models included:",
        "",
        "| learns from | a step, s | times cross-entropy | to the first step, s | ten epochs, s |",
        "|---|---:|---:|---:|---:|",
    ]
    for arm, took in found.items():
        first, step = median(one.first for one in took), median(one.step for one in took)
        lines.append(f"| {arm} | {step:.3f} | {step / plain:.2f} | {first:.1f} | {first + (steps - 1) * step:,.0f} |")
    return lines


def format_caption(tokens: int, peers: Path) -> str:
    """`peers` is the Python of TRL's environment."""
    versions = [
        f"{name} {version}" for name, version in collect_versions().items() if name in ("torch", "transformers")
    ]
    if peers.is_file():
        names = "'trl', 'torch', 'transformers'"
        ask = f"from importlib.metadata import version; print(*(f'{{n}} {{version(n)}}' for n in ({names})), sep=', ')"
        versions.append(f"next to {run_process([str(peers), '-c', ask]).out.strip()}")
    return (
        f"{describe_measurement()}; {', '.join(versions)}. `python -m benchmarks training`\n\n"
        f"The same start (half of the embedded teacher's layers), {ROWS} rows of {tokens / ROWS:.0f} tokens on average with one "
        f"question, {BATCH} rows in a step, one epoch, bf16, AdamW, loss on the answers only, no gradient checkpointing (TRL's "
        f"default is on). One thread each. Medians of {ROUNDS} with the least and the most, taken in turns at the same raised "
        "priority. The first step is counted from the start of the process, and both measure the loss of eight of the rows "
        "before it (ours in float32, with the teacher in bf16; TRL by `eval_on_start` in bf16). Ratios are of CPU seconds."
    )


def main() -> None:
    sys.stdout.write(f"{table()}\n")


if __name__ == "__main__":
    main()
