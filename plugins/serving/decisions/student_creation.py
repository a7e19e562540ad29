"""Makes a decision student from labeled texts: encode, fit, certify, evaluate, write. Prints and serves nothing."""

import time
from collections.abc import Callable, Iterator
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict

from core.errors import UsageError
from core.installation import check_train_extra
from core.storage.atomic_files import write_bytes, write_text
from plugins.serving.decision_students.agreement_bound import AgreementTarget
from plugins.serving.decision_students.decision_student import (
    CalibrationMethod,
    DecisionStudent,
    QuestionHead,
    TextEncoder,
    write_decision_student,
)
from plugins.serving.decision_students.int8_encoder import ONNX_FILE, TOKENIZER_FILE, ExportedEncoder
from plugins.serving.decision_students.student_fitting import (
    FEWEST_TEXTS,
    QuestionEvaluation,
    TextParts,
    evaluate_question,
    fit_question,
    split_texts,
)
from plugins.serving.decision_students.text_encoders import (
    ENCODERS,
    GENERATIVE_FILE,
    MINILM_NGRAMS,
    check_encoder,
    create_tfidf,
    encode_texts,
)
from plugins.serving.decisions.generative_encoder import GenerativeEncoder
from plugins.serving.decisions.labeled_texts import (
    LabeledTexts,
    LabelNoise,
    estimate_label_noise,
    normalize_text,
    read_labeled_texts,
    read_questions_file,
)
from plugins.serving.decisions.questions import DecisionQuestion

REPORT_FILE = "evaluation.json"
TIMED_TEXTS = 50
"""Texts decided one by one to measure latency."""


class DecisionSettings(NamedTuple):
    source: Path
    out: Path
    questions: Path | None = None
    test: Path | None = None
    """Rows labeled by people."""
    encoder: str = MINILM_NGRAMS
    target: AgreementTarget = AgreementTarget()
    calibration: CalibrationMethod = "held-out"
    seed: int = 7


class QuestionReport(BaseModel):
    """One question: its labels, and the student next to TF-IDF."""

    model_config = ConfigDict(frozen=True)

    question: DecisionQuestion
    noise: LabelNoise | None
    """None where texts have one vote each."""
    threshold: float | None
    method: CalibrationMethod
    """How the threshold was tested."""
    calibration: tuple[int, int, int]
    """Calibration cases, those answered, and disagreements among these."""
    student: QuestionEvaluation
    """On texts that were not used before, compared with the teacher's labels."""
    tfidf: QuestionEvaluation
    test: QuestionEvaluation | None
    """On the rows labeled by people: agreement means agreement with them."""


class DecisionReport(BaseModel):
    model_config = ConfigDict(frozen=True)

    source: str
    teacher: str | None
    encoder: str
    target: AgreementTarget
    texts: tuple[int, int, int]
    """For heads, thresholds and evaluation."""
    seconds: float
    """From labels to the written student."""
    latency_ms: tuple[float, float]
    """Median and 99th percentile of one text at a time."""
    questions: list[QuestionReport]
    left_to_teacher: list[str]
    """Questions without a head: spans."""
    onnx: str | None
    """The file in the student's folder; None without the extra `embeddings`, or for an encoder that cannot be exported."""


def create_decision_student(settings: DecisionSettings, show: Callable[[str], None]) -> DecisionReport:
    """Fit a student to the labeled texts of `settings.source`, and write it with its report.

    Raises:
        UsageError: if the texts cannot be used, are too few, or an extra is missing.
        StoreError: if the folder cannot be written.
    """
    check_encoder(settings.encoder)
    _check_out(settings.out)
    started = time.perf_counter()
    questions = read_questions_file(settings.questions) if settings.questions else None
    labeled = read_labeled_texts(settings.source, questions)
    fitted = [question for question in labeled.questions if question.type != "span"]
    if not fitted:
        raise UsageError(f"{settings.source}: has only questions for spans, which no linear head answers")
    if len(labeled.texts) < FEWEST_TEXTS:
        raise UsageError(f"{settings.source}: has {len(labeled.texts)} labeled texts; a student needs {FEWEST_TEXTS}")
    check_train_extra()
    parts = split_texts(len(labeled.texts), settings.seed, settings.calibration)
    with _open_encoder(settings.encoder, labeled, show) as own:
        return _fit_student(settings, labeled, fitted, parts, own, started, show)


def _fit_student(
    settings: DecisionSettings, labeled: LabeledTexts, fitted: list[DecisionQuestion], parts: TextParts,
    own: TextEncoder | None, started: float, show: Callable[[str], None],
) -> DecisionReport:  # fmt: skip
    used = {normalize_text(labeled.texts[place]) for place in (*parts.heads, *parts.thresholds)}
    encode = own.encode_texts if own else partial(encode_texts, settings.encoder)
    test = _read_test_rows(settings, fitted, used, encode)
    show(f"decisions: encoding {len(labeled.texts):,} texts with {settings.encoder}")
    rows = encode(labeled.texts)
    if isinstance(own, GenerativeEncoder) and own.unreadable:
        show(f"decisions: {own.unreadable:,} answers gave no probabilities, and count as undecided")
    words = create_tfidf([labeled.texts[i] for i in parts.heads]).transform(labeled.texts)
    heads, reports = [], []
    for question in fitted:
        show(f"decisions: fitting {question.name}")
        head, report = _fit_and_evaluate(question, labeled, rows, words, parts, settings, test)
        heads.append(head)
        reports.append(report)
    student = DecisionStudent(
        encoder=GENERATIVE_FILE if isinstance(own, GenerativeEncoder) else settings.encoder,
        exported=isinstance(own, ExportedEncoder), own_encoder=own,
        questions=list(labeled.questions), heads=heads, teacher=labeled.teacher,
    )  # fmt: skip
    exports = student.exported or (settings.encoder in ENCODERS and find_spec("onnx") is not None)
    if isinstance(own, GenerativeEncoder):
        write_bytes(settings.out / GENERATIVE_FILE, Path(settings.encoder).read_bytes())
    if exports:
        from plugins.serving.decision_students.onnx_export import export_decisions

        exported = export_decisions(student)
        write_bytes(settings.out / ONNX_FILE, exported.model)
        if exported.tokenizer:
            write_text(settings.out / TOKENIZER_FILE, exported.tokenizer)
    seconds = time.perf_counter() - started
    result = DecisionReport(
        source=str(settings.source), teacher=labeled.teacher, target=settings.target,
        encoder=Path(settings.encoder).name if isinstance(own, GenerativeEncoder) else settings.encoder,
        texts=(len(parts.heads), len(parts.thresholds), len(parts.evaluation)), seconds=seconds,
        latency_ms=_measure_latency(student, labeled.texts), questions=reports,
        left_to_teacher=[question.name for question in labeled.questions if question.type == "span"],
        onnx=ONNX_FILE if exports else None,
    )  # fmt: skip
    write_text(settings.out / REPORT_FILE, result.model_dump_json(indent=2) + "\n")
    write_decision_student(settings.out, student)  # last: with it, the folder is a student
    return result


@contextmanager
def _open_encoder(encoder: str, labeled: LabeledTexts, show: Callable[[str], None]) -> Iterator[TextEncoder | None]:
    """What the student's folder gets to encode texts with; None for an encoder of this package, or one that torch runs."""
    if not encoder.endswith(".gguf"):
        yield _export_encoder(encoder, labeled.texts, show)
        return
    with GenerativeEncoder(Path(encoder), labeled.questions, show) as generative:
        yield generative


def _check_out(out: Path) -> None:
    """Before anything is computed: files of two students in one folder would look like one."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out}: exists already and is not an empty folder; choose another --out")


def _export_encoder(encoder: str, texts: list[str], show: Callable[[str], None]) -> ExportedEncoder | None:
    """Of Transformers, so that heads and thresholds are fitted to the vectors of the exported form; None where there is none."""
    if encoder in ENCODERS:
        return None
    from plugins.serving.decision_students.transformers_encoder import ExportError, export_encoder

    show(f"decisions: exporting {encoder} with int8 weights")
    try:
        return export_encoder(encoder, texts)
    except ExportError as error:
        show(f"decisions: {error}; the student needs torch, and has no {ONNX_FILE}")
        return None


class _TestRows(NamedTuple):
    labeled: LabeledTexts
    rows: Any


def _read_test_rows(
    settings: DecisionSettings,
    questions: list[DecisionQuestion],
    used: AbstractSet[str],
    encode: Callable[[list[str]], Any],
) -> _TestRows | None:
    """The rows of `settings.test` whose texts are not among those that the student is made of, `used`."""
    if settings.test is None:
        return None
    labeled = read_labeled_texts(settings.test, questions)
    labeled = labeled.take([place for place, text in enumerate(labeled.texts) if normalize_text(text) not in used])
    if not labeled.texts:
        raise UsageError(f"{settings.test}: the student is made of all of its texts; give others to --test")
    return _TestRows(labeled, encode(labeled.texts))


def _fit_and_evaluate(
    question: DecisionQuestion, labeled: LabeledTexts, rows: Any, words: Any,
    parts: TextParts, settings: DecisionSettings, test: _TestRows | None,
) -> tuple[QuestionHead, QuestionReport]:  # fmt: skip
    labels = labeled.label(question)
    heads = [
        fit_question(question, vectors, labels, parts, settings.target, settings.seed) for vectors in (rows, words)
    ]
    held_out = labels.select(parts.evaluation)
    student, tfidf = (
        evaluate_question(head, vectors[parts.evaluation], held_out)
        for head, vectors in zip(heads, (rows, words), strict=True)
    )
    guarantee = heads[0].guarantee
    return heads[0], QuestionReport(
        question=question,
        noise=estimate_label_noise(question, labeled),
        threshold=guarantee.threshold,
        method=guarantee.calibration,
        calibration=(guarantee.cases, guarantee.answered, guarantee.disagreements),
        student=student,
        tfidf=tfidf,
        test=evaluate_question(heads[0], test.rows, test.labeled.label(question)) if test else None,
    )


def _measure_latency(student: DecisionStudent, texts: list[str]) -> tuple[float, float]:
    """Of texts that no cache has."""
    seconds = []
    for i, text in enumerate(texts[:TIMED_TEXTS]):
        begin = time.perf_counter()
        student.decide([f"{text} {i}"])
        seconds.append(time.perf_counter() - begin)
    median, slowest = np.percentile(seconds, [50, 99])
    return float(1000 * median), float(1000 * slowest)
