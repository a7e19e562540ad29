"""How hard distractors are: a guesser by words or by meaning looks for the right passage among random and among near ones; and
what the checks of grounded QA do with answers that were planted in a distractor.

python -m benchmarks.distractors [DATASET.jsonl ...]

Questions are the recorded ones of `benchmarks/recordings/grounded-qa.jsonl` among the passages of the recording, and those of
exported rows that have several passages, among the passages of all rows of their file.
"""

import asyncio
import json
import math
import re
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from agents.checks import Check, Subject
from agents.checks.text.quotes import QuotableText, quotes_check
from agents.checks.text.second_reader import read_again_check
from agents.checks.text.supported_by_passage import supported_check
from agents.checks.text.text_units import split_sentences
from agents.families.grounded_qa import PassagePool, own_words_check, unanswerable_check
from agents.families.standalone_questions import standalone_check
from benchmarks.machine import describe_measurement
from core.intervals import estimate_share
from core.project_files import PROJECT
from core.sample import Candidate, Seed
from core.storage.recording import read_recording
from core.weights.embeddings import embed_text

RECORDING = PROJECT / "benchmarks" / "recordings" / "grounded-qa.jsonl"
COUNT, DRAWS = 4, 20
"""Distractors of a question, and random sets of them for each."""
SATURATION, LENGTH_WEIGHT = 1.5, 0.75
"""k1 and b of BM25 (Robertson and Zaragoza 2009)."""
WORD = re.compile(r"\w+")
SILENCE = "The text does not say."


class AskedQuestion(NamedTuple):
    question: str
    quotes: list[str]
    """Empty if the passage does not answer."""
    answer: str
    passage: str
    document: str
    focus: str = ""


@dataclass(frozen=True)
class QuestionSet:
    name: str
    questions: list[AskedQuestion]
    documents: dict[str, str]
    """The document of each passage."""

    @cached_property
    def pool(self) -> PassagePool:
        return PassagePool([{"text": passage} for passage in self.documents])


Selector = Callable[[AskedQuestion, QuestionSet, Random], list[str]]
"""The distractors of a question."""


def read_recorded() -> QuestionSet:
    questions, documents = [], {}
    for sample in read_recording(RECORDING):
        drafts = [reply.reply for reply in sample.replies if reply.agent == "generator"]
        fields = json.loads(drafts[-1][drafts[-1].index("{") :])
        data = sample.seed
        documents[data["text"]] = data["source"]
        questions.append(AskedQuestion(**fields, passage=data["text"], document=data["source"], focus=data["focus"]))
    return QuestionSet("shipped documents", questions, documents)


def read_exported(path: Path) -> QuestionSet:
    """The answered questions of a dataset with several passages in each row. Documents are not known."""
    questions, documents = [], {}
    for line in path.read_text(encoding="utf-8").splitlines():
        asked, answered = (message["content"] for message in json.loads(line)["messages"][:2])
        _, *texts = re.split(r"(?:^|\n\n)Text \d+:\n", asked)
        question = re.search(r"Question: (.+)", asked)
        texts = [text.partition("\n\nQuestion: ")[0] for text in texts]
        documents |= dict.fromkeys(texts, "")
        answer, *quotes = answered.split("\n> ")
        own = [text for text in texts if quotes and all(QuotableText(text).find(quote) for quote in quotes)]
        if own and question:
            questions.append(AskedQuestion(question[1], quotes, answer, own[0], ""))
    return QuestionSet(path.name, questions, documents)


def score_bm25(question: str, passages: Sequence[str]) -> list[float]:
    counts = [Counter(word.lower() for word in WORD.findall(passage)) for passage in passages]
    mean = sum(count.total() for count in counts) / len(counts)
    scores = [0.0] * len(passages)
    for word in {word.lower() for word in WORD.findall(question)}:
        having = sum(word in count for count in counts)
        weight = math.log(1 + (len(passages) - having + 0.5) / (having + 0.5))
        for place, count in enumerate(counts):
            length = SATURATION * (1 - LENGTH_WEIGHT + LENGTH_WEIGHT * count.total() / mean)
            scores[place] += weight * count[word] * (SATURATION + 1) / (count[word] + length)
    return scores


def count_shared_words(question: str, passages: Sequence[str]) -> list[float]:
    asked = set(WORD.findall(question.lower()))
    return [len(asked & set(WORD.findall(passage.lower()))) for passage in passages]


def score_meaning(question: str, passages: Sequence[str]) -> list[float]:
    asked = embed_text(question)
    return [float(asked @ embed_text(passage)) for passage in passages]


GUESSERS: Mapping[str, Callable[[str, Sequence[str]], list[float]]] = {
    "BM25": score_bm25,
    "shared words": count_shared_words,
    "meaning": score_meaning,
}


def draw_random(asked: AskedQuestion, whole: QuestionSet, rng: Random) -> list[str]:
    """Passages of other documents; of any, if documents are not known."""
    others = [text for text, document in whole.documents.items() if document != asked.document or not document]
    return rng.sample([text for text in others if text != asked.passage], COUNT)


def choose_best(asked: AskedQuestion, whole: QuestionSet, scores: Sequence[float]) -> list[str]:
    """The passages with the highest scores of those that the product may choose."""
    ranked = [text for _, text in sorted(zip(scores, whole.documents, strict=True), key=lambda pair: -pair[0])]
    return [text for text in ranked if text not in asked.passage and not (asked.focus and asked.focus in text)][:COUNT]


def rank_other_documents(asked: AskedQuestion, whole: QuestionSet, _: Random) -> list[str]:
    near = whole.pool.find_nearest(asked.passage, asked.focus, len(whole.documents) // 2)
    return [text for text in near if whole.documents[text] != asked.document][:COUNT]


ARMS: Mapping[str, Selector] = {
    "random, of other documents": draw_random,
    "nearest of other documents": rank_other_documents,
    "nearest": lambda asked, whole, _: whole.pool.find_nearest(asked.passage, asked.focus, COUNT),
    "nearest to the sentence asked about": lambda asked, whole, _: choose_best(
        asked, whole, score_meaning(asked.focus or asked.passage, list(whole.documents))
    ),
    "BM25 of the passage": lambda asked, whole, _: choose_best(
        asked, whole, score_bm25(asked.passage, list(whole.documents))
    ),
}


def measure_hits(whole: QuestionSet, select: Selector, draws: int) -> list[str]:
    """The share of questions whose passage each guesser finds; of several best ones, any is taken."""
    hits, answered = dict.fromkeys(GUESSERS, 0.0), [asked for asked in whole.questions if asked.quotes]
    for draw in range(draws):
        rng = Random(draw)
        for asked in answered:
            passages = [asked.passage, *select(asked, whole, rng)]
            for name, guess in GUESSERS.items():
                scores = guess(asked.question, passages)
                hits[name] += (scores[0] == max(scores)) / scores.count(max(scores))
    shares = []
    for total in hits.values():
        share = estimate_share(round(total / draws), len(answered))
        shares.append(share.format("{:.0%}".format) if share else "none")
    return shares


def find_fault(
    check: Check, asked: AskedQuestion, shown: Sequence[str], reading: str = "", **options: Any
) -> str | None:
    """What a check says of a draft among these passages, where a reader answers `reading`."""

    async def ask(role: str, contract: Any, values: Any, *, which: int, temperature: float) -> Any:
        return contract.model_validate({"found": bool(reading), "answer": reading})

    data = {
        "text": asked.passage, "shown_passages": shown, "answerable": bool(asked.quotes), "context": True,
        "silence": SILENCE, "kind": "list",
    }  # fmt: skip
    fields = {"question": asked.question, "quotes": asked.quotes, "answer": asked.answer}
    subject = Subject(Seed(id="s-0", data=data), Candidate(messages=[], fields=fields), ask)
    (finding,) = asyncio.run(check.findings(subject, check.options.model_validate(options)))
    return None if finding.passed else finding.evidence


def measure_checks(whole: QuestionSet) -> dict[str, str]:
    """Planted answers that are caught, and recorded drafts that are refused because of near passages, by what was tried."""
    counts: dict[str, list[bool]] = {}

    def count(what: str, fault: str | None) -> None:
        counts.setdefault(what, []).append(fault is not None)

    pool = whole.pool
    for asked in whole.questions:
        near = pool.find_nearest(asked.passage, asked.focus, COUNT)
        for check, options in (
            (quotes_check, {}), (supported_check, {"share": 0.6}), (own_words_check, {}), (unanswerable_check, {}),
        ):  # fmt: skip
            if fault := find_fault(check, asked, [], **options):
                sys.stderr.write(f"refused alone: {asked.question}: {fault}\n")
        fault = find_fault(standalone_check, asked, [*near, asked.passage])
        if fault:
            sys.stderr.write(f"refused among several: {asked.question}: {fault}\n")
        count("recorded drafts refused by `standalone` among near passages", fault)
        if not asked.quotes:
            continue
        count("right passage among those of a left-out row, a reader finds the answer: `read_again`", find_fault(
            read_again_check, asked._replace(passage="-"), [*near, asked.passage], asked.answer))  # fmt: skip
        for other in near:
            sentences = [one for line in other.splitlines() for one in split_sentences(line) if len(one.split()) > 3]
            scores = count_shared_words(asked.question, sentences or [other])
            planted = (sentences or [other])[scores.index(max(scores))]
            wrong = asked._replace(quotes=[planted], answer=" ".join(planted.split()[:8]))
            count("quote and answer of a distractor's nearest sentence: `quotes`", find_fault(
                quotes_check, wrong, [*near, asked.passage]))  # fmt: skip
            count("right answer, and a reader who answers by that sentence: `read_again`", find_fault(
                read_again_check, asked, [*near, asked.passage], wrong.answer, similarity=0.6))  # fmt: skip
    table = {}
    for what, found in counts.items():
        share = estimate_share(sum(found), len(found))
        table[what] = f"{sum(found)} of {len(found)}" + (f", {share.format('{:.0%}'.format)}" if share else "")
    return table


def main() -> None:
    sys.stdout.write(f"{describe_measurement()}\n")
    write = sys.stdout.write
    sets = [read_recorded(), *(read_exported(Path(path)) for path in sys.argv[1:])]
    for whole in sets:
        answered = sum(bool(asked.quotes) for asked in whole.questions)
        write(
            f"\n{whole.name}: {answered} answered questions, {len(whole.documents)} passages, {COUNT} distractors\n\n"
        )
        write(f"| distractors | {' | '.join(GUESSERS)} |\n|---|{'---|' * len(GUESSERS)}\n")
        for name, select in ARMS.items():
            if any(whole.documents.values()) or name in ("random, of other documents", "nearest"):
                hits = measure_hits(whole, select, DRAWS if select is draw_random else 1)
                write(f"| {name} | {' | '.join(hits)} |\n")
        write("\n| tried | found |\n|---|---|\n")
        for what, found in measure_checks(whole).items():
            write(f"| {what} | {found} |\n")


if __name__ == "__main__":
    main()
