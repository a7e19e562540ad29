"""Take measurements and write them into the pages of this folder: all of them, or the parts that are named.

[STILLHOUSE_PEERS=FOLDER] python -m benchmarks [teacher] [families] [routing] ... [collapse] [study] [study_embedded]
"""

import re
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks import (
    ablation,
    answer_equality,
    attention_shares,
    busy,
    busy_training,
    clients,
    decision_load,
    decision_peer,
    decisions,
    dedup,
    difficulty,
    distillation,
    drafts,
    families,
    forgetting,
    generations,
    input_speed,
    late_fusion,
    long_inputs,
    multi_token,
    on_policy,
    orchestration,
    planted_faults,
    postgres,
    preference_training,
    pruned_students,
    pruning,
    recall,
    retention,
    robustness,
    routing,
    sameness,
    scale,
    seeing,
    selective_tokens,
    service_calls,
    shards,
    soak,
    start,
    study,
    teacher,
    ternary,
    tool_results,
    training,
    unseen_rules,
)
from benchmarks.collapse import kinds, neural, references, repetition, small_references, structure
from benchmarks.collapse import tables as collapse
from benchmarks.external_truth import math_verify, reasoning_gym
from benchmarks.features import tables as features

PAGES: dict[str, dict[str, tuple[str, Callable[[], str]]]] = {
    "families": {
        "teacher": ("What the embedded teacher can do", teacher.table),
        "families": ("What the embedded teacher can do of each family", families.table),
        "preference_training": ("What DPO adds to SFT", preference_training.table),
        "difficulty": ("How hard recorded samples are for the embedded teacher", difficulty.table),
    },
    "planted-faults": {
        "planted_faults": ("Planted faults, and what checks and critics catch", planted_faults.table),
        "sameness": ("How alike the texts of a recipe are", sameness.table),
        "service_calls": ("Wrong calls of simulated services", service_calls.table),
        "tool_results": ("Tool results of another sample", tool_results.table),
    },
    "math": {
        "answer_equality": ("Equality of mathematical answers, compared with Math-Verify", answer_equality.table),
        "truth_math_verify": ("Forms of answers, compared with Math-Verify", math_verify.table),
        "truth_reasoning_gym": ("Known answers, compared with reasoning-gym's scorers", reasoning_gym.table),
    },
    "local-models": {
        "drafts": ("Drafts of the embedded teacher", drafts.table),
        "multi_token": ("Hybrid students that draft with a layer of their own", multi_token.table),
        "busy": ("The embedded teacher on a busy machine", busy.table),
        "busy_training": ("Training steps on a busy machine", busy_training.table),
    },
    "duplicates": {
        "dedup": ("Near-duplicates, compared with peers", dedup.table),
    },
    "students": {
        "training": ("What a training step costs", training.table),
        "distillation": ("What a teacher's probabilities add to its texts", distillation.table),
        "on_policy": ("What answers of the student's own add", on_policy.table),
        "retention": ("What students keep of their teacher", retention.table),
        "forgetting": ("What students forget, by method against it", forgetting.table),
        "generations": ("Generations whose generator is the student of the one before", generations.table),
        "selective_tokens": ("Which reply tokens a student should learn", selective_tokens.table),
    },
    "ablation": {
        "ablation": ("What each step of the default recipe bought", ablation.table),
        "refused_drafts": ("Refused drafts", ablation.table_of_refused_drafts),
        "unseen_rules": ("Kinds of rules that no row had", unseen_rules.table),
    },
    "student-forms": {
        "seeing": ("A student that sees charts, next to a blind one", seeing.table),
        "late_fusion": ("Early fusion, next to a frozen encoder", late_fusion.table),
        "pruning": ("What half of a start's weights loses, pruned and fitted", pruning.table),
        "pruned_students": ("What half of a student's weights passes, next to all", pruned_students.table),
        "input_speed": ("What sliding windows save at long inputs", input_speed.table),
        "attention_shares": ("What share of the keys a student needs", attention_shares.table),
        "long_inputs": ("What a student with sliding windows finds far away", long_inputs.table),
        "recall": ("What a memory recalls", recall.table),
        "ternary": ("Ternary students at equal steps and equal bytes", ternary.table),
    },
    "features": {
        "features": ("Features of a sparse autoencoder, next to a random dictionary", features.table),
    },
    "serving": {
        "routing": ("How many queries a student can take", routing.table),
        "decisions": ("Decision students, with a guarantee of agreement", decisions.table),
        "decision_peer": ("Labels by a student of Heartcut", decision_peer.table),
        "decision_load": ("A decision server under load", decision_load.table),
    },
    "orchestration": {
        "orchestration": ("What orchestration costs, compared with peers", orchestration.table),
        "clients": ("What a call costs by each protocol's client", clients.table),
        "start": ("From a command to its teacher's first call", start.table),
        "robustness": ("What happens when things go wrong, compared with peers", robustness.table),
    },
    "scale": {
        "shards": ("Many shards in one flow run", shards.table),
        "soak": ("A schedule that fires every minute", soak.table),
        "postgres": ("What runs leave in a Prefect server's database", postgres.table),
        "scale": ("Many worker processes", scale.table),
    },
    "collapse": {
        "collapse": ("The collapse gate", collapse.table),
    },
    "collapse-sizes": {
        "collapse_sizes": ("The collapse gate and sizes", collapse.table_of_sizes),
        "collapse_small": ("The collapse gate and small references", small_references.table),
    },
    "collapse-generations": {
        "collapse_generations": ("The collapse gate and generations", collapse.table_of_generations),
        "collapse_neural": ("The collapse gate and a language model that learns from itself", neural.table),
    },
    "collapse-kinds": {
        "collapse_kinds": ("The collapse gate and data that is not English prose", kinds.table),
    },
    "collapse-references": {
        "references": ("References of the same kind", references.table),
    },
    "repetition": {
        "repetition": ("Repetition, without a reference", repetition.table),
        "structure": ("Structure, without a reference", structure.table),
    },
    "topologies": {
        "study": ("Topologies under injected faults", study.measure_injected),
        "study_embedded": ("Topologies with the embedded teacher", study.measure_embedded),
    },
}
"""By page of this folder, its parts in their order: heading and table."""


def main() -> None:
    known = {name: page for page, parts in PAGES.items() for name in parts}
    wanted = sys.argv[1:] or list(known)
    if unknown := sorted(set(wanted) - set(known)):
        sys.exit(f"unknown parts {', '.join(unknown)}; known are {', '.join(known)}")
    for name in wanted:
        title, table = PAGES[known[name]][name]
        write_part(Path(__file__).with_name(f"{known[name]}.md"), name, f"## {title}\n\n{table().strip()}")


def write_part(page: Path, name: str, text: str) -> None:
    """Puts a part in place of its last measurement, or at the end of its page; what is written by hand stays."""
    old = page.read_text(encoding="utf-8")
    part = f"<!-- part {name} -->\n{text}\n<!-- end -->"
    measured = re.compile(rf"<!-- part {name} -->\n.*?\n<!-- end -->", re.DOTALL)
    new = measured.sub(lambda _: part, old) if measured.search(old) else f"{old.rstrip()}\n\n{part}\n"
    page.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    main()
