import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from benchmarks.corpus import PlantedCorpus
from core.config.filters import ExactFilter, FilterConfig, LengthFilter, MinHashFilter, RefusalFilter
from core.runs.records import ComparedSimilarities, SampleCounts, SimilarityBin
from core.sample import RejectionReason
from core.storage.atomic_files import count_values, read_json
from filters.base import Document, DroppedDocument
from filters.chain.filter_chain import apply_filters
from flows.report.filter_report import (
    DroppedExample,
    FilterReport,
    FilterStep,
    UnreadableRow,
    format_filter_card,
    write_filter_report,
)
from tests.flows.report.test_run_report import Page
from tests.support.browser import collect_browser_complaints

FILTERS: tuple[FilterConfig, ...] = (
    LengthFilter(type="length"),
    RefusalFilter(type="refusal"),
    ExactFilter(type="exact"),
    MinHashFilter(type="minhash"),
)
HOSTILE = "</pre></script><script>alert(1)</script><img src=x onerror=alert(1)>{{7*7}}{% raw %}\x1b[31m\u202e<!--"
LONG = "A" * 5000
RIGHT_TO_LEFT = "الدبابير والنحل حشرات طائرة"


@pytest.fixture(scope="module")
def filtered() -> FilterReport:
    """What filters make of 800 documents with planted duplicates, two refusals and one that says nothing."""
    texts, planted = next(PlantedCorpus(800, seed=3).batches())
    texts[5], texts[9] = "I'm sorry, but I can't help with that request.", "Sorry, but I cannot help you with that."
    texts[15] = "Yes."
    documents = [Document(f"r-{i}", text) for i, text in enumerate(texts)]
    steps, drops = _steps(documents)
    texts_of = {document.id: document.text for document in documents}
    under = [pair.similarity for pair in planted if 0.5 < pair.similarity < 0.8]
    scores = [drop.score for drop in drops if drop.filter == "minhash" and drop.score is not None]
    return FilterReport(
        source="data/rows.jsonl",
        out="data/filtered",
        kept="data/filtered/kept.jsonl",
        counts=SampleCounts(candidates=802, kept=800 - len(drops), dropped=len(drops), failed=2),
        steps=tuple(steps),
        reasons={
            RejectionReason(reason): count for reason, count in count_values(drop.reason for drop in drops).items()
        },
        histograms={"4 minhash": ComparedSimilarities(threshold=0.8, bins=bins(scores, under))},
        examples=tuple(_example(drop, texts_of) for drop in drops),
        asides=(UnreadableRow(file="data/rows.jsonl", line=17, error="it is no JSON"),) * 2,
        seconds=1.5,
        rows_per_second=535.0,
        workers=2,
    )


def _steps(documents: Sequence[Document]) -> tuple[list[FilterStep], list[DroppedDocument]]:
    steps, drops = [], []
    for config in FILTERS:
        kept, dropped = apply_filters(documents, [config])
        options = config.model_dump(mode="json", exclude={"type"})
        steps.append(FilterStep(filter=config.type, options=options, rows_in=len(documents), dropped=len(dropped)))
        documents = kept
        drops += dropped
    return steps, drops


def _example(drop: DroppedDocument, texts: dict[str, str]) -> DroppedExample:
    original = texts[drop.duplicate_of] if drop.duplicate_of else None
    expected = drop.model_dump(include={"filter", "reason", "detail", "score", "id", "duplicate_of"})
    return DroppedExample(**expected, row=drop.id[2:], text=texts[drop.id], original=original)


def bins(dropped: Sequence[float], stayed: Sequence[float]) -> tuple[SimilarityBin, ...]:
    def inside(values: Sequence[float], place: int) -> int:
        return sum(min(int(50 * value + 1e-9), 49) == place for value in values)

    return tuple(
        SimilarityBin(low=i / 50, high=(i + 1) / 50, dropped=inside(dropped, i), stayed=inside(stayed, i))
        for i in range(50)
    )


def small(**changes: Any) -> FilterReport:
    whole = {
        "source": "rows.jsonl",
        "out": "out",
        "kept": "out/kept.jsonl",
        "counts": {"candidates": 10, "kept": 9, "dropped": 1, "failed": 0},
        "steps": [{"filter": "minhash", "options": {"threshold": 0.8}, "rows_in": 10, "dropped": 1}],
        "reasons": {"near_duplicate": 1},
        "seconds": 0.1,
        "rows_per_second": 100,
    }
    return FilterReport.model_validate({**whole, **changes})


def repeat(text: str, original: str | None, **changes: Any) -> DroppedExample:
    whole = {"filter": "minhash", "reason": "near_duplicate", "detail": "similarity 0.85 to a, at least 0.8", "row": "4",
             "id": "b", "duplicate_of": "a"}  # fmt: skip
    return DroppedExample.model_validate({**whole, "text": text, "original": original, **changes})


def written(where: Path, report: FilterReport) -> Page:
    write_filter_report(where, report)
    return Page((where / "report.html").read_text(encoding="utf-8"))


def test_the_counts_of_a_real_filter_run_add_up_on_the_page(filtered: FilterReport, tmp_path: Path) -> None:
    page = written(tmp_path, filtered)
    label = next(attrs["aria-label"] or "" for _, attrs in page.tags if "Rows in" in (attrs.get("aria-label") or ""))
    aside, *took, kept = map(int, re.findall(r"(?:aside|took|kept) (\d+)", label))
    assert label.startswith("Rows in 802, aside 2, length took 1, refusal took 2, exact took ")
    assert len(took) == len(FILTERS)
    assert min(took) > 0
    assert aside + sum(took) + kept == 802
    assert f"{kept} of 802 rows kept" in page.text
    assert sum(filtered.reasons.values()) == sum(took)
    assert page.source.count('<details class="example"') == sum(took)


def test_the_json_report_is_the_report(filtered: FilterReport, tmp_path: Path) -> None:
    written(tmp_path, filtered)
    numbers = read_json(tmp_path / "report.json")
    assert FilterReport.model_validate(numbers) == filtered
    assert numbers["counts"]["candidates"] == 802
    assert numbers["histograms"]["4 minhash"]["bins"][45].keys() == {"low", "high", "dropped", "stayed"}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"counts": {"candidates": 10, "kept": 9, "dropped": 1, "failed": 1}}, "do not add up to 10"),
        ({"reasons": {"near_duplicate": 2}}, "reasons: they dropped 2 rows, but counts.dropped is 1"),
        ({"steps": []}, "steps: they dropped 0 rows, but counts.dropped is 1"),
        ({"histograms": {"5 minhash": {"threshold": 0.8, "bins": []}}}, "5 minhash: no such step; steps are 1 minhash"),
    ],
)
def test_contradictory_numbers_are_refused(changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(expected)):
        small(**changes)


def test_hostile_text_stays_text_and_no_script_may_run(tmp_path: Path) -> None:
    step = {"filter": "minhash", "options": {"sets": [HOSTILE]}, "rows_in": 10, "dropped": 1}
    report = small(
        source=f"in/{HOSTILE}",
        out=HOSTILE,
        counts={"candidates": 11, "kept": 9, "dropped": 1, "failed": 1},
        steps=[step],
        contamination={HOSTILE: {"rows": 1, "short": 0, "found": 1, "documents": 1}},
        examples=[repeat(HOSTILE, f"{RIGHT_TO_LEFT} {LONG}", id=HOSTILE, detail=HOSTILE, duplicate_of=HOSTILE)],
        asides=[{"file": HOSTILE, "line": 1, "error": HOSTILE}],
    )
    page = written(tmp_path, report)
    assert page.text.count("<img src=x onerror=alert(1)>{{7*7}}{% raw %}") >= 8
    assert not {"\x1b", "\u202e"} & set(page.source)
    assert not {"img", "script"} & {tag for tag, _ in page.tags}
    assert not [name for _, attrs in page.tags for name in attrs if name.startswith("on")]
    policy = next(attrs["content"] for _, attrs in page.tags if attrs.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none';")
    assert "script-src" not in policy
    assert not {"\x1b", "\u202e"} & set(format_filter_card(report))


def test_half_a_surrogate_pair_does_not_stop_the_report(tmp_path: Path) -> None:
    page = written(tmp_path, small(examples=[repeat("half \ud83d of one", None)]))
    assert "half ? of one" in page.text


def test_nothing_is_loaded_and_every_link_leads_somewhere(filtered: FilterReport, tmp_path: Path) -> None:
    page = written(tmp_path, filtered)
    links = [link for _, attrs in page.tags if (link := attrs.get("href") or attrs.get("src"))]
    inner = {link[1:] for link in links if link.startswith("#")}
    assert set(links) == {"data:,", *(f"#{name}" for name in inner)}
    assert (
        {"rows", "filter-length", "filter-minhash", "aside", "settings"}
        <= inner
        <= {attrs.get("id") for _, attrs in page.tags}
    )


def test_the_card_carries_the_reports_numbers_within_100_columns(filtered: FilterReport) -> None:
    lines = format_filter_card(filtered.model_copy(update={"masked": 3})).splitlines()
    counts = filtered.counts
    assert lines[:2] == [
        "filter data/rows.jsonl  done with 2 rows set aside  data/filtered",
        f"  rows 802 -> kept {counts.kept}, dropped {counts.dropped}, aside 2",
    ]
    assert lines[2].startswith(f"  took      length 1   refusal 2   exact {filtered.steps[2].dropped}   minhash ")
    assert lines[3:] == [
        "  masked    something in 3 kept rows",
        "  time      1.5 s   535 rows/s   2 workers",
        "  kept      data/filtered/kept.jsonl",
        "  dropped   data/filtered/dropped.parquet",
        "  aside     data/filtered/aside.jsonl",
        "            2 rows could not be read; the first:",
        "            data/rows.jsonl:17: it is no JSON",
        "  report    data/filtered/report.html",
        "next: stillhouse assess data/filtered/kept.jsonl",
    ]
    assert max(map(len, lines)) <= 100


def test_a_browser_has_no_complaint_and_asks_for_nothing(filtered: FilterReport, tmp_path: Path) -> None:
    hostile = repeat(HOSTILE, f"{RIGHT_TO_LEFT} {LONG} 🐝")
    page = written(tmp_path, filtered.model_copy(update={"examples": (hostile, *filtered.examples)}))
    assert collect_browser_complaints(tmp_path / "report.html", tmp_path / "profile") == ([], [])
    open_to_all = page.source.replace("Content-Security-Policy", "none")
    faulty = "<main><img src='http://127.0.0.1:9/x.png'><script>console.error('heard')</script>"
    (tmp_path / "faulty.html").write_text(open_to_all.replace("<main>", faulty))
    console, asked = collect_browser_complaints(tmp_path / "faulty.html", tmp_path / "other")
    assert any("heard" in line for line in console)
    assert "http://127.0.0.1:9/x.png" in asked
