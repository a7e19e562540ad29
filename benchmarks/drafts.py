"""The embedded teacher with drafts: what it accepts, what that costs or gains, and that no greedy reply changes.

python -m benchmarks.drafts [--requests N] [--epochs N]

Two students of one start learn the teacher's own conversations (`data/replay`), one of them with the teacher's probabilities.
Controls: the teacher itself as its draft must be accepted (nearly) always, random weights (nearly) never, and every reply must be
identical to the one without a draft. The benchmark fails if one of them is not so.
"""

import argparse
import asyncio
import json
import re
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from transformers import LlamaForCausalLM

from agents.studies.held_out_evaluation import held_out_seeds
from benchmarks.draft_results import DraftResult, build_draft_result
from benchmarks.draft_speed import compare_with_draft, measure_step_seconds
from benchmarks.machine import describe_measurement
from core.config.students import StudentConfig
from core.config.teachers import NGRAM_DRAFT, TeacherConfig
from core.project_files import PROJECT
from core.sample import Message
from core.shared_options import DRAFT_TOKENS
from core.weights.packaged_weights import EMBEDDED_TEACHER, find_embedded_teacher
from flows.recipes.recipe_catalog import load_recipe_plan
from flows.terminal.console import SESSION
from flows.terminal.text_format import format_percent
from students.chat_encoding import Conversation
from students.gguf_export import export_gguf
from students.replay import PACKAGED_REPLAY
from students.start_model import StartModel, start_from_layers, start_from_random
from students.training.student_training import train_student

REQUESTS, REPLY_TOKENS, PASSAGE_WORDS = 20, 40, 60
WIDTH, LAYERS, EPOCHS = 192, 4, 6
"""Of the students: 11M parameters with the teacher's whole vocabulary, which llama.cpp wants of a draft."""
ITSELF, RANDOM = "the teacher itself", "random weights, 11M parameters"
STUDENTS = {"student, teacher's probabilities": "forward_kl", "student, teacher's texts": "sft"}
"""Their objectives."""
MOST_RANDOM, LEAST_ITSELF = 0.02, 0.9
"""Limits of the controls' acceptance. The teacher accepts all of its own proposals but what goes beyond the end of a reply: up to
three tokens of each."""


def read_conversations(held_out: int) -> tuple[list[Conversation], list[Conversation]]:
    """The teacher's own, to learn and held out; most answers are cut after 64 tokens."""
    _, *rows = map(json.loads, PACKAGED_REPLAY.read_text(encoding="utf-8").splitlines())
    found: list[Conversation] = [
        [Message(role="user", content=row["request"]), Message(role="assistant", content=row["answer"])] for row in rows
    ]
    return found[held_out:], found[:held_out]


def list_requests(number: int) -> dict[str, list[list[Message]]]:
    """By kind: the requests of held-out conversations, requests of the default recipe that no run uses, and passages to repeat
    word for word.
    """
    plan = load_recipe_plan("constrained-instructions")
    seeds = held_out_seeds(plan, number)
    asked = [[message for message in plan.family.questions(seed) or [] if message.role == "user"][:1] for seed in seeds]
    files = sorted((PROJECT / "data" / "documents").glob("*.txt"))
    words = [word for file in files for word in re.findall(r"\S+", file.read_text(encoding="utf-8"))]
    assert len(words) >= PASSAGE_WORDS * number, "each request has a passage of its own"
    passages = [" ".join(words[PASSAGE_WORDS * i : PASSAGE_WORDS * (i + 1)]) for i in range(number)]
    repeated = [[Message(role="user", content=f"Repeat this text word for word:\n\n{one}")] for one in passages]
    general = [list(conversation[:1]) for conversation in read_conversations(number)[1]]
    return {"general requests": general, "requests of the recipe": asked, "passages to repeat": repeated}


def make_drafts(folder: Path, held_out: int, epochs: int) -> dict[str, Path | str]:
    """The drafts by arm: GGUF files, and n-grams. Without epochs, no students."""
    embedded = find_embedded_teacher()
    assert embedded, "the embedded teacher is installed"
    return {
        ITSELF: embedded,
        **{
            arm: train_draft(objective, folder / objective, held_out, epochs)
            for arm, objective in STUDENTS.items()
            if epochs
        },
        "24 of its 30 layers": export_start(start_from_layers(24), folder / "layers"),
        RANDOM: export_start(start_from_random(WIDTH, LAYERS), folder / "random"),
        "n-grams": NGRAM_DRAFT,
    }


def train_draft(objective: str, out: Path, held_out: int, epochs: int) -> Path:
    learned, other = read_conversations(held_out)
    config = StudentConfig.model_validate(
        {
            "start": "random", "layers": LAYERS, "hidden_size": WIDTH, "objective": objective, "epochs": epochs,
            "learning_rate": 1e-3, **({"distillation": {"signals": "top_k"}} if objective == "forward_kl" else {}),
        }
    )  # fmt: skip
    train_student(learned, config, out, seed=1, progress=SESSION.print_unless_stopped, held_out=other)
    return export_gguf(out, "q8_0").path


def export_start(start: StartModel, folder: Path) -> Path:
    assert isinstance(start.model, LlamaForCausalLM)
    start.model.save_pretrained(folder)
    start.tokenizer.save_pretrained(folder)
    return export_gguf(folder, "q8_0").path


def measure_arms(
    drafts: Mapping[str, Path | str], requests: Mapping[str, Sequence[Sequence[Message]]]
) -> dict[tuple[str, str], DraftResult]:
    """The results by arm and kind of requests, in turns within an arm."""
    teacher = TeacherConfig(model=f"local/{EMBEDDED_TEACHER}", threads=1, timeout_seconds=600)
    weights = find_embedded_teacher()
    assert weights, "the embedded teacher is installed"
    steps = asyncio.run(measure_step_seconds(teacher, weights))
    found = {}
    for arm, draft in drafts.items():
        for kind, asked in requests.items():
            compared = asyncio.run(compare_with_draft(teacher, weights, draft, asked, REPLY_TOKENS, lambda _done: None))
            texts = [messages[-1].content for messages in asked]
            found[arm, kind] = build_draft_result(compared, texts, DRAFT_TOKENS, steps)
    return found


def check_controls(found: Mapping[tuple[str, str], DraftResult]) -> None:
    """Raises RuntimeError if a control reaches a number that it must not reach."""
    for (arm, kind), result in found.items():
        if result.different:
            raise RuntimeError(f"{arm}, {kind}: {result.different} greedy replies differ with the draft")
        if arm == ITSELF and result.acceptance < LEAST_ITSELF:
            raise RuntimeError(
                f"the teacher accepts {result.acceptance:.0%} of its own proposals: is the draft loaded?"
            )
        if arm == RANDOM and result.acceptance > MOST_RANDOM:
            raise RuntimeError(f"the teacher accepts {result.acceptance:.0%} of random proposals")


def table(number: int = REQUESTS, epochs: int = EPOCHS) -> str:
    """As Markdown."""
    with tempfile.TemporaryDirectory() as folder:
        found = measure_arms(make_drafts(Path(folder), number, epochs), list_requests(number))
    check_controls(found)
    steps = next(iter(found.values())).step_seconds
    costs = ", ".join(f"{size}: {seconds / steps[1]:.1f}" for size, seconds in steps.items())
    lines = [
        "| draft | requests | accepted | tokens per verification | cost of a verification | break-even | times as fast, 95 % |",
        "|---|---|---:|---:|---:|---:|---|",
    ]
    for (arm, kind), result in found.items():
        lines.append(f"| {arm} | {kind} | {_format_result(result)} |")
    return "\n".join([
        f"SmolLM2-135M, 4 bit, one thread, one conversation, greedy replies of at most {REPLY_TOKENS} tokens; {number} "
        f"requests of each kind, without and with the draft in turns; {DRAFT_TOKENS} tokens proposed at once. The students: "
        f"{WIDTH} wide, {LAYERS} layers, the whole vocabulary, {epochs} epochs of the teacher's own conversations, the general "
        "requests' held out. "
        f"{describe_measurement()}. Costs are in seconds of one token; a batch of k tokens costs {costs}. All replies are "
        "identical with and without a draft. Command: `python -m benchmarks drafts`.",
        "", *lines,
    ])  # fmt: skip


def _format_result(result: DraftResult) -> str:
    cost = "-" if result.verification_cost is None else f"{result.verification_cost:.1f}"
    even = "-" if result.break_even is None else "none" if result.break_even > 1 else format_percent(result.break_even)
    speed = "-" if result.speedup is None else result.speedup.format(lambda value: f"{value:.2f}")
    accepted = format_percent(result.acceptance) if result.verifications else "nothing proposed"
    return f"{accepted} | {result.tokens_per_verification:.2f} | {cost} | {even} | {speed}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--requests", type=int, default=REQUESTS)
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="0: without students")
    options = parser.parse_args()
    sys.stdout.write(table(options.requests, options.epochs) + "\n")
