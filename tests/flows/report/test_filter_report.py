import re
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from benchmarks.corpus import PlantedCorpus
from core.config.filters import ExactFilter, FilterConfig, LengthFilter, MinHashFilter, RefusalFilter
from core.runs.records import ComparedSimilarities, SimilarityBin
from core.sample import RejectionReason
from core.storage.atomic_files import count_values, read_json
from filters.base import Document, DroppedDocument
from filters.chain.filter_chain import apply_filters
from flows.data.similarity_histogram import name_filter_step
from flows.report.filter_report import (
    DROP_REASON_PHRASES,
    EXCERPT_WORDS,
    LONGEST_WORD,
    DroppedExample,
    FilterReport,
    FilterStep,
    RowCounts,
    TextComparison,
    TextExcerpt,
    UnreadableRow,
    compare_texts,
    cut_excerpt,
    format_filter_card,
    summarize_filter_report,
    write_filter_report,
)
from flows.report.similarity_plot import build_histogram_plot
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


class Page(HTMLParser):
    """What a browser would make of the page: tags with their attributes, and the text of each `del`, `ins` and `pre`."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.source = source
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {"del": [], "ins": [], "pre": [], "title": []}
        self.text = ""
        self.open: list[str] = []
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.open.append(tag)
        if tag in self.texts:
            self.texts[tag].append("")

    def handle_endtag(self, tag: str) -> None:
        while self.open and self.open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        self.text += data if "style" not in self.open else ""
        for tag in set(self.open) & self.texts.keys():
            self.texts[tag][-1] += data

    def ids(self) -> set[str]:
        return {attrs["id"] or "" for _, attrs in self.tags if "id" in attrs}


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
        counts=RowCounts(candidates=802, kept=800 - len(drops), dropped=len(drops), failed=2),
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


def own(side: TextExcerpt) -> list[str]:
    return [part.text for part in side.parts if part.own]


def words_shown(side: TextExcerpt) -> list[str]:
    return "".join(part.text for part in side.parts).split()


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
        ({"counts": {"candidates": 10, "kept": 9, "dropped": 1, "failed": 1}}, "do not add up to the candidates"),
        ({"reasons": {"near_duplicate": 2}}, "reasons: they dropped 2 rows, but counts.dropped is 1"),
        ({"steps": []}, "steps: they dropped 0 rows, but counts.dropped is 1"),
        ({"histograms": {"5 minhash": {"threshold": 0.8, "bins": []}}}, "5 minhash: no such step; steps are 1 minhash"),
    ],
)
def test_contradictory_numbers_are_refused(changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(expected)):
        small(**changes)


@pytest.mark.parametrize(
    ("counts", "reasons", "expected"),
    [
        ((0, 0, 0, 0), {}, "There was no row to filter."),
        ((1, 1, 0, 0), {}, "The only row was kept."),
        ((5, 5, 0, 0), {}, "All 5 rows kept."),
        ((4, 3, 0, 1), {}, "3 of 4 rows kept (75 %); 1 could not be read."),
        ((2000, 600, 1400, 0), {"near_duplicate": 1400},
         "600 of 2,000 rows kept (30 %); 1,400 dropped as near-duplicates."),
        ((10, 5, 5, 0), {"length": 2, "exact_duplicate": 3},
         "5 of 10 rows kept (50 %); 3 dropped as exact duplicates and 2 for their length."),
        ((10, 1, 8, 1), {"refusal": 4, "length": 2, "quality": 1, "language": 1},
         "1 of 10 rows kept (10 %); 4 dropped as refusals, 2 for their length and 2 for other reasons; "
         "1 could not be read."),
    ],
)  # fmt: skip
def test_one_sentence_summarizes_the_rows(
    counts: tuple[int, int, int, int], reasons: dict[str, int], expected: str
) -> None:
    named = dict(zip(("candidates", "kept", "dropped", "failed"), counts, strict=True))
    step = {"filter": "quality", "options": {}, "rows_in": counts[0], "dropped": counts[2]}
    assert summarize_filter_report(small(counts=named, reasons=reasons, steps=[step])) == expected


def test_every_reason_of_a_filter_has_words() -> None:
    of_a_run = {
        RejectionReason.provider,
        RejectionReason.contract,
        RejectionReason.critic,
        RejectionReason.verifier,
        RejectionReason.difficulty,
        RejectionReason.surplus,
    }
    assert set(DROP_REASON_PHRASES) == set(RejectionReason) - of_a_run


def test_differences_of_two_texts_are_marked_word_by_word(tmp_path: Path) -> None:
    example = repeat("The cat sat on the\nblack mat today.", "The cat lay on the black mat.")
    page = written(tmp_path, small(examples=[example]))
    legend = 1
    assert page.texts["del"][:-legend] == ["sat", "mat today."]
    assert page.texts["ins"][:-legend] == ["lay", "mat."]
    assert page.texts["pre"] == ["The cat sat on the\nblack mat today.", "The cat lay on the black mat."]
    assert "similarity 0.85 to a, at least 0.8" in page.text
    assert "kept: a" in page.text


def test_long_texts_begin_a_little_before_their_first_difference() -> None:
    text = [f"w{i}" for i in range(1000)]
    other = [*text[:700], "new", *text[701:]]
    left, right = compare_texts(" ".join(text), " ".join(other))
    assert (own(left), own(right)) == (["w700"], ["new"])
    assert left.before == 670
    assert len(words_shown(left)) == EXCERPT_WORDS
    assert left.before + len(words_shown(left)) + left.after == 1000


def test_a_passage_that_only_one_text_has_leaves_the_rest_of_the_other_unmarked() -> None:
    text = [f"w{i}" for i in range(400)]
    passage = [f"new{i}" for i in range(100)]
    left, right = compare_texts(" ".join(text[:200] + passage + text[200:]), " ".join(text))
    assert own(left) == [" ".join(passage)]
    assert own(right) == []


def test_a_text_that_only_ends_earlier_shows_what_the_other_continues_with() -> None:
    text = [f"w{i}" for i in range(1000)]
    left, right = compare_texts(" ".join(text[:900]), " ".join(text))
    assert (left.before, right.before) == (850, 850)
    assert own(left) == []
    assert own(right) == [" ".join(text[900:])]


@pytest.mark.parametrize("text", ["one two three", "word " * 1000, ""])
def test_two_equal_texts_are_shown_once(text: str, tmp_path: Path) -> None:
    page = written(tmp_path, small(examples=[repeat(text, text.replace(" ", "\n"))]))
    assert len(page.texts["pre"]) == 1
    assert "dropped, and kept as a: the same words" in page.text
    assert "del" not in {tag for tag, _ in page.tags}


def test_a_language_without_spaces_is_compared_by_character() -> None:
    left, right = compare_texts("看看蜂王是否强壮，蜂群", "看看蜂王是否健康，蜂群")
    assert (own(left), own(right)) == (["强壮"], ["健康"])


def test_a_very_long_word_and_a_very_long_text_are_cut_and_say_so(tmp_path: Path) -> None:
    page = written(
        tmp_path,
        small(examples=[repeat(f"{LONG} 🐝", f"{LONG}B 🐝"), repeat("a" + "\n" * 90_000 + "bee " * 1999, None)]),
    )
    assert f"{'A' * LONGEST_WORD}… ({5000 - LONGEST_WORD:,} characters more) 🐝" in page.texts["pre"][0]
    assert "… 1,850 words more" in page.texts["pre"][2]
    assert len(page.source) < 60_000


@pytest.mark.parametrize("text", ["", "   ", "one", "word " * 400])
def test_no_word_is_lost_from_the_count(text: str) -> None:
    both = TextComparison(cut_excerpt(text), compare_texts(text, "other").dropped)
    for side in both:
        assert side.before + len(words_shown(side)) + side.after == len(text.split())


def test_what_repeats_an_earlier_release_names_it_without_a_text(tmp_path: Path) -> None:
    page = written(tmp_path, small(examples=[repeat("One text only.", None, duplicate_of="release-1/7")]))
    assert page.texts["pre"] == ["One text only."]
    assert "It repeats release-1/7 of an earlier release, whose text is not available." in page.text


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
    assert {"rows", "filter-length", "filter-minhash", "aside", "settings"} <= inner <= page.ids()


def test_every_plot_has_a_name_and_every_bar_its_numbers(filtered: FilterReport, tmp_path: Path) -> None:
    page = written(tmp_path, filtered)
    plots = [attrs for _, attrs in page.tags if attrs.get("role") == "img"]
    assert len(plots) == 3
    for plot in plots:
        named_by = (plot.get("aria-labelledby") or "").split()
        assert plot.get("aria-label") or (named_by and page.ids().issuperset(named_by))
    expected = [
        re.fullmatch(r"0\.\d\d to [01]\.\d\d: (\d+) at .* over it, (\d+) under it", t) for t in page.texts["title"]
    ]
    numbers = [(int(match[1]), int(match[2])) for match in expected if match]
    step = filtered.steps[3]
    stayed = sum(one.stayed for one in filtered.histograms["4 minhash"].bins)
    assert (sum(d for d, _ in numbers), sum(s for _, s in numbers)) == (step.dropped, stayed)
    assert f"Of the {step.dropped} pairs at 0.8 or over it" in page.text
    assert "Bars under the threshold are incomplete" in page.text
    assert "no row is judged again" in page.text


def test_a_histogram_is_drawn_to_scale_on_either_side_of_its_threshold() -> None:
    plot = build_histogram_plot(
        "1 minhash", ComparedSimilarities(threshold=0.8, bins=bins([0.8] * 9 + [0.89] * 99 + [1.0], [0.79] * 9))
    )
    assert plot is not None
    before, at, over, last = plot.bars
    assert before.left < before.left + before.width <= plot.at == at.left
    assert before.dropped == 0
    assert before.stayed == at.dropped == pytest.approx(over.dropped / 2, abs=0.1)
    assert last.left + last.width == pytest.approx(100)
    assert plot.higher == [(0.88, 100), (0.94, 1)]


def test_a_histogram_without_a_pair_and_a_filter_that_took_nothing_are_left_out(tmp_path: Path) -> None:
    steps = [
        {"filter": "refusal", "options": {}, "rows_in": 10, "dropped": 0},
        {"filter": "minhash", "options": {}, "rows_in": 10, "dropped": 1},
    ]
    histograms = {name_filter_step(2, "minhash"): {"threshold": 0.8, "bins": bins([], [])}}
    page = written(tmp_path, small(steps=steps, histograms=histograms))
    assert "svg" not in {tag for tag, _ in page.tags}
    assert page.ids() == {"rows", "settings"}


def test_no_rows_at_all_make_a_page_too(tmp_path: Path) -> None:
    nothing = small(counts={"candidates": 0, "kept": 0, "dropped": 0, "failed": 0}, steps=[], reasons={})
    page = written(tmp_path, nothing)
    assert "There was no row to filter." in page.text
    assert page.ids() == set()


def test_two_filters_of_one_type_share_a_section_with_the_settings_of_both(tmp_path: Path) -> None:
    steps = [
        {"filter": "minhash", "options": {"threshold": 0.9, "index": None}, "rows_in": 10, "dropped": 0},
        {"filter": "minhash", "options": {"threshold": 0.7}, "rows_in": 10, "dropped": 1},
    ]
    histograms = {name_filter_step(i, "minhash"): {"threshold": 0.7, "bins": bins([0.9], [])} for i in (1, 2)}
    page = written(tmp_path, small(steps=steps, histograms=histograms, examples=[repeat("one", "two")]))
    assert page.source.count('<section id="filter-minhash">') == 1
    assert page.source.count("<svg") == 2
    assert page.source.count("threshold = 0.9") == page.source.count("threshold = 0.7") == 2
    assert "index" not in page.text
    assert len(page.texts["pre"]) == 2


def test_the_first_asides_say_of_how_many(tmp_path: Path) -> None:
    asides = [{"file": "rows.jsonl", "line": i, "error": "it is no JSON"} for i in range(1, 21)]
    page = written(tmp_path, small(counts={"candidates": 40, "kept": 9, "dropped": 1, "failed": 30}, asides=asides))
    assert "the first 20 of 30 are" in page.text
    assert "rows.jsonl:20" in page.text


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


def test_the_card_says_so_where_only_answers_were_compared(filtered: FilterReport) -> None:
    exact = filtered.steps[2]
    steps = (*filtered.steps[:2], exact.model_copy(update={"options": {"of": "answer"}}), *filtered.steps[3:])
    card = " ".join(format_filter_card(filtered.model_copy(update={"steps": steps})).split())
    assert 'hint: exact with of = "answer" compared answers alone' in card
    assert 'of = "answer"' not in format_filter_card(filtered)


def test_the_card_omits_lines_without_content() -> None:
    card = format_filter_card(small(counts={"candidates": 1, "kept": 0, "dropped": 1, "failed": 0}))
    assert not {word for word in ("aside", "masked", "next:", "hint:") if word in card}


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
