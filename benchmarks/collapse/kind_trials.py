"""Trials of the collapse gate on data that is not English prose: real against real, and output of a model of such data.

Each trial is one line of JSON in `<folder>/kind_trials/<corpus>-<units>.jsonl`, with every metric, so that the table of
`filters.collapse.text_kinds` can be studied without measuring again. Decides nothing: `benchmarks.collapse.kinds` does.
"""

import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from benchmarks.collapse.generators import Texts, generate_texts
from benchmarks.collapse.other_corpora import OTHER_CORPORA, load_other_corpus
from filters.base import Document
from filters.collapse.assessment import compare_with_reference
from filters.collapse.collapse_metrics import METRIC_NAMES
from filters.collapse.matched_samples import WORD_PATTERN, TokenCorpus, split_into_words
from filters.collapse.reference_corpus import ReferenceCorpus
from filters.collapse.repetition import assess_repetition
from filters.collapse.text_kinds import (
    ARITHMETIC_TOKEN,
    CODE_TOKEN,
    MAX_CHARACTERS,
    REPETITION_SHARES,
    SIGNS,
    TEXT_KINDS,
    TextKind,
    extract_code,
    iterate_fields,
    read_turns,
    round_number,
    spell_field,
    spell_token,
    split_into_tokens,
)
from filters.text_normalization import SPACELESS, is_spaceless

Ints = npt.NDArray[np.int64]

SIZES = (500, 1_000, 2_000)
SPLITS = 4
CANDIDATES = 12
"""Real candidates of one size from one split of a corpus."""
REFERENCE_RATIO = 4
"""Documents of the reference per document of a real candidate."""
MAX_TRAIN = 4_000
MAX_REFERENCE = 8_000
REGIMES = {"replace": 2, "truncated": 1, "filtered": 1}
"""Generations by regime."""
GENERATED_SIZE = 1_000

REPETITION_SIZES = (50, 500, 2_000)
MAX_REPETITION_TRIALS = 8

# Units that were tried, and found less of a collapse than those of the kinds.

NAME_PART = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+|_+|\w")


def split_into_characters(text: str) -> list[str]:
    """Single characters of scripts without spaces; other words whole, in lower case."""
    return [unit for run in WORD_PATTERN.findall(text.lower()) for unit in (run if is_spaceless(run) else [run])]


def split_into_name_parts(text: str) -> list[str]:
    """Tokens of code, names in parts: `read_file` and `readFile` are `read`, `file`."""
    return [
        part
        for found in CODE_TOKEN.finditer(extract_code(text))
        if found.lastgroup
        for part in (
            [part.lower() for part in NAME_PART.findall(found.group()) if part.strip("_")]
            if found.lastgroup == "name"
            else [spell_token(found)]
        )
    ]


def split_into_exact_fields(text: str) -> list[str]:
    """As `split_into_fields`, with numbers as they are."""
    return [
        unit
        for field in iterate_fields(text)
        for unit in (
            [f"{field.path}={field.value}"]
            if isinstance(field.value, int | float) and not isinstance(field.value, bool)
            else spell_field(field)
        )
    ]


def split_into_rounded_operations(text: str) -> list[str]:
    """Numbers, operators and words in order, large numbers rounded."""
    return [
        round_number(token.replace(",", "")) if token[0].isdigit() else SIGNS.get(token, token.lower())
        for token in ARITHMETIC_TOKEN.findall(text[:MAX_CHARACTERS])
    ]


UNITS: dict[str, dict[str, Callable[[str], list[str]]]] = {
    "code": {"parts of names": split_into_name_parts},
    "json": {"exact numbers": split_into_exact_fields},
    "arithmetic": {"rounded numbers": split_into_rounded_operations},
    "characters": {"single characters": split_into_characters},
}
"""By kind: other units than its own, which the corpora in `UNIT_CORPORA` are also counted in."""
UNIT_CORPORA = ("code_library", "records_packages", "sums_drawn", "sums_solutions", "chinese_manual")


class TrialCorpus(NamedTuple):
    name: str
    kind: TextKind
    texts: list[str]


def load_trial_corpora(names: Sequence[str], folder: Path) -> Iterator[TrialCorpus]:
    """The corpora, of dialogues the turns of each role, without repeated turns."""
    for name in names:
        kind, texts = OTHER_CORPORA[name].kind, load_other_corpus(name, folder)
        if kind != "dialogue":
            yield TrialCorpus(name, _measure_everything(TEXT_KINDS[kind]), texts)
            continue
        turns = [read_turns(text) for text in texts]
        for role in ("user", "assistant"):
            found = dict.fromkeys(text for by_role in turns for text in by_role.get(role, ()) if text.count(" ") > 1)
            yield TrialCorpus(f"{name}_{role}", _measure_everything(TEXT_KINDS[kind]), list(found))


def _measure_everything(kind: TextKind) -> TextKind:
    return kind._replace(metrics=frozenset(METRIC_NAMES))


# Units of the generator: all that is written of a text, so that the text can be written again from them.

SPACELESS_UNIT = re.compile(f"[{SPACELESS}]|[^\\W{SPACELESS}]+|[^\\w\\s]")
OPERATION_UNIT = re.compile(r"\d+(?:,\d{3})*(?:\.\d+)?|[^\W\d_]+|[-+*/×÷−=()%^<>]|\n")


def split_for_generator(text: str, kind: str) -> list[str]:
    match kind:
        case "code":
            return split_into_tokens(text)
        case "characters":
            return SPACELESS_UNIT.findall(text.lower())
        case "arithmetic":
            return OPERATION_UNIT.findall(text)
        case "json":
            return [line for path, value in iterate_fields(text) for line in _write_field(path[1:], value)]
    return split_into_words(text)


def _write_field(name: str, value: Any) -> list[str]:
    words = split_into_words(value) if isinstance(value, str) and len(value.split()) > 3 else [value]
    return [json.dumps({name: word}) for word in words]


def join_generated(units: Sequence[str], kind: str) -> str:
    text = ("\n" if kind == "json" else " ").join(units)
    # Words need a space between them, Chinese characters none.
    return re.sub(rf"(?<=[^\w]|[{SPACELESS}]) | (?=[^\w]|[{SPACELESS}])", "", text) if kind == "characters" else text


def generate_documents(texts: Sequence[str], kind: str, seed: int) -> Iterator[tuple[str, int, list[str]]]:
    """Regime, generation and documents written by a model of the texts; last, the texts drawn with replacement from half."""
    vocabulary: dict[str, int] = {}
    found = TokenCorpus.from_words([split_for_generator(text, kind) for text in texts], vocabulary)
    spelled = list(vocabulary)
    for regime, generations in REGIMES.items():
        written = generate_texts(Texts(found.ids, found.lengths), regime, generations, seed)
        for generation, made in enumerate(written, 1):
            parts = np.split(made.ids, np.cumsum(made.lengths)[:-1])
            yield regime, generation, [join_generated([spelled[i] for i in part], kind) for part in parts]
    random = np.random.default_rng(seed)
    yield "doubled", 1, [texts[i] for i in random.integers(0, len(texts) // 2, len(texts))]


# Trials


def run_trial(texts: Sequence[str], reference: ReferenceCorpus, folder: Path, **about: Any) -> dict[str, Any]:
    compared = compare_with_reference(reference.number_texts(texts), reference, seed=len(texts), cache=folder / "nulls")
    if compared is None:
        return {**about, "n": len(texts), "documents": 0}
    seen = compared.evidence
    return {
        **about, "n": len(texts), "documents": seen.documents, "topics": round(seen.topics, 2),
        **{name: {key: round(value, 5) for key, value in getattr(seen, name).items()} for name in ("z", "change", "real")},
    }  # fmt: skip


def real_trials(corpus: TrialCorpus, folder: Path) -> Iterator[dict[str, Any]]:
    """Random splits of the corpus into a reference and disjoint candidates."""
    for size in SIZES:
        count = min(CANDIDATES, len(corpus.texts) // size - 3)
        if count < 1:
            continue
        for split in range(SPLITS if count == CANDIDATES else 2 * SPLITS):
            order = np.random.default_rng([size, split]).permutation(len(corpus.texts))
            shuffled = [corpus.texts[i] for i in order]
            rest = shuffled[count * size :][: REFERENCE_RATIO * size]
            reference = ReferenceCorpus.from_texts(rest, corpus.name, corpus.kind)
            for part in range(count):
                candidate = shuffled[part * size : (part + 1) * size]
                yield run_trial(candidate, reference, folder, trial="real", size=size, split=split, part=part)


def generated_trials(corpus: TrialCorpus, folder: Path) -> Iterator[dict[str, Any]]:
    train = min(MAX_TRAIN, len(corpus.texts) * 2 // 5)
    reference = ReferenceCorpus.from_texts(corpus.texts[train:][:MAX_REFERENCE], corpus.name, corpus.kind)
    for regime, generation, texts in generate_documents(corpus.texts[:train], corpus.kind.name, seed=1):
        size = GENERATED_SIZE if min(train, len(reference.corpus) // 3) >= GENERATED_SIZE else SIZES[0]
        yield run_trial(texts[:size], reference, folder, trial=regime, generation=generation, size=size)


def repetition_trials(corpus: TrialCorpus, folder: Path) -> Iterator[dict[str, Any]]:
    """Real data without a reference: the shares of repetition that are over their limits."""
    kind = corpus.kind._replace(repetition=REPETITION_SHARES)
    for size in REPETITION_SIZES:
        for part in range(min(MAX_REPETITION_TRIALS, len(corpus.texts) // size)):
            texts = corpus.texts[part * size : (part + 1) * size]
            record = assess_repetition([Document(str(i), text) for i, text in enumerate(texts)], seed=1, kind=kind)
            over = [metric.name for metric in record.metrics if any(metric.name in text for text in record.evidence)]
            yield {"trial": "repetition", "size": size, "part": part, "over": over}


def run_kind_trials(names: Sequence[str], folder: Path) -> None:
    """Run the missing trials."""
    (folder / "kind_trials").mkdir(parents=True, exist_ok=True)
    for corpus in load_trial_corpora(names, folder):
        others = UNITS[corpus.kind.name] if corpus.name in UNIT_CORPORA else {}
        for units, split in {"own": corpus.kind.split, **others}.items():
            path = folder / "kind_trials" / f"{corpus.name}-{units.replace(' ', '_')}.jsonl"
            if path.exists():
                continue
            counted = corpus._replace(kind=corpus.kind._replace(split=split))
            unfinished = path.with_suffix(".partial")
            with unfinished.open("w", encoding="utf-8") as file:
                for run in (real_trials, generated_trials, repetition_trials):
                    for trial in run(counted, folder):
                        about = {"corpus": corpus.name, "kind": corpus.kind.name, "units": units}
                        file.write(json.dumps({**about, **trial}) + "\n")
                        file.flush()
            unfinished.rename(path)


def main() -> None:
    """`python -m benchmarks.collapse.kind_trials FOLDER [CORPUS ...]`"""
    run_kind_trials(sys.argv[2:] or list(OTHER_CORPORA), Path(sys.argv[1]))


if __name__ == "__main__":
    main()
