"""How often few structures are found in real data of each kind, where they must not be, and in data of few templates, where they
should be, without a reference. Says for both what the shares of repetition find alone.

Each trial is one line of JSON in `<folder>/structure_trials/<corpus>.jsonl`. Draws of one corpus overlap.
"""

import ast
import json
import random
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.collapse.corpora import CORPUS_READERS, load_corpus
from benchmarks.collapse.kind_trials import TrialCorpus, load_trial_corpora
from benchmarks.collapse.other_corpora import OTHER_CORPORA
from benchmarks.collapse.tables import FOLDER, UPPER, format_table
from benchmarks.machine import describe_measurement
from core.intervals import wilson_bound
from filters.base import Document
from filters.collapse.repetition import assess_repetition
from filters.collapse.text_kinds import TEXT_KINDS, iterate_fields

Row = dict[str, Any]
Draw = Sequence[str]

SIZES = (100, 500, 1_000, 2_000)
DRAWS_PER_KIND = 120
"""Real draws of one size and kind, over its corpora: 480 per kind."""
MADE_DRAWS_PER_KIND = 12
STRUCTURES = {"few": 5, "several": 10, "many": 100}
"""Structures of what should be found, and of what must not be."""
SUM_STRUCTURES = {"few": 2, "several": 5, "many": 100}
"""The same of arithmetic."""
FRAME_WORDS = 50
"""The most frequent words of a corpus, which a template keeps; other words are replaced."""
FEW_WORDS = 40
"""Different words that fill the templates of one trial."""
LANGUAGE_CORPUS = "records_languages"


def load_structure_corpora() -> Iterator[TrialCorpus]:
    """All corpora with the kind as shipped; of the records of codes, those of languages also alone: four short fields, of which
    two are nearly constant.
    """
    for name in CORPUS_READERS:
        yield TrialCorpus(name, TEXT_KINDS["prose"], load_corpus(name, FOLDER))
    for corpus in load_trial_corpora(list(OTHER_CORPORA), FOLDER):
        kind = TEXT_KINDS[corpus.kind.name]
        yield TrialCorpus(corpus.name, kind, corpus.texts)
        if corpus.name == "records_codes":
            yield TrialCorpus(LANGUAGE_CORPUS, kind, [text for text in corpus.texts if '"scope"' in text])


# Data of few structures


def fill_words(
    texts: Draw, count: int, size: int, corpus: TrialCorpus, rng: random.Random, words: int | None = None
) -> list[str]:
    """The frames of `count` texts, each with other words of the corpus between its frequent ones, or with a few of them."""
    unit = re.compile(r"[^\W\d_]" if corpus.kind.name == "characters" else r"\w+(?:['’]\w+)*")
    found = Counter(word for text in corpus.texts[:3_000] for word in unit.findall(text.lower()))
    frame = {word for word, _ in found.most_common(FRAME_WORDS)}
    others = sorted(found.keys() - frame)
    others = rng.sample(others, words or len(others))
    chosen = [text for text in texts if sum(word in frame for word in unit.findall(text.lower())) >= 5][:count]
    return [
        unit.sub(lambda match: match[0] if match[0].lower() in frame else rng.choice(others), rng.choice(chosen))
        for _ in range(size)
    ]


class _Renamer(ast.NodeTransformer):
    """Gives variables, arguments, functions and constants of a program new names and values."""

    def __init__(self, rng: random.Random, names: Sequence[str]) -> None:
        self.rng, self.names = rng, names
        self.given: dict[str, str] = {}

    def _rename(self, name: str) -> str:
        kept = name in dir(__builtins__) or name == "self"
        return name if kept else self.given.setdefault(name, self.rng.choice(self.names))

    def visit_Name(self, node: ast.Name) -> ast.AST:
        return ast.Name(self._rename(node.id), node.ctx)

    def visit_arg(self, node: ast.arg) -> ast.AST:
        return ast.arg(self._rename(node.arg))

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.name = self._rename(node.name)
        return self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        if isinstance(node.value, str):
            return ast.Constant(f"{self.rng.choice(self.names)} {self.rng.choice(self.names)}")
        return ast.Constant(self.rng.randint(2, 999)) if type(node.value) is int else node


def rename_code(texts: Draw, count: int, size: int, corpus: TrialCorpus, rng: random.Random) -> list[str]:
    """`count` functions of 8 to 60 lines, each with other names and constants."""
    names = sorted({name for text in corpus.texts[:2_000] for name in re.findall(r"\b[a-z][a-z_]{3,}\b", text)})
    shapes = [text for text in texts if text.startswith("def ") and 8 <= text.count("\n") <= 60][:count]
    made = []
    for _ in range(size):
        tree = ast.parse(rng.choice(shapes))
        made.append(ast.unparse(ast.fix_missing_locations(_Renamer(rng, names).visit(tree))))
    return made


def change_numbers(texts: Draw, count: int, size: int, corpus: TrialCorpus, rng: random.Random) -> list[str]:
    """`count` texts of two operations or more, each with other numbers."""
    outline, least = corpus.kind.outline, corpus.kind.least_outline
    assert outline
    shapes = [text for text in texts if len((outline(text) or "").split()) >= least][:count]
    return [re.sub(r"\d+", lambda _: str(rng.randint(2, 999)), rng.choice(shapes)) for _ in range(size)]


def fix_values(texts: Draw, count: int, size: int, corpus: TrialCorpus, rng: random.Random) -> list[str]:
    """The first field of each record, with all other values of one of `count` records that have at least four fields."""
    records = [json.loads(text) for text in texts]
    whole = [record for record in records if len(list(iterate_fields(json.dumps(record)))) >= 4][:count]
    made = []
    for number in range(size):
        shape = rng.choice(whole)
        first = next(iter(shape))
        made.append(json.dumps({**shape, first: f"{records[number % len(records)].get(first)} {number}"}))
    return made


Maker = Callable[[Draw, int, int, TrialCorpus, random.Random], list[str]]
MAKERS: dict[str, Maker] = {
    "code": rename_code, "json": fix_values, "arithmetic": change_numbers,
    "prose": fill_words, "dialogue": fill_words, "characters": fill_words,
}  # fmt: skip


# Trials


def assess_draw(texts: Draw, corpus: TrialCorpus) -> Row:
    documents = [Document(str(number), text) for number, text in enumerate(texts)]
    record = assess_repetition(documents, seed=1, kind=corpus.kind)
    metric = next(metric for metric in record.metrics if metric.name == "templates")
    return {
        "structure": "structure" in record.findings, "repetition": record.findings.get("repetition", []),
        "judged": metric.family is not None, "value": round(metric.candidate, 6), "interval": metric.interval,
    }  # fmt: skip


def run_corpus_trials(corpus: TrialCorpus, corpora: int) -> Iterator[Row]:
    """Real draws, then data of few and of many structures, with the draws of the kind divided over its corpora."""
    for size in SIZES:
        if len(corpus.texts) < size:
            continue
        for draw in range(-(-DRAWS_PER_KIND // corpora)):
            texts = random.Random(f"real {size} {draw}").sample(corpus.texts, size)
            yield {"trial": "real", "size": size, "draw": draw, **assess_draw(texts, corpus)}
        for draw in range(-(-MADE_DRAWS_PER_KIND // corpora)):
            rng = random.Random(f"made {size} {draw}")
            texts = rng.sample(corpus.texts, len(corpus.texts))[:5_000]
            counts = SUM_STRUCTURES if corpus.kind.name == "arithmetic" else STRUCTURES
            for trial, count in counts.items():
                made = MAKERS[corpus.kind.name](texts, count, size, corpus, rng)
                yield {"trial": trial, "size": size, "draw": draw, **assess_draw(made, corpus)}
            if MAKERS[corpus.kind.name] is fill_words:
                made = fill_words(texts, STRUCTURES["few"], size, corpus, rng, FEW_WORDS)
                yield {"trial": "words", "size": size, "draw": draw, **assess_draw(made, corpus)}


def run_structure_trials(names: Sequence[str], folder: Path) -> None:
    """Run the missing trials of the named corpora, or of all."""
    (folder / "structure_trials").mkdir(parents=True, exist_ok=True)
    corpora = list(load_structure_corpora())
    by_kind = Counter(corpus.kind.name for corpus in corpora)
    for corpus in corpora:
        path = folder / "structure_trials" / f"{corpus.name}.jsonl"
        if path.exists() or (names and corpus.name not in names):
            continue
        unfinished = path.with_suffix(".partial")
        with unfinished.open("w", encoding="utf-8") as file:
            for trial in run_corpus_trials(corpus, by_kind[corpus.kind.name]):
                file.write(json.dumps({"corpus": corpus.name, "kind": corpus.kind.name, **trial}) + "\n")
                file.flush()
        unfinished.rename(path)


# Tables


def table() -> str:
    """Run the missing trials in FOLDER and format all of them."""
    run_structure_trials([], FOLDER)
    files = sorted((FOLDER / "structure_trials").glob("*.jsonl"))
    rows = [json.loads(line) for file in files for line in file.read_text(encoding="utf-8").splitlines()]
    return "\n\n".join(
        [
            f"{describe_measurement()} `STILLHOUSE_CORPORA=FOLDER python -m benchmarks structure`",
            INTRODUCTION,
            "### Real data, which must not be called of few structures",
            format_real(rows),
            "### Data of few, several and many structures",
            format_made(rows),
        ]
    )


INTRODUCTION = f"""The probability that two different documents have the same structure, judged by the limits in
`filters/collapse/text_kinds.py`, without a reference. Draws of one corpus overlap: the upper ends are those of independent draws.
What was made: functions with other names and constants; records with the values of other records, all but the first field; sums
with other numbers; the {FRAME_WORDS} most frequent words of texts, with other words between them. *Few* are {STRUCTURES["few"]}
structures, *several* {STRUCTURES["several"]}, *many* {STRUCTURES["many"]}; of sums {SUM_STRUCTURES["few"]}, \
{SUM_STRUCTURES["several"]} and {SUM_STRUCTURES["many"]}. In the last two columns, {FEW_WORDS} different words fill few."""


def _select(rows: Sequence[Row], **fields: Any) -> list[Row]:
    return [row for row in rows if all(row[name] == value for name, value in fields.items())]


def format_real(rows: Sequence[Row]) -> str:
    lines = []
    for kind in TEXT_KINDS:
        for size in (*SIZES, None):
            chosen = _select(rows, kind=kind, trial="real", **({"size": size} if size else {}))
            judged = [row for row in chosen if row["judged"]]
            called = sum(row["structure"] for row in chosen)
            upper = f"{100 * wilson_bound(called, len(judged), UPPER):.1f} %" if judged else "–"
            largest = f"{max((row['value'] for row in judged), default=0):.4f}"
            corpora = len({row["corpus"] for row in chosen})
            limit = TEXT_KINDS[kind].template_limit
            if chosen:
                named = f"{size:,}" if size else "all"
                lines.append((kind, corpora, named, len(chosen), len(judged), called, upper, largest, limit))
    return format_table(
        ["kind", "corpora", "documents", "draws", "judged", "called", "upper end, 95 %", "largest value", "limit"],
        lines,
    )


def format_made(rows: Sequence[Row]) -> str:
    """Of each kind and number of documents, what structure finds, and what repetition finds alone."""
    lines = []
    for kind in TEXT_KINDS:
        for size in SIZES:
            cells = []
            for trial in (*STRUCTURES, "words"):
                chosen = _select(rows, kind=kind, trial=trial, size=size)
                for found in (
                    [row for row in chosen if row["structure"]], [row for row in chosen if row["repetition"]],
                ):  # fmt: skip
                    cells.append(f"{len(found)} of {len(chosen)}" if chosen else "–")
            lines.append((kind, f"{size:,}", *cells))
    return format_table(
        [
            "kind",
            "documents",
            "few: by structure",
            "by repetition",
            "several: by structure",
            "by repetition",
            "many: by structure",
            "by repetition",
            f"few, {FEW_WORDS} words: by structure",
            "by repetition",
        ],
        lines,
    )


def main() -> None:
    """`python -m benchmarks.collapse.structure FOLDER [CORPUS ...]`"""
    run_structure_trials(sys.argv[2:], Path(sys.argv[1]))


if __name__ == "__main__":
    main()
