"""Texts with a teacher's answers, from a run of the family `decisions` or from any labeled file. Trains nothing."""

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict

from core.config.toml_text import parse_toml
from core.errors import UsageError
from core.runs.run_dir import RUNS_FOLDER, RunDir
from core.sample import join_conversation
from core.storage.sample_files import read_samples
from flows.rows.dataset_rows import find_dataset_files, read_batch_lines, read_dataset_batches
from flows.rows.row_forms import read_row_conversation
from flows.terminal.text_format import format_percent
from plugins.serving.decision_students.classification_metrics import (
    estimate_accuracy_from_agreement,
    expected_agreement,
    pairwise_agreement,
    summarize_votes,
)
from plugins.serving.decision_students.student_fitting import LabeledAnswers
from plugins.serving.decisions.questions import Answer, DecisionQuestion, parse_questions

FAMILY = "decisions"
ROUNDING = 0.00501
"""Of each probability in a file."""
Probabilities = dict[str, float]
"""By class (`DecisionQuestion.to_class`), all classes."""
MOST_LABELS = 200
"""Of a question that is inferred from a file's `label` column."""


class LabeledTexts(NamedTuple):
    questions: tuple[DecisionQuestion, ...]
    texts: list[str]
    votes: dict[str, list[list[Answer]]]
    """By question: the votes on each text, at least one."""
    teacher: str | None
    probabilities: dict[str, list[Probabilities | None]]
    """By question: the teacher's probability of each class for each text; None where it gave votes alone."""

    def take(self, places: Sequence[int]) -> "LabeledTexts":
        """The texts at `places`, with what the teacher said of them."""
        votes = {name: [rows[place] for place in places] for name, rows in self.votes.items()}
        probabilities = {name: [rows[place] for place in places] for name, rows in self.probabilities.items()}
        return self._replace(texts=[self.texts[place] for place in places], votes=votes, probabilities=probabilities)

    def label(self, question: DecisionQuestion) -> LabeledAnswers:
        """The probabilities of the classes for each text and the likeliest one; or the shares of the votes, and the majority."""
        found = zip(self.votes[question.name], self.probabilities[question.name], strict=True)
        shares = [given or _share_votes(question, row) for row, given in found]
        answers = [question.from_class(max(one, key=one.__getitem__)) for one in shares]
        return LabeledAnswers(answers, [{name: share for name, share in one.items() if share > 0} for one in shares])


class LabelNoise(BaseModel):
    """What the votes on one question say of its labels."""

    model_config = ConfigDict(frozen=True)

    agreement: float
    """The share of equal pairs of votes on a text; of two votes drawn by the probabilities."""
    accuracy: float
    """Of one vote, if votes err independently and all wrong labels are equally likely: an upper bound of the truth."""
    disputed: float
    """The share of texts whose votes differ; two drawn ones."""
    drawn: bool = False
    """Whether from probabilities."""

    @property
    def words(self) -> str:
        """In a sentence."""
        agreement = format_percent(self.agreement)
        found = (
            f"two votes drawn by the teacher's probabilities agree in {agreement} of texts"
            if self.drawn
            else f"votes agree in {agreement} of pairs, and differ in {format_percent(self.disputed)} of texts"
        )
        return f"{found}; if they err independently, one vote is right in {format_percent(self.accuracy)} at most"


def estimate_label_noise(question: DecisionQuestion, labeled: LabeledTexts) -> LabelNoise | None:
    """From probabilities if all texts have them, else from votes. None where no text has two votes, or answers are no single
    classes.
    """
    if not question.has_single_class:
        return None
    given = labeled.probabilities[question.name]
    known = [one for one in given if one] if all(given) else []
    named = [[question.to_class(vote) for vote in row] for row in labeled.votes[question.name]]
    agreement = expected_agreement(known) if known else pairwise_agreement(named)
    if agreement is None:
        return None
    many = [row for row in named if len(row) > 1]
    disputed = 1 - agreement if known else sum(len(set(row)) > 1 for row in many) / len(many)
    accuracy = estimate_accuracy_from_agreement(agreement, len(question.classes))
    return LabelNoise(agreement=agreement, accuracy=accuracy, disputed=disputed, drawn=bool(known))


def read_labeled_texts(source: Path, questions: Sequence[DecisionQuestion] | None = None) -> LabeledTexts:
    """The labeled texts of a run (its kept samples, with all votes) or of a file.

    Rows of a file have `text` or `messages`, and either `answers` (an object), a column for each question, or `label`; `votes`
    (an object of lists) and `probabilities` (an object of objects) are optional. Without `questions`, the labels of `label` make
    one question of that name.

    Equal texts are one text with the votes of all; if a copy has probabilities, with the mean of these and of the other copies'
    shares of votes.

    Raises:
        UsageError: naming the row that cannot be used.
    """
    run = _find_decision_run(source)
    if run:
        if questions:
            raise UsageError(f"{source}: is a run, which has its own questions; leave --questions out")
        return _read_run(run)
    texts: list[str] = []
    found: list[Mapping[str, Any]] = []
    places: list[str] = []
    for place, row in _read_rows(source):
        try:
            texts.append(_read_text(row))
        except ValueError as fault:
            raise UsageError(f"{place}: {fault}") from None
        found.append(row)
        places.append(place)
    if not found:
        raise UsageError(f"{source}: has no rows; give labeled texts")
    questions = tuple(questions) if questions else _infer_question(source, found)
    votes: dict[str, list[list[Answer]]] = {question.name: [] for question in questions}
    probabilities: dict[str, list[Probabilities | None]] = {question.name: [] for question in questions}
    for place, row in zip(places, found, strict=True):
        for question in questions:
            try:
                given = _read_probabilities(question, row)
                probabilities[question.name].append(given)
                votes[question.name].append(_read_votes(question, row, given))
            except ValueError as fault:
                raise UsageError(f"{place}: {fault}") from None
    return _pool_equal_texts(LabeledTexts(questions, texts, votes, None, probabilities))


def normalize_text(text: str) -> str:
    """What texts must share to be equal: all but case and white space."""
    return " ".join(text.split()).casefold()


def _pool_equal_texts(labeled: LabeledTexts) -> LabeledTexts:
    """The same with each text once, with the votes of all its copies: a copy among the texts that the heads learn from would
    make a threshold test memory, and copies among those that it is tested on would count as independent cases.
    """
    places: dict[str, list[int]] = {}
    for number, text in enumerate(labeled.texts):
        places.setdefault(normalize_text(text), []).append(number)
    votes = {
        name: [[vote for number in copies for vote in rows[number]] for copies in places.values()]
        for name, rows in labeled.votes.items()
    }
    probabilities = {
        question.name: [_pool_probabilities(labeled, question, copies) for copies in places.values()]
        for question in labeled.questions
    }
    texts = [labeled.texts[copies[0]] for copies in places.values()]
    return labeled._replace(texts=texts, votes=votes, probabilities=probabilities)


def _pool_probabilities(
    labeled: LabeledTexts, question: DecisionQuestion, copies: Sequence[int]
) -> Probabilities | None:
    """The mean over copies of a text, of which at least one has probabilities; None if none has."""
    given = [labeled.probabilities[question.name][number] for number in copies]
    if not any(given):
        return None
    votes = labeled.votes[question.name]
    known = [one or _share_votes(question, votes[number]) for one, number in zip(given, copies, strict=True)]
    return {name: sum(one.get(name, 0.0) for one in known) / len(known) for name in question.classes}


def _share_votes(question: DecisionQuestion, votes: Sequence[Answer]) -> dict[str, float]:
    """The share of each class that has votes, the majority first."""
    return {str(vote): share for vote, share in summarize_votes(list(map(question.to_class, votes))).shares.items()}


def _find_decision_run(source: Path) -> RunDir | None:
    """The run of the family `decisions` in folder `source` or of that name. Raises UsageError for a run of another family."""
    for folder in (source, Path(RUNS_FOLDER) / source):
        run = RunDir(folder)
        if run.recipe_file.is_file():
            family = run.read_recipe().family
            if family != FAMILY:
                raise UsageError(f"{source}: is a run of the family {family}; a decision student needs one of {FAMILY}")
            return run
    return None


def read_questions_file(path: Path) -> tuple[DecisionQuestion, ...]:
    """The questions of a TOML file: a recipe's `[[task.questions]]`, or `[[questions]]`.

    Raises:
        UsageError: if there are none, or one cannot be used.
    """
    try:
        table = parse_toml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path}: the questions cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: is not TOML: {error}") from None
    task = table.get("task")
    values = table.get("questions", task.get("questions", []) if isinstance(task, dict) else [])
    try:
        return parse_questions(values)
    except ValueError as fault:
        raise UsageError(f"{path}: questions: {fault}") from None


def _read_run(run: RunDir) -> LabeledTexts:
    from plugins.serving.decisions.family import collect_probabilities, collect_votes  # takes all families with it

    recipe = run.read_recipe()
    questions = parse_questions(recipe.task["questions"])
    texts: list[str] = []
    votes: dict[str, list[list[Answer]]] = {question.name: [] for question in questions}
    probabilities: dict[str, list[Probabilities | None]] = {question.name: [] for question in questions}
    for shard in run.shards():
        if not run.kept_file(shard).is_file():
            continue
        for sample in read_samples(run.kept_file(shard)):
            given, known = collect_votes(sample), collect_probabilities(sample)
            texts.append(sample.candidate.fields["text"])
            for question in questions:
                answers = given[question.name]
                # A written text's answer was drawn, and its votes confirm it; a given text's first vote is its answer.
                votes[question.name].append(answers or [sample.candidate.fields["answers"][question.name]])
                probabilities[question.name].append(known.get(question.name))
    if not texts:
        raise UsageError(f"{run.path}: has no kept samples; finish the run first")
    return _pool_equal_texts(LabeledTexts(questions, texts, votes, recipe.generator_teacher.model, probabilities))


def _read_rows(source: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    files = find_dataset_files(source)
    for batch in read_dataset_batches(files):
        for line in read_batch_lines(batch):
            place = f"{files[batch.file]}:{line.number}"
            try:
                yield place, line.require_row()
            except ValueError as fault:
                raise UsageError(f"{place}: {fault}") from None


def _read_text(row: Mapping[str, Any]) -> str:
    text = row["text"] if isinstance(row.get("text"), str) else join_conversation(read_row_conversation(row))
    if not text.strip():
        raise ValueError("has no text; give `text` or `messages`")
    return str(text)


def _infer_question(source: Path, rows: Sequence[Mapping[str, Any]]) -> tuple[DecisionQuestion, ...]:
    labels = sorted({str(row["label"]) for row in rows if row.get("label") not in (None, "")})
    if not 2 <= len(labels) <= MOST_LABELS:
        raise UsageError(
            f"{source}: without --questions, rows need a `label` with 2 to {MOST_LABELS} different values; found {len(labels)}"
        )
    return parse_questions([{"name": "label", "ask": "Which label fits the text?", "labels": labels}])


def _read_probabilities(question: DecisionQuestion, row: Mapping[str, Any]) -> Probabilities | None:
    given = row.get("probabilities") or {}
    if not isinstance(given, Mapping):
        raise ValueError("`probabilities` must be an object, with the questions' names as keys")  # noqa: TRY004
    of = given.get(question.name)
    if of is None or (isinstance(of, Mapping) and all(value is None for value in of.values())):
        return None
    if not question.has_single_class or not isinstance(of, Mapping) or set(of) - set(question.classes):
        raise ValueError(
            f"the probabilities of {question.name!r} must be an object with numbers, whose keys are of "
            f"{', '.join(question.classes) or 'a question with a single answer'}"
        )
    values = [0.0 if of.get(name) is None else of[name] for name in question.classes]
    fit = all(isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1 for value in values)
    if not fit or abs(sum(values) - 1) > ROUNDING * max(2, len(values)):
        raise ValueError(f"the probabilities of {question.name!r} must be from 0 to 1, with the sum 1")
    return {name: value / sum(values) for name, value in zip(question.classes, values, strict=True)}


def _read_votes(
    question: DecisionQuestion, row: Mapping[str, Any], probabilities: Probabilities | None
) -> list[Answer]:
    def parse(answer: Any) -> Answer:
        """Labels may be numbers or booleans in the file, and are texts in a question."""
        as_text = question.type == "one_of" and isinstance(answer, bool | int | float)
        return question.parse_answer(str(answer) if as_text else answer)

    given, answers = row.get("votes") or {}, row.get("answers") or row
    if not isinstance(given, Mapping) or not isinstance(answers, Mapping):
        raise ValueError("`votes` and `answers` must be objects, with the questions' names as keys")  # noqa: TRY004
    votes = given.get(question.name)
    if not isinstance(votes, list | None):
        raise ValueError(f"the votes of {question.name!r} must be a list")  # noqa: TRY004
    if votes:
        return [parse(vote) for vote in votes]
    if probabilities:
        return [question.from_class(max(probabilities, key=probabilities.__getitem__))]
    if answers.get(question.name) is None:
        raise ValueError(f"has no answer to {question.name!r}; give it in `answers`, or as a column")
    return [parse(answers[question.name])]
