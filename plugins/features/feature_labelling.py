"""Labels of a dictionary's features: evidence from the reference, the teacher's answers, and `labels.jsonl` in its folder."""

import asyncio
import json
import random
from collections.abc import Iterable, Sequence
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING

from core.errors import UsageError
from core.storage.atomic_files import write_text
from flows.terminal.console import SESSION
from plugins.features.feature_gaps_report import FeatureGap, MarkedPassage, mark_passage_text
from plugins.features.lacking_features import PooledFeatures, find_strongest_documents

if TYPE_CHECKING:
    from agents.planning.run_plan import RunPlan
    from plugins.features.dictionaries.activation_reader import EncodedText
    from plugins.features.dictionaries.document_features import FeatureReader
    from plugins.features.feature_labels import FeatureEvidence, FeatureLabel

LABELS_FILE = "labels.jsonl"
HELD_OUT = 10
"""Held-out passages with the feature, and as many without it."""


def read_labels(folder: Path) -> dict[int, "FeatureLabel"]:
    """The labels of a dictionary by feature, confirmed or not; the last one of a feature counts.

    Raises:
        UsageError: if the file is damaged.
    """
    file = folder / LABELS_FILE
    if not file.is_file():
        return {}
    from plugins.features.feature_labels import FeatureLabel

    try:
        labels = [FeatureLabel.model_validate_json(line) for line in file.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise UsageError(f"{file}: is damaged ({str(error).splitlines()[0]}); remove it") from None
    return {label.feature: label for label in labels}


def add_labels(folder: Path, labels: Sequence["FeatureLabel"]) -> None:
    """Raises StoreError if the file cannot be written."""
    merged = {**read_labels(folder), **{label.feature: label for label in labels}}
    lines = [json.dumps(label.model_dump(), ensure_ascii=False) + "\n" for label in merged.values()]
    write_text(folder / LABELS_FILE, "".join(lines))


def collect_evidence(
    gaps: Sequence[FeatureGap],
    reference: PooledFeatures,
    texts: Sequence[str],
    encoded: Sequence["EncodedText"],
    numbers: Sequence[int],
    reader: "FeatureReader",
) -> list["FeatureEvidence"]:
    """The passages from which a teacher explains each gap, and those by which its label is scored. A feature with too few is left
    out. Passages with the feature are the surroundings of its strongest token; those without it are from the same parts of their
    texts, so that position tells nothing.

    Args:
        gaps: the features to explain.
        reference: the features that are present in `texts`.
        texts: the documents of the reference as far as they were compared: a feature may be present after that.
        encoded: the tokens of `texts`.
        numbers: their rows.
        reader: what the features are of.
    """
    from plugins.features.feature_labels import FeatureEvidence

    place_of = {number: place for place, number in enumerate(numbers)}
    evidence = []
    for gap in gaps:
        shown = {place_of[passage.number]: passage for passage in gap.passages}
        ordered = find_strongest_documents(reference, gap.feature, len(reference))
        rest = [place for place in ordered if place not in shown]
        step = max(1, len(rest) // HELD_OUT)
        held_out = rest[::step][:HELD_OUT]
        without = sorted(set(range(len(texts))) - set(ordered))
        random.Random(gap.feature).shuffle(without)
        if len(held_out) < HELD_OUT or len(without) < 2 * HELD_OUT:
            continue
        strongest = {place: passage.strongest for place, passage in shown.items()}
        located = reader.locate([encoded[place] for place in held_out], [gap.feature] * len(held_out))
        for place, values in zip(held_out, located, strict=True):
            strongest[place] = encoded[place].spans[int(values.argmax())][0]

        def cut_alike(places: Sequence[int], others: Iterable[int], strongest: dict[int, int] = strongest) -> list[str]:
            """Passages without the feature, each from the part of its text where it is in another one."""
            return [
                _cut_around(texts[place], strongest[other] * len(texts[place]) // len(texts[other]))
                for place, other in zip(places, others, strict=False)
            ]

        marked = [passage.model_copy(update={"text": texts[place]}) for place, passage in shown.items()]
        evidence.append(
            FeatureEvidence(
                feature=gap.feature,
                active=list(map(mark_passage_text, marked)),
                inactive=cut_alike(without[:HELD_OUT], cycle(shown)),
                held_out_active=[_cut_around(texts[place], strongest[place]) for place in held_out],
                held_out_inactive=cut_alike(without[HELD_OUT : 2 * HELD_OUT], held_out),
            )
        )
    return evidence


def _cut_around(text: str, character: int) -> str:
    return mark_passage_text(MarkedPassage(text=text, marks=[], strongest=character, number=1))


def label_by_teacher(evidence: Sequence["FeatureEvidence"], plan: "RunPlan", folder: Path, cache: Path | None) -> None:
    """Ask the plan's generator teacher, and store its labels in the dictionary's folder.

    Raises:
        RunStopped, StillhouseError: as `label_features`.
    """
    from plugins.features.feature_labels import label_features

    if evidence:
        labels = asyncio.run(label_features(plan, evidence, SESSION.stop, cache, SESSION.print_message))
        add_labels(folder, labels)
