"""The collapse assessment of dialogues: the turns of the user and those of the assistant are assessed apart, and the worse
verdict counts. A turn is a document. Knows no metric.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from core.runs.records import CollapseRecord, CollapseVerdict
from filters.base import Document
from filters.collapse.assessment import assess_corpus, build_mismatch_record
from filters.collapse.reference_corpus import ReferenceCorpus
from filters.collapse.repetition import assess_repetition
from filters.collapse.text_kinds import TEXT_KINDS, Turns, find_kind

DIALOGUE = TEXT_KINDS["dialogue"]
ROLES = ("user", "assistant")


def assess_dialogues(
    candidate: Sequence[Turns],
    reference: Sequence[Turns],
    *,
    name: str,
    seed: int,
    cache: Path | None = None,
    before: Sequence[CollapseRecord] = (),
    generated: bool = True,
) -> CollapseRecord:
    """`filters.collapse.assessment.assess_texts` for dialogues, each as its turns by role."""
    records = {}
    sides = list_role_turns(candidate), list_role_turns(reference)
    for role in ROLES:
        own, real = (side[role] for side in sides)
        if own and real:
            corpus = ReferenceCorpus.from_texts(real, name, DIALOGUE)
            earlier = [record for record in before if record.turns == role]
            records[role] = assess_corpus(
                corpus.number_texts(own), corpus, seed=seed, cache=cache, before=earlier, generated=generated
            )
    if not records:
        texts = [turn for turns in reference for spoken in turns.values() for turn in spoken]
        return build_mismatch_record(DIALOGUE, find_kind(texts), name)
    return _choose_worse(records)


def list_role_turns(dialogues: Sequence[Turns]) -> dict[str, list[str]]:
    """The turns of each role, over all dialogues."""
    return {role: [turn for turns in dialogues for turn in turns.get(role, ())] for role in ROLES}


def assess_dialogue_repetition(
    documents: Sequence[Document], *, seed: int, seeds: Sequence[Mapping[str, Any]] = (), few_structures: bool = False
) -> CollapseRecord:
    """Repetition among the answers, and among the user's turns."""
    asked = [Document(document.id, document.asked) for document in documents]
    sides = {"user": asked, "assistant": documents}
    return _choose_worse(
        {
            role: assess_repetition(side, seed=seed, kind=DIALOGUE, seeds=seeds, few_structures=few_structures)
            for role, side in sides.items()
        }
    )


def _choose_worse(records: Mapping[str, CollapseRecord]) -> CollapseRecord:
    """The record with the worse verdict, with the findings of all."""
    gravity = list(CollapseVerdict)
    order = sorted(records, key=lambda role: gravity.index(records[role].verdict))
    worst = records[order[0]]
    return worst.model_copy(
        update={
            "turns": order[0],
            "evidence": [f"{role} turns: {sentence}" for role in order for sentence in records[role].evidence],
            "roles": {role: record.verdict for role, record in records.items()},
        }
    )
