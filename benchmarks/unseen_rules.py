"""Whether a student of the default recipe follows kinds of rules that none of its rows had, as `unseen-rules.json` declares.

`STILLHOUSE_ABLATION` names a folder with the run of `python -m benchmarks refused_drafts`, where the students and answers are
stored, so that a stopped benchmark resumes.
"""

import asyncio
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from agents.families.constraints import TextConstraint
from agents.planning.plan_building import build_plan
from agents.planning.run_plan import RunPlan
from agents.studies.general_panel import ask_general_panel, build_general_panel
from benchmarks.ablation import generate_declared_run
from benchmarks.machine import describe_measurement
from benchmarks.retention import mark_passed, open_folder
from core.config.teachers import TeacherConfig
from core.intervals import IntervalEstimate, estimate_paired_difference, estimate_share
from core.project_files import PROJECT
from core.runs.run_dir import RunDir
from core.sample import Message, Sample
from core.storage.atomic_files import read_json, write_json
from flows.data.curated_run import read_kept_samples
from flows.data.student_files import configure_student_as_teacher, export_student
from flows.terminal.console import SESSION
from students.training.student_training import train_student
from teachers.base import TeacherQuestion, UnlimitedAccount
from teachers.providers import open_teacher

DECLARED = read_json(Path(__file__).with_name("unseen-rules.json"))
TEXTS = tomllib.loads(Path(__file__).with_name("unseen_rules.toml").read_text("utf-8"))
HALVES: dict[str, list[str]] = DECLARED["halves"]
SEED, REQUESTS_OF_KIND, MAX_TOKENS, ROWS_PER_HELD_OUT_ROW = 7, 20, 256, 10
START, SHUFFLED = "start", "control: shuffled"
PARAMETERS: dict[str, Sequence[dict[str, Any]]] = {
    "max_words": [{"n": n} for n in (20, 30, 50)],
    "min_words": [{"n": n} for n in (30, 50, 80)],
    "words_between": [{"low": low, "high": low + 20} for low in (15, 25, 40)],
    "exact_sentences": [{"n": n} for n in (1, 2, 3)],
    "max_sentence_words": [{"n": n} for n in (10, 12, 15)],
    "avoid_letter": [{"letter": letter} for letter in "jqxzk"],
    "start_with": [{"word": word} for word in ("Honestly", "Imagine", "Perhaps", "First", "Well")],
    "bullets": [{"n": n} for n in (3, 4, 5)],
}
"""Of the kinds whose parameters are not a word of the topic."""


class RuleRequest(NamedTuple):
    text: str
    rule: TextConstraint


def draw_requests() -> list[RuleRequest]:
    rng, asked = Random(SEED), list[RuleRequest]()
    topics = list(zip(TEXTS["requests"]["texts"], TEXTS["words"]["lists"], strict=True))
    for kind, wordings in TEXTS["rules"].items():
        for text, words in rng.sample(topics, REQUESTS_OF_KIND):
            params = rng.choice(PARAMETERS.get(kind, [{}]))
            word = rng.choice(words)
            named = {"include_words": {"words": [word]}, "avoid_word": {"word": word}}.get(kind, params)
            rule = TextConstraint(
                kind=kind, params=named, text=rng.choice(wordings).format_map({"word": word, **params})
            )
            parts = [text, rule.text] if rng.random() < 0.7 else [rule.text, text]
            asked.append(RuleRequest(" ".join(parts), rule))
    return asked


def choose_rows(run: RunDir) -> dict[str, list[Sample]]:
    """The samples of each arm that is trained."""
    kept = list(read_kept_samples(run))
    rows = {name: [one for one in kept if list_kinds(one) <= set(kinds)] for name, kinds in HALVES.items()}
    return {**rows, "all kinds": Random(SEED).sample(kept, max(map(len, rows.values())))}


def list_kinds(sample: Sample) -> set[str]:
    return {rule["kind"] for turn in sample.seed.data["constraints"] for rule in turn}


def read_conversations(samples: Sequence[Sample]) -> list[list[Message]]:
    return [list(sample.candidate.messages) for sample in samples if sample.candidate]


def exchange_answers(rows: Sequence[Sequence[Message]]) -> list[list[Message]]:
    """Each request with the answer of the next row, in a shuffled order."""
    order = Random(SEED).sample(list(rows), len(rows))
    return [[*row[:-1], other[-1]] for row, other in zip(order, order[1:] + order[:1], strict=True)]


def train_arm(name: str, rows: Sequence[list[Message]], run: RunDir, folder: Path) -> TeacherConfig:
    recipe = run.read_recipe()
    assert recipe.student
    student, held_out = folder / name.replace(": ", "-"), len(rows) // ROWS_PER_HELD_OUT_ROW
    config = recipe.student.model_copy(update={"evaluation": None})
    train_student(
        rows[held_out:], config, student, seed=SEED, progress=SESSION.print_unless_stopped, held_out=rows[:held_out],
        synthetic=True,
    )  # fmt: skip
    return configure_student_as_teacher(export_student(student, "q8_0").path, recipe.generator_teacher)


def ask_arm(
    name: str, plan: RunPlan, model: TeacherConfig, asked: Sequence[RuleRequest], folder: Path
) -> dict[str, Any]:
    """Answers to `asked`, and 1 for each task of the panel that passed; asked once."""
    file = folder / f"{name.replace(': ', '-')}.json"
    if not file.exists():
        answers = asyncio.run(_ask_all(model, [one.text for one in asked]))
        panel = build_general_panel(plan, DECLARED["panel"])
        judged = asyncio.run(ask_general_panel(panel, model, SESSION.stop, lambda _done: None)).judged
        write_json(file, {"answers": answers, "panel": mark_passed(judged).tolist()})
    return dict(read_json(file))


async def _ask_all(model: TeacherConfig, texts: Sequence[str]) -> list[str]:
    async with open_teacher(model) as teacher:

        async def ask(text: str) -> str:
            question = TeacherQuestion(
                messages=[Message(role="user", content=text)], contract="Answer", json_schema=None, temperature=0.0,
                top_p=1.0, max_tokens=MAX_TOKENS, seed=SEED,
            )  # fmt: skip
            return (await teacher.reply(question, 0, UnlimitedAccount())).text

        return await asyncio.gather(*map(ask, texts))


def compare_passed(passed: Sequence[bool], other: Sequence[bool]) -> IntervalEstimate | None:
    pairs = Counter(zip(map(bool, passed), map(bool, other), strict=True))
    return estimate_paired_difference(pairs[True, True], pairs[True, False], pairs[False, True], pairs[False, False])


def format_page(asked: Sequence[RuleRequest], found: dict[str, dict[str, Any]], rows: dict[str, int]) -> Iterator[str]:
    groups = {
        **HALVES,
        "foreign": sorted({one.rule.kind for one in asked} - {kind for half in HALVES.values() for kind in half}),
    }
    yield f"{describe_measurement()}. {len(asked)} requests, {REQUESTS_OF_KIND} of each kind."
    yield ""
    yield f"| student | rows | {' | '.join(f'{name}, points' for name in groups)} | panel, points | words |"
    yield f"|---|---:|{'---|' * len(groups)}---|---:|"
    passed = {
        name: [one.rule.fault(answer) is None for one, answer in zip(asked, arm["answers"], strict=True)]
        for name, arm in found.items()
    }
    for name, arm in found.items():
        cells = [
            format_group(
                [place for place, one in enumerate(asked) if one.rule.kind in kinds], passed[name], passed[START]
            )
            for kinds in groups.values()
        ]
        cells.append(format_group(range(len(arm["panel"])), arm["panel"], found[START]["panel"]))
        words = sum(len(answer.split()) for answer in arm["answers"]) / len(asked)
        yield f"| {name} | {rows.get(name, '')} | {' | '.join(cells)} | {words:.0f} |"
    unseen = [
        (passed[name][place], passed[START][place])
        for name in HALVES
        for place, one in enumerate(asked)
        if one.rule.kind in {kind for half, kinds in HALVES.items() if half != name for kind in kinds}
    ]
    yield ""
    together = format_group(range(len(unseen)), *zip(*unseen, strict=True))
    yield f"The unseen half, both students together: {together} points above the start."
    yield ""
    yield f"| kind | {' | '.join(found)} |"
    yield f"|---|{'---:|' * len(found)}"
    for kind in TEXTS["rules"]:
        places = [place for place, one in enumerate(asked) if one.rule.kind == kind]
        yield f"| `{kind}` | {' | '.join(str(sum(passed[name][place] for place in places)) for name in found)} |"


def format_group(places: Sequence[int], passed: Sequence[bool], start: Sequence[bool]) -> str:
    """The share that passed, and its difference from the start's in points."""
    mine, other = [passed[place] for place in places], [start[place] for place in places]
    share, gain = estimate_share(sum(mine), len(mine)), compare_passed(mine, other)
    assert share
    assert gain
    return f"{share.value:.0%}; {gain.format(lambda value: f'{100 * value:+.0f}')}"


def table() -> str:
    with open_folder("STILLHOUSE_ABLATION") as parent:
        run = generate_declared_run(parent)
        plan, asked, folder = build_plan(run.read_recipe(), PROJECT), draw_requests(), parent / "unseen-rules"
        folder.mkdir(exist_ok=True)
        rows = {name: read_conversations(samples) for name, samples in choose_rows(run).items()}
        rows[SHUFFLED] = exchange_answers(rows["all kinds"])
        found = {START: ask_arm(START, plan, run.read_recipe().generator_teacher, asked, folder)}
        for name, some in rows.items():
            found[name] = ask_arm(name, plan, train_arm(name, some, run, folder), asked, folder)
            SESSION.print_unless_stopped(f"{name}: {len(some)} rows, answered")
        return "\n".join(format_page(asked, found, {name: len(some) for name, some in rows.items()}))


if __name__ == "__main__":
    sys.stdout.write(f"{table()}\n")
