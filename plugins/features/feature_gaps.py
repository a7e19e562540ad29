"""`stillhouse feature-gaps`: features that real text has and a dataset lacks, with passages and seeds."""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from core.errors import UsageError
from core.storage.atomic_files import write_text
from filters.collapse.matched_samples import match_lengths, split_into_words
from flows.data.reference_files import load_reference
from flows.rows.dataset_rows import read_dataset_documents
from flows.terminal.text_format import format_count
from plugins.features.coverage_gaps import MIN_GAP_DOCUMENTS
from plugins.features.dataset_gaps import PASSAGE_WORDS, WORDS_PER_TOPIC, read_answer_turns
from plugins.features.feature_dictionary import open_feature_reader
from plugins.features.feature_gaps_report import (
    MOST_SHOWN_FEATURES,
    FeatureGap,
    FeatureGapsReport,
    MarkedPassage,
    RandomGaps,
)
from plugins.features.feature_labelling import collect_evidence, read_labels
from plugins.features.lacking_features import (
    FeatureGapsFound,
    PooledFeatures,
    choose_examples,
    choose_gap_documents,
    compute_matched_thresholds,
    compute_thresholds,
    find_feature_gaps,
    find_strongest_documents,
)
from plugins.features.requested_features import FEATURE_KEY, SeedFeature

if TYPE_CHECKING:
    from plugins.features.dictionaries.activation_reader import EncodedText
    from plugins.features.dictionaries.document_features import BothFeatures, FeatureReader
    from plugins.features.feature_labels import FeatureEvidence

DEFAULT_DOCUMENTS = 2_000
"""The most documents of a side: the model reads a few hundred tokens a second on one processor."""
MOST_DESCRIBED = 50
"""Lacking features that get passages."""
PASSAGES = 10
"""Passages from which a feature's tokens are counted, as in delphi (Paulo et al. 2024, arXiv 2410.13928)."""
ACTIVE_SHARE = 0.3
"""A token is marked from this share of the strongest activation in its passage on."""
LISTED_TOKENS = 5
EXAMPLES = 2
"""Other passages with the feature of a seed: with its own, enough to show a small model a form that no instruction names."""
WORD_SHARE = 0.9
"""A feature is one word if that share of its tokens is."""


class DocumentSide(NamedTuple):
    """Documents of one side of a comparison."""

    texts: list[str]
    numbers: list[int]
    """Their rows, from 1 on."""

    @classmethod
    def space_out(cls, texts: Sequence[str], most: int) -> Self:
        """At most `most` of the texts that are not empty, evenly spaced."""
        rows = [(number, text) for number, text in enumerate(texts, 1) if text.strip()]
        rows = [rows[i * len(rows) // most] for i in range(most)] if len(rows) > most else rows
        return cls([text for _, text in rows], [number for number, _ in rows])


class Comparison(NamedTuple):
    """Two sides by their features, at equal lengths."""

    own: "BothFeatures"
    reference: "BothFeatures"
    report: FeatureGapsReport
    seeds: list[dict[str, object]]


def find_dataset_feature_gaps(
    source: Path,
    reference: str,
    features: Path,
    out: Path | None,
    number: int,
    documents: int = DEFAULT_DOCUMENTS,
    progress: Callable[[str], None] = lambda _message: None,
    explain: Callable[[list["FeatureEvidence"]], None] | None = None,
) -> FeatureGapsReport:
    """Compare at most `documents` of each side, evenly spaced, and write at most `number` seeds to `out`. `explain` may add
    labels of features that have none to the dictionary's folder.

    Raises:
        UsageError: if a text or the dictionary cannot be read, a side is too small, or `out` exists.
    """
    if out and out.exists():
        raise UsageError(f"{out}: exists already; name another file, or remove it")
    real = DocumentSide.space_out(list(map(read_answer_turns, load_reference(reference, Path.cwd()).texts)), documents)
    own = DocumentSide.space_out(
        [read_answer_turns(document.text) for document in read_dataset_documents(source)], documents
    )
    reader = open_feature_reader(features)
    compared = compare_sides(own, real, reader, features, (str(source), reference), number, progress, explain)
    if out is None:
        return compared.report
    write_seeds(out, compared.seeds)
    return compared.report.model_copy(update={"seeds": len(compared.seeds), "out": str(out)})


def compare_sides(
    own: DocumentSide,
    real: DocumentSide,
    reader: "FeatureReader",
    folder: Path,
    names: tuple[str, str],
    number: int,
    progress: Callable[[str], None] = lambda _message: None,
    explain: Callable[[list["FeatureEvidence"]], None] | None = None,
) -> Comparison:
    """Compare a dataset with real text. `folder` is the dictionary's, which has its labels; `names` are those of both sides;
    `number` is the most seeds.

    Raises:
        UsageError: if a side is too small.
    """
    if min(len(own.texts), len(real.texts)) < MIN_GAP_DOCUMENTS:
        raise UsageError(
            f"{names[0]}: {format_count(len(own.texts), 'document')} and {len(real.texts)} of {names[1]} are too few to compare; "
            f"both need {MIN_GAP_DOCUMENTS} with text in them"
        )
    encoded = [reader.encode(side.texts) for side in (own, real)]
    cuts = match_lengths(*(np.array([len(text.ids) for text in side], dtype=np.int64) for side in encoded))
    ours, theirs = (
        reader.pool(truncate_texts(side, cut), _count_tokens(progress, name, int(cut.sum())))
        for side, cut, name in zip(encoded, cuts, ("dataset", "reference"), strict=True)
    )
    found, present = _compare_features(ours, theirs)
    shown = truncate_texts(encoded[1], cuts[1])
    gaps = _describe_gaps(found, present, real, shown, reader)
    if explain:
        known = read_labels(folder)
        unknown = [gap for gap in gaps[:MOST_SHOWN_FEATURES] if gap.feature not in known]
        explain(collect_evidence(unknown, present.reference, cut_texts(real.texts, shown), shown, real.numbers, reader))
    labels = {label.feature: label.label for label in read_labels(folder).values() if label.is_confirmed}
    gaps = [gap.model_copy(update={"label": labels.get(gap.feature)}) for gap in gaps]
    seeds = _build_seeds(found, present, real, shown, reader, number, Path(names[1]).name)
    record = reader.dictionary
    report = FeatureGapsReport(
        dataset=names[0], reference=names[1], dictionary=str(folder), model=record.reader.model, layer=record.reader.layer,
        explained_variance=record.training.explained_variance, documents=len(own.texts), real_documents=len(real.texts),
        tokens=int(cuts[0].sum()), real_tokens=int(cuts[1].sum()), tested=found.tested, known_share=found.known_share, gaps=gaps,
        random=_find_random_gaps(ours.random, theirs.random, present.reference), seeds=0, starts=len(seeds), out=None,
    )  # fmt: skip
    return Comparison(ours, theirs, report, seeds)


def write_seeds(path: Path, seeds: Sequence[dict[str, object]]) -> None:
    write_text(path, "".join(json.dumps(seed, ensure_ascii=False) + "\n" for seed in seeds))


class PresentFeatures(NamedTuple):
    """The features that are present in the documents of the reference, and where that begins."""

    reference: PooledFeatures
    thresholds: npt.NDArray[np.float64]


def _compare_features(own: "BothFeatures", reference: "BothFeatures") -> tuple[FeatureGapsFound, PresentFeatures]:
    """The gaps of the first side by the learned dictionary."""
    thresholds = compute_thresholds(reference.learned)
    present = PresentFeatures(reference.learned.keep_present(thresholds), thresholds)
    return find_feature_gaps(own.learned.keep_present(thresholds), present.reference, thresholds), present


def _find_random_gaps(own: PooledFeatures, reference: PooledFeatures, learned: PooledFeatures) -> RandomGaps:
    """The gaps of the first side by the random dictionary. In the reference, its features are as frequent as the learned ones."""
    thresholds = compute_matched_thresholds(reference, learned)
    found = find_feature_gaps(own.keep_present(thresholds), reference.keep_present(thresholds), thresholds)
    lacking = found.lacking
    if not lacking.places.size:
        return RandomGaps(tested=found.tested, gaps=0)
    here, real = float(lacking.here[0]), float(lacking.real[0])
    return RandomGaps(tested=found.tested, gaps=int(lacking.places.size), here=here, real=real)


def truncate_texts(texts: Sequence["EncodedText"], cuts: npt.NDArray[np.int64]) -> list["EncodedText"]:
    """The first tokens of each text. A model reads from left to right, so no earlier activation changes."""
    return [text._replace(ids=text.ids[:cut], spans=text.spans[:cut]) for text, cut in zip(texts, cuts, strict=True)]


def cut_texts(texts: Sequence[str], encoded: Sequence["EncodedText"]) -> list[str]:
    """Each text up to the end of its last token in `encoded`."""
    return [text[: part.spans[-1][1] if part.spans else 0] for text, part in zip(texts, encoded, strict=True)]


def _count_tokens(progress: Callable[[str], None], name: str, total: int) -> Callable[[int], None]:
    return lambda done: progress(f"features of the {name}: {done:,} of {total:,} tokens read")


def _describe_gaps(
    found: FeatureGapsFound, present: PresentFeatures, real: DocumentSide, encoded: Sequence["EncodedText"],
    reader: "FeatureReader",
) -> list[FeatureGap]:  # fmt: skip
    """The lacking features with the passages of the reference where they are most active. The model reads these once more."""
    described = [int(latent) for latent in found.lacking.places[:MOST_DESCRIBED]]
    pairs = [
        (latent, place)
        for latent in described
        for place in find_strongest_documents(present.reference, latent, PASSAGES)
    ]
    located = reader.locate([encoded[place] for _, place in pairs], [latent for latent, _ in pairs])
    passages: dict[int, list[MarkedPassage]] = {latent: [] for latent in described}
    counts: dict[int, Counter[str]] = {latent: Counter() for latent in described}
    for (latent, place), values in zip(pairs, located, strict=True):
        passage = _mark_passage(real.texts[place], encoded[place], values, real.numbers[place])
        passages[latent].append(passage)
        counts[latent].update(passage.text[a:b].strip() for a, b in passage.marks)
    gaps = []
    for latent, here, share in zip(*(part.tolist() for part in found.lacking), strict=True):
        tokens = [token for token, _ in counts.get(latent, Counter()).most_common(LISTED_TOKENS) if token]
        total = sum(counts.get(latent, Counter()).values())
        single = tokens and counts[latent][tokens[0]] >= WORD_SHARE * total and tokens[0].isalpha()
        gaps.append(
            FeatureGap(
                feature=latent, here=here, real=share, tokens=tokens, word=tokens[0] if single else None,
                passages=passages.get(latent, []),
            )
        )  # fmt: skip
    return gaps


def _mark_passage(text: str, encoded: "EncodedText", values: npt.NDArray[np.float32], number: int) -> MarkedPassage:
    """The text with its active tokens, from the activation of each token."""
    limit = ACTIVE_SHARE * float(values.max(initial=0))
    active = np.flatnonzero((values >= limit) & (values > 0))
    strongest = encoded.spans[int(values.argmax())][0] if active.size else 0
    marks: list[tuple[int, int]] = []
    for start, end in (encoded.spans[place] for place in active):
        if start >= (marks[-1][1] if marks else 0) and end > start:  # tokens of one character have one span
            marks.append((start, end))
    return MarkedPassage(text=text, marks=marks, strongest=strongest, number=number)


def _build_seeds(
    found: FeatureGapsFound, present: PresentFeatures, real: DocumentSide, encoded: Sequence["EncodedText"],
    reader: "FeatureReader", number: int, name: str,
) -> list[dict[str, object]]:  # fmt: skip
    """Seeds with every field that a family needs: topic, words and passage; and the feature that a sample is to show."""
    chosen = choose_gap_documents(present.reference, found.lacking, number)
    if not chosen:
        return []
    wanted = [int(latents[0]) for _, latents in chosen]
    texts = [encoded[place] for place, _ in chosen]
    documents = Counter(word for text in real.texts for word in set(split_into_words(text)))
    seeds = []
    for (place, _), latent, values in zip(chosen, wanted, reader.locate(texts, wanted), strict=True):
        examples = choose_examples(present.reference, latent, place, EXAMPLES)
        text = real.texts[place]
        passage = _mark_passage(text, encoded[place], values, real.numbers[place])
        words = [text[slice(*_widen(text, *mark))].strip() for mark in passage.marks]
        rare = sorted(
            {word for word in split_into_words(text) if word.isalpha()}, key=lambda word: (documents[word], word)
        )
        subject = [word for word in rare if documents[word] > 1][:WORDS_PER_TOPIC] or rare[:WORDS_PER_TOPIC]
        seeds.append(
            {
                "topic": " and ".join(filter(None, (", ".join(subject[:-1]), subject[-1]))) if subject else text[:40],
                "category": f"feature {latent}",
                "words": list(dict.fromkeys(word for word in words if word)) or subject,
                "text": _shorten_passage(text),
                "examples": "\n\n".join(_shorten_passage(real.texts[other]) for other in examples),
                FEATURE_KEY: SeedFeature(
                    id=latent, threshold=float(present.thresholds[latent]), dictionary=reader.dictionary.digest
                ).model_dump(),
                "source": name,
                "number": real.numbers[place],
            }
        )
    return seeds


def _shorten_passage(text: str) -> str:
    parts = text.split()
    return " ".join(parts[:PASSAGE_WORDS]) if len(parts) > PASSAGE_WORDS else text


def _widen(text: str, start: int, end: int) -> tuple[int, int]:
    """The word in which the characters are, up to white space."""
    while start < end and text[start].isspace():
        start += 1
    while start > 0 and not text[start - 1].isspace():
        start -= 1
    while end < len(text) and not text[end].isspace():
        end += 1
    return start, end
