"""Texts of the benchmark of features, and what each arm counts in them: the autoencoder, its control, words, clusters."""

import ast
import json
import random
import re
import sysconfig
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from core.project_files import PROJECT
from core.storage.atomic_files import read_json, write_atomically, write_json
from filters.collapse.matched_samples import split_into_words
from flows.terminal.console import SESSION
from plugins.features.config import DictionarySettings
from plugins.features.dictionaries.activation_reader import EncodedText
from plugins.features.dictionaries.dictionary_building import build_dictionary
from plugins.features.dictionaries.dictionary_files import TrainingRecord, load_dictionary
from plugins.features.dictionaries.document_features import BothFeatures, FeatureReader, TokenFeatures
from plugins.features.lacking_features import PooledFeatures

Ints = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
LEARNED, RANDOM, WORDS, CLUSTERS = "autoencoder", "random dictionary", "words", "embedding clusters"
ARMS = (LEARNED, RANDOM, WORDS, CLUSTERS)
WORDS_OF_TEXT = (10, 60)
CLUSTER_COUNT = 40


class Size(NamedTuple):
    """What is measured."""

    train_texts: int = 12_000
    tokens: int = 250_000
    latents: int = 2_304
    epochs: int = 3
    documents: int = 2_000
    """In which gaps are planted; half of them on each side."""
    random_splits: int = 200
    """Of the same documents into halves."""
    subsets: int = 60
    students: int = 24
    """Subsets of which a student is trained."""
    subset_words: int = 2_500
    selected: int = 150
    samples: int = 100
    """Of each arm of the loop."""
    candidates: int = 300
    """Samples of which the filter keeps those of its arm."""
    student_width: int = 192
    student_epochs: int = 20
    held_out: int = 300
    """Documents on which students are measured."""


FULL = Size()
SMALL = Size(200, 4_000, 128, 3, 160, 8, 8, 8, 200, 12, 4, 8, 64, 1, 10)
"""To see that it runs."""


class Corpus(NamedTuple):
    """Documents by all arms."""

    texts: list[str]
    tokens: Ints
    """The number of tokens of each document."""
    features: BothFeatures
    words: PooledFeatures
    clusters: PooledFeatures | None

    def take(self, places: Ints) -> "Corpus":
        """The documents at `places`."""
        features = BothFeatures(*(side.take(places) for side in self.features))
        clusters = None if self.clusters is None else self.clusters.take(places)
        texts = [self.texts[place] for place in places]
        return Corpus(texts, self.tokens[places], features, self.words.take(places), clusters)

    def get(self, arm: str) -> PooledFeatures:
        sides = {
            LEARNED: self.features.learned,
            RANDOM: self.features.random,
            WORDS: self.words,
            CLUSTERS: self.clusters,
        }
        found = sides[arm]
        assert found is not None
        return found

    @property
    def arms(self) -> tuple[str, ...]:
        return ARMS if self.clusters is not None else ARMS[:-1]


class Bench:
    """The measurement in a folder, which holds what is done."""

    def __init__(self, work: Path, size: Size, *, stored_only: bool = False) -> None:
        self.work, self.size, self.stored_only = work, size, stored_only

    def measure(self, name: str, part: Callable[[], Any]) -> Any:
        """The stored result of a part, or a new one; None if only stored ones are wanted."""
        file = self.work / f"{name}.json"
        if self.stored_only and not file.is_file():
            return None
        if not file.is_file():
            SESSION.print_message(f"features: measuring {name}")
            write_json(file, part())
        return read_json(file)

    @cached_property
    def texts(self) -> tuple[list[str], list[str]]:
        """For training, and for planting; the same in each call."""
        texts = self.measure("texts", lambda: [*read_novels(), *read_docstrings(), *read_descriptions()])
        random.Random(0).shuffle(texts)
        return texts[self.size.documents :][: self.size.train_texts], texts[: self.size.documents]

    @property
    def training(self) -> TrainingRecord:
        """How the dictionary was trained, without its model."""
        folder = self.work / "dictionary"
        return load_dictionary(folder).training if folder.is_dir() else self.reader.dictionary.training

    @cached_property
    def reader(self) -> FeatureReader:
        folder = self.work / "dictionary"
        if not folder.is_dir():
            size = self.size
            settings = DictionarySettings(latents=size.latents, tokens=size.tokens, epochs=size.epochs, context=96)
            build_dictionary(self.texts[0], folder, settings, progress=SESSION.print_message)
        return FeatureReader(load_dictionary(folder))

    @cached_property
    def encoded(self) -> list[EncodedText]:
        return self.reader.encode(self.texts[1])

    @cached_property
    def tokens(self) -> list[TokenFeatures]:
        """The active latents of all tokens of the documents by both dictionaries, from one reading of the model."""
        file = self.work / "tokens.npz"
        if not file.is_file():
            sides: tuple[list[TokenFeatures], list[TokenFeatures]] = ([], [])
            for places, *found in self.reader.read_tokens(self.encoded):
                for side, part in zip(sides, found, strict=True):
                    side.append(part._replace(owners=np.array(places)[part.owners]))
            joined = [[np.concatenate(parts) for parts in zip(*side, strict=True)] for side in sides]
            with write_atomically(file) as partial, partial.open("wb") as opened:
                np.savez(opened, *joined[0], *joined[1])
        with np.load(file) as stored:
            parts = [stored[f"arr_{number}"] for number in range(8)]
        return [TokenFeatures(*parts[:4]), TokenFeatures(*parts[4:])]

    def pool_prefixes(self, places: Ints, cuts: Ints) -> BothFeatures:
        """The features of the first tokens of documents. A model reads from left to right, so no earlier activation changes."""
        most = np.zeros(len(self.encoded), dtype=np.int64)
        most[places] = cuts
        pooled = []
        for tokens, size in zip(self.tokens, self.reader.sizes, strict=True):
            kept = tokens.positions < most[tokens.owners]
            rows = TokenFeatures(*(part[kept] for part in tokens)).pool_rows(len(self.encoded))
            pooled.append(PooledFeatures.from_documents([rows[place] for place in places], size))
        return BothFeatures(*pooled)

    @cached_property
    def vocabulary(self) -> dict[str, int]:
        """The words of all documents by their numbers."""
        words = {word for text in self.texts[1] for word in split_into_words(text)}
        return {word: number for number, word in enumerate(sorted(words))}

    @cached_property
    def corpus(self) -> Corpus:
        """The documents by all arms, untruncated."""
        texts = self.texts[1]
        lengths = np.array([len(text.ids) for text in self.encoded], dtype=np.int64)
        features = self.pool_prefixes(np.arange(len(texts)), lengths)
        return Corpus(texts, lengths, features, read_words(texts, self.vocabulary), self._find_clusters(texts))

    def _find_clusters(self, texts: Sequence[str]) -> PooledFeatures | None:
        from core.weights.embeddings import embed_texts, find_embeddings_problem

        if find_embeddings_problem():
            return None
        stored = self.measure("embeddings", lambda: embed_texts(texts).tolist())
        assigned = cluster_points(np.array(stored, dtype=np.float32), min(CLUSTER_COUNT, len(texts) // 4))
        return PooledFeatures.from_documents(
            [(np.array([one]), np.ones(1, np.float32)) for one in assigned], CLUSTER_COUNT
        )


def fits(text: str) -> bool:
    return WORDS_OF_TEXT[0] <= len(text.split()) <= WORDS_OF_TEXT[1]


def read_novels() -> list[str]:
    lines = (PROJECT / "data" / "reference" / "english.jsonl").read_text(encoding="utf-8").splitlines()
    return list(filter(fits, (json.loads(line)["text"] for line in lines)))


def read_docstrings(most: int = 6_000) -> list[str]:
    """First paragraphs of the docstrings of installed packages."""
    found: dict[str, None] = {}
    for file in sorted(Path(sysconfig.get_path("purelib")).rglob("*.py")):
        if len(found) >= most:
            break
        if file.stat().st_size > 200_000 or "test" in file.name:
            continue
        try:
            nodes = list(ast.walk(ast.parse(file.read_text(encoding="utf-8"))))
        except (SyntaxError, ValueError, RecursionError):
            continue
        for node in nodes:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and (written := ast.get_docstring(node)):
                paragraph = " ".join(written.split("\n\n")[0].split())
                if fits(paragraph):
                    found[paragraph] = None
    return list(found)[:most]


def read_descriptions(most: int = 6_000) -> list[str]:
    """Paragraphs of the descriptions of installed packages, without markup."""
    found: dict[str, None] = {}
    for file in sorted(Path(sysconfig.get_path("purelib")).glob("*.dist-info/METADATA")):
        body = file.read_text(encoding="utf-8", errors="ignore").partition("\n\n")[2]
        for paragraph in body.split("\n\n"):
            line = " ".join(paragraph.split())
            if fits(line) and not re.search(r"[|{}<>]|https?:", line):
                found[line] = None
    return list(found)[:most]


def read_words(texts: Sequence[str], vocabulary: Mapping[str, int]) -> PooledFeatures:
    """The words of each document, as features of one strength; a part of a word at the end of a truncated one is none."""
    rows = []
    for text in texts:
        known = {vocabulary[word] for word in split_into_words(text) if word in vocabulary}
        rows.append((np.array(sorted(known), dtype=np.int64), np.ones(len(known), np.float32)))
    return PooledFeatures.from_documents(rows, len(vocabulary))


def cluster_points(points: npt.NDArray[np.float32], count: int, rounds: int = 12) -> Ints:
    """k-means (Lloyd 1982) from random points."""
    generator = np.random.default_rng(0)
    centres = points[generator.choice(len(points), count, replace=False)]
    assigned = np.zeros(len(points), dtype=np.int64)
    for _ in range(rounds):
        assigned = (points @ centres.T - np.square(centres).sum(1) / 2).argmax(1)
        centres = np.stack(
            [points[assigned == k].mean(0) if (assigned == k).any() else centres[k] for k in range(count)]
        )
    return assigned
