"""Planted faults in extractions by the form of their text, what noise of a scan loses, and how various requests are: tables of
benchmarks/families.md.

python -m benchmarks.extraction_forms [--seeds 7 8 9]
"""

import argparse
import copy
import json
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from agents.checks.text.value_in_text import find_value_faults
from agents.families.extraction import list_protected_texts
from agents.families.extraction_forms import add_scan_noise
from agents.planning.seeds import RunSeeds
from benchmarks.machine import describe_measurement
from core.project_files import PROJECT
from core.storage.recording import read_recording
from core.weights.embeddings import embed_texts
from filters.collapse.diversity import vendi_score
from flows.recipes.recipe_catalog import load_recipe_plan

RECORDINGS = PROJECT / "benchmarks" / "recordings"
COMPARED = 200
"""Requests whose variety is measured."""
SETTINGS = {
    "letters, notes and the like alone (before)": ["task.forms={prose=1}", "task.inferred=0"],
    "all forms, with long lists": ["task.inferred=0"],
    "and inferred fields": [],
}
NOISES = 5
"""Scans of each recorded text."""


class RecordedDraft(NamedTuple):
    form: str
    text: str
    values: dict[str, Any]
    seed: dict[str, Any]

    def find_faults(self, values: Any, text: str | None = None) -> list[str]:
        return find_value_faults(values, text or self.text, self.seed["schema"], share=0.5)


def read_drafts(path: Path) -> Iterator[RecordedDraft]:
    """The last draft of each recorded sample that wrote its text."""
    for sample in read_recording(path):
        reply = json.loads([one.reply for one in sample.replies if one.agent == "generator"][-1])
        if "text" in reply:
            yield RecordedDraft(sample.seed.get("form", "recorded before"), reply["text"], reply["values"], sample.seed)


def iter_changed_values(draft: RecordedDraft) -> Iterator[dict[str, Any]]:
    """The values of a draft with one of them changed: a flag, a choice, a number, a day, a time or a text."""
    unsaid = {draft.seed.get("inferred", [None])[0]}
    for path, value in _iter_leaves(draft.values):
        if path[0] not in unsaid and (changed := _change(value, _find_choices(draft.seed["schema"], path))) is not None:
            yield _replace(draft.values, {path: changed})


def iter_swapped_values(draft: RecordedDraft) -> Iterator[dict[str, Any]]:
    """The values of a draft with a number or a flag exchanged between two neighbors of a list."""
    leaves = dict(_iter_leaves(draft.values))
    for path, value in leaves.items():
        places = [place for place, step in enumerate(path) if isinstance(step, int)]
        if not places or isinstance(value, str | None):
            continue
        other = (*path[: places[0]], path[places[0]] + 1, *path[places[0] + 1 :])
        if leaves.get(other) not in (None, value):
            yield _replace(draft.values, {path: leaves[other], other: value})


def _iter_leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    if isinstance(value, dict | list):
        for key, below in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _iter_leaves(below, (*path, key))
    else:
        yield path, value


def _replace(values: dict[str, Any], changes: dict[tuple[Any, ...], Any]) -> dict[str, Any]:
    changed = copy.deepcopy(values)
    for path, value in changes.items():
        holder: Any = changed
        for step in path[:-1]:
            holder = holder[step]
        holder[path[-1]] = value
    return changed


def _find_choices(schema: dict[str, Any], path: tuple[Any, ...]) -> list[str]:
    for step in path:
        schema = schema.get("items", {}) if isinstance(step, int) else schema.get("properties", {}).get(step, {})
    return [choice for choice in schema.get("enum", ()) if choice]


def _change(value: Any, choices: list[str]) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value * 10 + 7
    if not isinstance(value, str):
        return None
    if choices:
        return next(choice for choice in choices if choice != value)
    if re.fullmatch(r"\d{4}-\d\d-\d\d", value):
        return f"{value[:8]}{'27' if value[8:] != '27' else '26'}"
    return f"{value[:3]}07" if re.fullmatch(r"\d\d:\d\d", value) else f"{value} Smith"


def count_found(drafts: list[RecordedDraft]) -> dict[str, list[int]]:
    """By form: drafts, sound ones refused, changed values, those found, swapped values, those found."""
    counts: dict[str, list[int]] = defaultdict(lambda: [0] * 6)
    for draft in drafts:
        changed, swapped = (
            [bool(draft.find_faults(one)) for one in some(draft)] for some in (iter_changed_values, iter_swapped_values)
        )
        found = (1, bool(draft.find_faults(draft.values)), len(changed), sum(changed), len(swapped), sum(swapped))
        counts[draft.form] = [before + more for before, more in zip(counts[draft.form], found, strict=True)]
    return dict(counts)


def count_lost_values(drafts: list[RecordedDraft]) -> tuple[int, int, int]:
    """Scans, those that differ from their text by more than line ends, and those whose values have a fault."""
    scans = changed = lost = 0
    for draft in drafts:
        kept = list_protected_texts(draft.values, draft.seed["schema"], "")
        for number in range(NOISES):
            scan = add_scan_noise(draft.text, kept, Random(number))
            scans += 1
            changed += scan.split() != draft.text.split()
            lost += bool(draft.find_faults(draft.values, scan))
    return scans, changed, lost


def measure_variety(settings: list[str], seed: int) -> float:
    """The effective number (Vendi score of all-MiniLM-L6-v2) of the first requests of a run."""
    plan = load_recipe_plan("extraction", [f"samples={COMPARED}", f"seed={seed}", *settings])
    seeds: list[Any] = RunSeeds(plan, "0" * 64)[:]
    return vendi_score(embed_texts([plan.family.prompt_values(one)["wish"] for one in seeds[:COMPARED]]))


def format_tables(seeds: list[int]) -> str:
    scenes, recorded = (
        list(read_drafts(RECORDINGS / path)) for path in ("scenes/extraction.jsonl", "extraction.jsonl")
    )
    lines = [
        "| form | drafts | refused | changed values found | swapped numbers and flags found |",
        "|---|---:|---:|---:|---:|",
    ]
    for form, (drafts, refused, changed, found, swapped, seen) in count_found([*scenes, *recorded]).items():
        lines.append(f"| {form} | {drafts} | {refused} | {found} of {changed} | {seen} of {swapped} |")
    scans, changed, lost = count_lost_values([*scenes, *recorded])
    lines += ["", f"{scans} scans, {changed} with other words, {lost} with a fault in their values.", ""]
    lines += [f"| in the request | effective number of {COMPARED}, seeds {', '.join(map(str, seeds))} |", "|---|---:|"]
    for name, settings in SETTINGS.items():
        lines.append(f"| {name} | {', '.join(f'{measure_variety(settings, seed):.1f}' for seed in seeds)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[7, 8, 9])
    sys.stdout.write(f"{describe_measurement()}\n\n{format_tables(parser.parse_args().seeds)}\n")


if __name__ == "__main__":
    main()
