"""How many questions of reasoning-gym are refused as unfair, by task and reason, as the Markdown table of benchmarks/math.md.

python -m benchmarks.question_filters [--questions N]
"""

import argparse
import sys
from collections import Counter
from importlib.metadata import version

from plugins.math.families.question_filters import CORRECTIONS, QUESTION_FILTERS, correct_question, find_question_fault
from plugins.math.families.reasoning import GYM_TASKS, ProceduralQuestion, task_settings

QUESTIONS, SEED = 1_000, 7


def count_refusals(task: str, questions: int) -> tuple[Counter[str], int]:
    """The refused questions of a task by reason, and the number of fair ones whose text is corrected."""
    dataset = ProceduralQuestion(task, task_settings(task, {}), SEED, questions, 0).dataset
    refused, corrected = Counter[str](), 0
    for place in range(questions):
        entry = dataset[place]
        if fault := find_question_fault(task, dataset, entry):
            refused[fault] += 1
        else:
            corrected += correct_question(task, entry).strip() != entry["question"].strip()
    return refused, corrected


def format_refusals(questions: int) -> str:
    lines = ["| task | refused | for | corrected |", "|---|---:|---|---:|"]
    for task in GYM_TASKS:
        if task not in {*QUESTION_FILTERS, *CORRECTIONS}:
            continue
        refused, corrected = count_refusals(task, questions)
        reasons = ", ".join(f"{name} {count:,}" for name, count in refused.most_common())
        lines.append(f"| `{task}` | {refused.total():,} | {reasons} | {corrected:,} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--questions", type=int, default=QUESTIONS)
    questions = parser.parse_args().questions
    measured = f"{questions:,} questions of each task, seed {SEED}, default settings, reasoning-gym {version('reasoning-gym')}."
    sys.stdout.write(f"{measured}\n\n{format_refusals(questions)}\n")


if __name__ == "__main__":
    main()
