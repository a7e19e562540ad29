import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml

from core.config.recipe import Recipe
from core.runs.collapse_assessment import CollapseAssessment
from core.runs.records import (
    CollapseRecord,
    CollapseVerdict,
    ComparedSimilarities,
    FormatRecord,
    MetricRecord,
    PairsRecord,
    PhraseRecord,
    RunInvocation,
    RunManifest,
    RunState,
    SampleCounts,
    SimilarityBin,
)
from core.runs.run_dir import RunDir
from core.runs.student_records import StudentRecord, TruncationRecord
from core.sample import (
    AgentTurn,
    Candidate,
    Critique,
    Message,
    RejectionReason,
    Sample,
    SampleStatus,
    Seed,
    Spending,
    TokenUsage,
    Verdict,
)
from core.storage.atomic_files import read_json
from flows.data.dataset_card import build_dataset_card, find_size_category
from flows.report import run_report
from flows.report.collapse_page import build_metric_strips, build_trend_plots, write_assessment_page
from flows.report.run_report import write_run_report
from flows.report.training_plots import build_loss_curves
from flows.terminal.run_summary import format_run_card
from flows.terminal.sample_history import format_sample_history
from flows.terminal.text_format import format_duration, format_percent
from tests.support.browser import collect_browser_complaints

HOSTILE = "</script><img src=x onerror=alert(1)>{{7*7}}{% raw %}\x1b[31m<!--"
RECIPE = Recipe.model_validate(
    {
        "name": "constrained-instructions",
        "seeds": {"path": "topics.jsonl"},
        "verifiers": [{"type": "constraints"}, {"type": "on_topic"}],
        "student": {},
    }
)
COLLAPSE = CollapseRecord(
    reference="data/reference/english.jsonl",
    documents=400,
    tokens=1620,
    metrics=[
        MetricRecord(
            name="distinct-2", candidate=0.61, reference=0.82, low=0.79, high=0.84, meaning="Share of new word pairs."
        ),
        MetricRecord(
            name="hapax", candidate=0.12, reference=0.13, low=0.11, high=0.15, meaning="Share of words met once."
        ),
    ],
)
SIMILARITIES = ComparedSimilarities(
    threshold=0.8,
    bins=(
        SimilarityBin(low=0.76, high=0.78, dropped=0, stayed=7),
        SimilarityBin(low=0.8, high=0.82, dropped=3, stayed=0),
        SimilarityBin(low=0.98, high=1, dropped=1, stayed=0),
    ),
)
STUDENT = StudentRecord(
    start="layers",
    parameters=56_600_000,
    train_samples=52,
    held_out_samples=6,
    steps=28,
    loss_before=3.214,
    loss_after=2.449,
    seconds=90,
)


def manifest(**changes: object) -> RunManifest:
    whole = {
        "run": "constrained-instructions-3f9c2a1b",
        "digest": "3f9c2a1b77d04e52",
        "state": RunState.done,
        "started": "2026-11-25T01:41:12+00:00",
        "counts": SampleCounts(candidates=120, kept=58, dropped=55, failed=7),
        "funnel": [("seeds", 157), ("candidates", 120), ("verified", 63), ("kept", 58)],
        "reasons": {
            "verifier:max_words": 41,
            "critic:relevance": 10,
            "near_duplicate:minhash": 4,
            "contract:generator": 7,
        },
        "usage": TokenUsage(calls=412, prompt_tokens=98_420, completion_tokens=16_105),
        "seconds": {"produce": 140.0, "curate": 3.0},
        "checks": [{"type": "constraints", "about": "A program checks every constraint.", "asks": False}],
        "similarities": {"2 minhash": SIMILARITIES},
        "collapse": COLLAPSE,
        "formats": [FormatRecord(name="messages", columns=["id", "messages"], train=52, validation=6)],
        "student": STUDENT,
    }
    return RunManifest.model_validate({**whole, **changes})


EMPTY = {"counts": SampleCounts(), "funnel": [], "reasons": {}, "seconds": {}, "collapse": None, "student": None}


SYSTEM = (Message(role="system", content="You follow every rule."),)


def sample(
    name: str, state: SampleStatus = SampleStatus.kept, text: str = "Bees carry nectar home.", **changes: object
) -> Sample:
    asked = "Write about honey bees. Use at most 20 words."
    turn = {
        "attempt": 0,
        "teacher": "fake/writer",
        "usage": TokenUsage(calls=1, prompt_tokens=100, completion_tokens=20),
    }
    turns = [
        AgentTurn(agent="generator", revision=0, context=SYSTEM, asked=asked, reply="the first draft", **turn),
        AgentTurn(agent="critic", revision=0, asked="Judge it.", reply="the first judgement", **turn),
        AgentTurn(agent="generator", revision=1, context=SYSTEM, asked="Write it again.", reply=text, **turn),
    ]
    whole = {
        "id": name,
        "seed": Seed(id="1", data={"topic": "honey bees", "words": ["hive", "nectar"]}),
        "state": state,
        "candidate": Candidate(messages=[Message(role="user", content=asked), Message(role="assistant", content=text)]),
        "revisions": 1,
        "turns": turns,
        "critiques": [Critique(revision=0, scores={"relevance": 2}, faults=["it strays"], advice="Stay with bees.")],
        "verdicts": [
            Verdict(revision=0, check="max_words", passed=False, evidence="it has 31 words"),
            Verdict(revision=1, check="max_words", passed=state is SampleStatus.kept, evidence="it has 4 words"),
        ],
        "usage": TokenUsage(calls=3, prompt_tokens=300, completion_tokens=60),
    }
    return Sample.model_validate({**whole, **changes})


def dropped(name: str, text: str = "Bees are bees.") -> Sample:
    return sample(name, SampleStatus.dropped, text, reason=RejectionReason.verifier, detail="max_words")


class Page(HTMLParser):
    """What a browser would make of the page: tags with their attributes, scripts, and the text between."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.text = ""
        self.inside = ""
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.inside = tag
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""

    def handle_data(self, data: str) -> None:
        if self.inside == "script":
            self.scripts[-1] += data
        elif self.inside != "style":
            self.text += data

    def labels(self) -> str:
        return " ".join(attrs.get("aria-label") or "" for _, attrs in self.tags)


def written(where: Path, m: RunManifest, kept: list[Sample], not_kept: list[Sample]) -> Page:
    run = RunDir(where / m.run)
    write_run_report(run, m, RECIPE, kept, not_kept)
    return Page(run.report_file.read_text(encoding="utf-8"))


def test_the_card_carries_the_manifests_numbers_within_100_columns(tmp_path: Path) -> None:
    card = format_run_card(manifest(), RunDir(Path("data/runs/constrained-instructions-3f9c2a1b")))
    assert card.startswith("run constrained-instructions-3f9c2a1b  done  data/runs/")
    assert "seeds 157 -> candidates 120 -> verified 63 -> kept 58" in card
    assert "55 dropped, 7 failed   verifier:max_words 41   critic:relevance 10" in card
    collapse = [line for line in card.splitlines() if line.startswith("  verdict   ")]
    assert len(collapse) == 1
    assert collapse[0].endswith("  inconclusive, 400 of about 1,000 documents vs english.jsonl; no repetition found")
    assert "distinct-2 0.61" not in card, "the page has the metrics"
    assert "412 calls   98,420 tokens in   16,105 out   143 s" in card
    assert "held-out loss 3.21 -> 2.45" in card
    assert card.endswith("next: stillhouse show constrained-instructions-3f9c2a1b")
    assert max(map(len, card.splitlines())) <= 100


def test_a_run_that_a_broken_check_ended_leads_to_a_preview(tmp_path: Path) -> None:
    called = RunInvocation(recipe="smoke", folder="/x", overrides=("samples=9",))
    m = manifest(state=RunState.failed, invocation=called, resumable=False, checks_broke=True)
    assert format_run_card(m, RunDir(tmp_path / m.run), m.run).endswith(
        "next: stillhouse preview smoke --set samples=9"
    )


def test_a_card_of_many_reasons_wraps_under_its_label_and_sums_the_rest() -> None:
    reasons = {f"verifier:a_check_with_a_long_name_{i}": 1 for i in range(55)} | {"contract:generator": 7}
    lines = format_run_card(manifest(reasons=reasons), RunDir(Path("runs/x"))).splitlines()
    start = next(i for i, line in enumerate(lines) if "not kept" in line)
    assert lines[start + 1].startswith(" " * 12 + "verifier:")
    assert any("44 more reasons: 44" in line for line in lines)
    assert max(map(len, lines)) <= 100


@pytest.mark.parametrize("state", [RunState.failed, RunState.interrupted])
def test_an_unfinished_run_says_why_and_how_it_is_resumed_as_it_was_called(
    state: RunState, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    called = RunInvocation(
        verb="generate", recipe="my a.toml", file="/x/my a.toml", folder="/x", overrides=("samples=9", "a.b={c=1}")
    )
    m = manifest(state=state, error="main: connection refused; start the server", invocation=called, **EMPTY)
    run = RunDir(tmp_path / m.run)
    card = format_run_card(m, run)
    assert f"  {state}  " in card
    assert "error     main: connection refused; start the server" in card
    last = f"next: stillhouse generate {{}} --set samples=9 --set 'a.b={{{{c=1}}}}' --runs-dir {tmp_path} --resume"
    assert card.endswith(last.format("'/x/my a.toml'")), "from another folder"
    assert format_run_card(m, run, str(run.path), "elsewhere").endswith(last.format("'/x/my a.toml'"))
    assert format_run_card(m, run, m.run, "data/runs").endswith("--set 'a.b={c=1}' --resume")
    monkeypatch.setattr(Path, "cwd", lambda: Path("/x"))
    assert format_run_card(m, run).endswith(last.format("'my a.toml'")), "from where it was called"
    runs_on = m.model_copy(update={"state": RunState.running})
    assert format_run_card(runs_on, run, m.run, str(tmp_path)).endswith(
        f"stillhouse report {m.run} --runs-dir {tmp_path}"
    )
    before = m.model_copy(update={"invocation": None})  # of a release
    assert format_run_card(before, run, m.run, str(tmp_path)).endswith(
        f"stillhouse report {m.run} --runs-dir {tmp_path}"
    )


def test_a_run_that_ended_short_says_what_is_missing_and_what_was_paid(tmp_path: Path) -> None:
    short = "budget.cost = 2 is reached: 1.9900 spent; continue with --resume and a larger budget"
    called = RunInvocation(recipe="smoke", folder="/x")
    ended: dict[str, Any] = {"state": RunState.partial, "shortfalls": [short], "invocation": called}
    m = manifest(**ended, spent=Spending(300, 40_000, 2_000, 1.99, 60.0))
    card = format_run_card(m, RunDir(tmp_path / m.run), m.run)
    assert f"missing   {short}" in " ".join(card.split("\n")).replace("            ", " ")
    assert "paid      cost 1.99   300 calls   40,000 tokens in   2,000 out" in card
    assert card.endswith("next: stillhouse run smoke --resume")
    unsure = m.model_copy(update={"spent": Spending(300, 40_000, 2_000, 1.99, 60.0, uncounted=4)})
    limits = "cost at most 1.99   300 calls   at most 40,000 tokens in   at most 2,000 out"
    lines = " ".join(format_run_card(unsure, RunDir(tmp_path / m.run), m.run).split("\n")).replace(
        "            ", "   "
    )
    assert limits in lines
    assert "4 calls without a token count" in lines
    final = format_run_card(m.model_copy(update={"resumable": False}), RunDir(tmp_path / m.run), m.run)
    assert final.endswith(f"next: stillhouse show {m.run}"), "--resume brings nothing more"
    written(tmp_path, m, [sample("s-000000")], [])
    page = (tmp_path / m.run / "report.html").read_text()
    assert f"<strong>Missing.</strong> {short}" in page
    assert "cost 1.99, 300 calls, 40,000 tokens in, 2,000 out" in page


def test_a_done_run_that_kept_nothing_points_to_its_samples(tmp_path: Path) -> None:
    m = manifest(**{**EMPTY, "counts": SampleCounts(candidates=3, dropped=3), "reasons": {"verifier:max_words": 3}})
    assert format_run_card(m, RunDir(tmp_path / m.run)).endswith(f"next: stillhouse show {tmp_path / m.run}")
    assert "0 of 3 candidates kept" in run_report.summarize_run(m)


def test_the_conclusion_of_a_run_has_the_headline_of_the_verdict() -> None:
    assert f"; {COLLAPSE.line}; the student" in run_report.summarize_run(manifest())


def test_a_sample_is_printed_in_the_order_it_happened() -> None:
    text = format_sample_history(sample("s1"))
    order = [
        "honey bees",
        "hive, nectar",
        "revision 0",
        "system",
        "You follow every rule.",
        "the first draft",
        "the first judgement",
        "relevance 2/5",
    ]
    order += ["it strays", "Stay with bees.", "FAIL  max_words  it has 31 words", "revision 1"]
    order += ["1 message as in the first call of the generator", "Write it again."]
    order += ["pass  max_words  it has 4 words", "answer", "outcome   kept after 1 revision", "3 calls"]
    places = [text.index(part) for part in order]
    assert places == sorted(places)
    assert max(map(len, text.splitlines())) <= 100


def test_thinking_is_shown_before_its_reply_and_shortened_in_the_terminal() -> None:
    whole = sample("s1")
    thought = f"I start with bees. {'And bees. ' * 200}I end with bees."
    turn = whole.turns[0].model_copy(update={"reasoning": thought})
    text = format_sample_history(whole.model_copy(update={"turns": [turn, *whole.turns[1:]]}))
    order = [
        "Use at most 20 words.",
        "thinking",
        "I start with bees.",
        "characters)",
        "I end with bees.",
        "the first draft",
    ]
    places = [text.index(part) for part in order]
    assert places == sorted(places)
    assert len(text) < len(format_sample_history(whole)) + 1200
    assert max(map(len, text.splitlines())) <= 100
    assert "thinking" not in format_sample_history(whole)


def test_a_failed_sample_without_a_candidate_is_shown_with_its_seed(tmp_path: Path) -> None:
    failed = sample(
        "s1",
        SampleStatus.failed,
        reason=RejectionReason.contract,
        detail="generator",
        candidate=Candidate(messages=[]),
        revisions=0,
        critiques=[],
        verdicts=[],
    )
    assert "outcome   failed as first written, for contract: generator" in format_sample_history(failed)
    assert "\nanswer" not in format_sample_history(failed)
    page = written(tmp_path, manifest(), [], [failed])
    assert "honey bees · hive, nectar" in page.text
    assert "no readable candidate" in page.text


@pytest.mark.parametrize("bad", ["\x1b[2J", "\x07", "\x9b31m", "\u202e", "\x00"])
def test_text_for_a_terminal_has_no_characters_a_terminal_obeys(bad: str) -> None:
    hostile = dropped("s1", f"before{bad}after\nnext line")
    m = manifest(error=f"bad {bad} error", reasons={f"verifier:{bad}": 62}, gates=[f"hapax {bad}"])
    assert bad[0] not in format_sample_history(hostile)
    assert bad[0] not in format_run_card(m, RunDir(Path("runs/x")))
    assert "| next line" in format_sample_history(hostile)


def test_card_and_report_count_truncated_conversations_and_name_the_setting_that_truncates_none(tmp_path: Path) -> None:
    found = TruncationRecord(truncated=87, conversations=1573, longest=812, max_tokens=256)
    m = manifest(student=STUDENT.model_copy(update={"truncation": found}))
    run = RunDir(tmp_path / m.run)
    card = " ".join(format_run_card(m, run).split())
    assert "87 of 1,573 conversations are longer than max_tokens = 256 and were truncated" in card
    assert "--set student.max_tokens=812" in card
    run.path.mkdir()
    write_run_report(run, m, RECIPE, [], [])
    page = run.report_file.read_text()
    assert "<dt>conversations truncated</dt><dd>87 of 1,573</dd>" in page
    assert "the longest has 812 tokens: --set student.max_tokens=812 truncates none" in page
    record = json.loads(run.report_file.with_suffix(".json").read_text())["student"]["truncation"]
    assert record == found.model_dump()


def test_the_pages_counts_are_the_manifests(tmp_path: Path) -> None:
    page = written(tmp_path, manifest(), [sample("s1")], [dropped("s2")])
    labels = page.labels()
    assert "58 of 120 candidates kept" in page.text
    assert "distinct-2 below" in page.text
    assert COLLAPSE.paragraph in page.text
    assert "seeds 157, candidates 120, verified 63, kept 58." in labels
    assert "verifier 41 (max_words 41), critic 10 (relevance 10), contract 7 (generator 7), near_duplicate 4" in labels
    assert "produce 140 s, curate 3.0 s" in labels
    assert "max_words 1 of 4" in labels
    assert "3.214 before training, 2.449 after" in labels
    assert "98,420" in page.text


def test_the_json_report_has_the_pages_numbers(tmp_path: Path) -> None:
    m = manifest()
    written(tmp_path, m, [sample("s1")], [dropped("s2")])
    numbers = read_json(tmp_path / m.run / "report.json")
    assert numbers["counts"] == {"candidates": 120, "kept": 58, "dropped": 55, "failed": 7}
    assert sum(numbers["reasons"].values()) == 62
    assert numbers["checks"] == [{"check": "max_words", "passed": 1, "verdicts": 4, "share": 0.25}]
    assert numbers["kept_by_revisions"] == {"1": 1}
    assert {row["agent"]: row["calls"] for row in numbers["agents"]} == {"generator": 4, "critic": 2}
    assert numbers["recipe"]["name"] == "constrained-instructions"


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    bad = dropped("s1", HOSTILE).model_copy(update={"detail": HOSTILE})
    answered = bad.candidate.messages[-1].model_copy(update={"reasoning": f"thought {HOSTILE}"})
    shown = bad.candidate.messages[0].model_copy(update={"images": (f"https://x/{HOSTILE}",)})
    turn = bad.turns[0].model_copy(update={"reasoning": f"thought {HOSTILE}"})
    candidate = bad.candidate.model_copy(update={"messages": [shown, answered]})
    bad = bad.model_copy(update={"candidate": candidate, "turns": [turn, *bad.turns[1:]]})
    m = manifest(
        error=HOSTILE,
        gates=[HOSTILE],
        reasons={f"verifier:{HOSTILE}": 62},
        collapse=COLLAPSE.model_copy(update={"evidence": [HOSTILE], "findings": {HOSTILE: []}}),
    )
    page = written(tmp_path, m, [], [bad])
    assert "{{7*7}}{% raw %}" in page.text
    assert page.text.count(f"thought {HOSTILE[:40]}") == 2, "of the turn and of the message"
    assert "</script><img src=x onerror=alert(1)>" in page.text
    assert "\x1b" not in page.text
    assert "img" not in {tag for tag, _ in page.tags}
    assert not [name for _, attrs in page.tags for name in attrs if name.startswith("on")]
    assert len(page.scripts) == 1


def test_only_the_pages_own_script_may_run_and_nothing_is_loaded(tmp_path: Path) -> None:
    page = written(tmp_path, manifest(), [sample("s1")], [])
    policy = next(attrs["content"] for tag, attrs in page.tags if attrs.get("http-equiv") == "Content-Security-Policy")
    digest = base64.b64encode(hashlib.sha256(page.scripts[0].encode()).digest()).decode()
    assert policy is not None
    assert f"script-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'")
    links = [attrs.get("href") or attrs.get("src") or "" for _, attrs in page.tags]
    assert all(link.startswith(("#", "data:")) for link in links if link)


@pytest.mark.parametrize("state", list(RunState))
@pytest.mark.parametrize("changes", [{}, EMPTY, {"collapse": None}, {"student": None, "gates": ["distinct-2"]}])
def test_every_state_renders(state: RunState, changes: dict[str, object], tmp_path: Path) -> None:
    m = manifest(state=state, **changes)
    page = written(tmp_path, m, [], [])
    assert m.run in page.text
    assert ("To resume" in page.text) == (state is not RunState.done)
    assert "There are no samples." in page.text


def test_every_plot_has_a_name(tmp_path: Path) -> None:
    page = written(tmp_path, manifest(), [sample("s1")], [])
    plots = [attrs for _, attrs in page.tags if attrs.get("role") == "img"]
    ids = {attrs["id"] for _, attrs in page.tags if attrs.get("id")}
    assert len(plots) == 6 + len(COLLAPSE.metrics)
    for plot in plots:
        named_by = (plot.get("aria-labelledby") or "").split()
        assert plot.get("aria-label") or (named_by and ids.issuperset(named_by))


def test_the_page_draws_how_alike_the_compared_pairs_were(tmp_path: Path) -> None:
    page = written(tmp_path, manifest(), [sample("s1")], [])
    assert "2 minhash: pairs by similarity, threshold 0.8" in page.text
    assert "4 pairs at the threshold or over it, 7 compared pairs under it" in page.text
    assert "Similarity" not in written(tmp_path, manifest(similarities={}), [], []).text
    nothing = {"2 minhash": SIMILARITIES.model_copy(update={"bins": ()})}
    assert "No two samples were similar enough" in written(tmp_path, manifest(similarities=nothing), [], []).text


def log_of(student: Path, lines: list[dict[str, float]]) -> Path:
    student.mkdir(parents=True)
    (student / "training_log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return student


def test_the_course_of_a_training_is_drawn_from_its_log(tmp_path: Path) -> None:
    losses = [4.0, 3.0, 1.0, 2.0]
    lines: list[dict[str, float]] = [
        {"step": step, "loss": loss, "lr": 1e-4, "tokens": 9} for step, loss in enumerate(losses, 1)
    ]
    lines[1]["held_out"], lines[3]["held_out"] = 2.5, 2.75
    m = manifest()
    log_of(tmp_path / m.run / "student", lines)
    training, held_out = build_loss_curves(tmp_path / m.run / "student", 3.25)
    # 200 by 84 with 8 free on each side: the most is at the top, the least at the bottom.
    assert training.line == "54,8 100,30.7 146,76 192,53.3"
    assert (training.first, training.last, training.least, training.step) == (4.0, 2.0, 1.0, 3)
    assert held_out.line == "8,8 100,76 192,53.3"
    labels = written(tmp_path, m, [sample("s1")], []).labels()
    assert "held-out loss over 28 steps: from 3.214 to 2.750, least 2.500 at step 2." in labels


def test_a_long_training_is_drawn_by_means_and_several_objectives_apart(tmp_path: Path) -> None:
    lines: list[dict[str, float]] = [
        {"step": step, "loss": float(step % 5), "lr": 1.0, "tokens": 9, "sft": 1.0, "jsd": 2.0}
        for step in range(1, 501)
    ]
    curves = build_loss_curves(log_of(tmp_path / "student", lines), 3.25)
    assert [curve.name for curve in curves] == ["loss in training", "sft", "jsd"]
    assert len(curves[0].line.split()) == 100
    assert {point.split(",")[1] for point in curves[0].line.split()} == {"76"}, "the mean of five steps is always 2"
    assert build_loss_curves(tmp_path, 3.25) == []


def test_a_page_of_thousands_holds_the_kept_first_and_says_what_it_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_report, "MOST_EMBEDDED_SAMPLES", 5)
    page = written(tmp_path, manifest(), [sample(f"k{i}") for i in range(4)], [dropped(f"d{i}") for i in range(3)])
    shown = [attrs["id"] for tag, attrs in page.tags if tag == "details" and attrs.get("class") == "sample"]
    assert shown == ["sample-k0", "sample-k1", "sample-k2", "sample-k3", "sample-d0"]
    assert "5 of 7 samples are on this page, kept ones first; 2 are left out." in page.text


def test_the_questions_of_a_check_are_numbered_and_only_repairs_are_called_so(tmp_path: Path) -> None:
    one = sample("s1")
    turn = one.turns[1].model_copy(update={"agent": "verifier"})
    looks = [turn.model_copy(update={"attempt": attempt}) for attempt in (0, 100, 201)]
    page = written(tmp_path, manifest(), [one.model_copy(update={"turns": [*one.turns, *looks]})], [])
    tags = re.findall(r"question \d+(?:\s+repair \d+)?|repair \d+", page.text)
    assert [" ".join(tag.split()) for tag in tags] == ["question 2", "question 3 repair 1"]


def test_a_very_long_text_is_cut_in_the_page_and_says_so(tmp_path: Path) -> None:
    page = written(tmp_path, manifest(), [sample("s1", text="bee " * 2000)], [])
    assert "(4,000 characters more)" in page.text


def test_a_comparison_that_could_not_be_made_says_why_everywhere(tmp_path: Path) -> None:
    m = manifest(
        collapse=COLLAPSE.model_copy(update={"metrics": [], "evidence": ["too few samples have words in them"]})
    )
    line = "verdict   inconclusive, nothing compared with english.jsonl: too few samples have words in them"
    assert line in format_run_card(m, RunDir(tmp_path / m.run))
    nothing = "Nothing was compared, so nothing is known about collapse (too few samples have words in them)."
    assert nothing in written(tmp_path, m, [], []).text
    assert nothing in build_dataset_card(m, RECIPE, 52, 6)


def test_the_page_says_what_was_found_and_how_documents_begin(tmp_path: Path) -> None:
    record = COLLAPSE.model_copy(
        update={
            "verdict": CollapseVerdict.collapse,
            "evidence": ["REPEAT: the same text again", HOSTILE],
            "openers": [PhraseRecord(text="the best way", candidate=0.25, reference=0.001)],
        }
    )
    page = written(tmp_path, manifest(collapse=record), [], [])
    assert "REPEAT: the same text again" in page.text
    assert "the best way25.0 %0.1 %" in page.text.replace("\n", "")
    assert "sample at a higher temperature" in page.text
    assert "Over the generations" not in page.text, "it is the first one"


def test_browsers_have_no_complaint_of_either_page_which_ask_for_nothing(tmp_path: Path) -> None:
    record = COLLAPSE.model_copy(
        update={"evidence": [HOSTILE], "openers": [PhraseRecord(text=HOSTILE, candidate=0.25, reference=0.0)]}
    )
    m = manifest(collapse=record)
    written(tmp_path, m, [sample("s1", text=HOSTILE)], [])
    assert collect_browser_complaints(tmp_path / m.run / "report.html", tmp_path / "one") == ([], [])
    write_assessment_page(tmp_path / "page.html", Path(HOSTILE), CollapseAssessment(collapse=record, parent=COLLAPSE))
    assert collect_browser_complaints(tmp_path / "page.html", tmp_path / "other") == ([], [])


def test_generations_are_drawn_with_where_real_text_varies() -> None:
    later = COLLAPSE.model_copy(
        update={
            "metrics": [COLLAPSE.metrics[0].model_copy(update={"candidate": 0.41, "low": 0.6}), COLLAPSE.metrics[1]]
        }
    )
    first, second = build_trend_plots({"0": COLLAPSE, "this": later})
    assert (first.name, second.name) == ("distinct-2", "hapax")
    assert [point.place for point in first.points] == ["below", "below"]
    assert first.points[0].x < first.points[1].x
    assert first.points[0].y < first.points[1].y, "lower is further down"
    assert len(first.band.split()) == 4
    assert first.words.endswith("generation this: 0.41, below the real range of 0.6 to 0.84")
    assert build_trend_plots({"0": COLLAPSE.model_copy(update={"metrics": []}), "this": later}) == []


def test_a_metric_outside_its_band_is_marked_at_its_position() -> None:
    below, inside = build_metric_strips(COLLAPSE)
    assert (below.place, inside.place) == ("below", "inside")
    assert below.candidate < below.low < below.reference < below.high
    assert inside.low < inside.candidate < inside.high


def test_a_metric_that_is_one_number_everywhere_still_has_a_strip() -> None:
    flat = MetricRecord(name="x", candidate=1, reference=1, low=1, high=1, meaning="")
    [strip] = build_metric_strips(COLLAPSE.model_copy(update={"metrics": [flat]}))
    assert strip.low == strip.high == strip.candidate


def front_matter(card: str) -> dict[str, object]:
    _, head, _ = card.split("---\n", 2)
    return dict(yaml.safe_load(head))


def test_the_dataset_cards_front_matter_names_the_files() -> None:
    head = front_matter(build_dataset_card(manifest(), RECIPE, 52, 6))
    assert head["configs"] == [
        {
            "config_name": "messages",
            "default": True,
            "data_files": [
                {"split": "train", "path": "train.parquet"},
                {"split": "validation", "path": "validation.parquet"},
            ],
        }
    ]
    assert head["size_categories"] == ["n<1K"]
    assert "synthetic" in list(head["tags"])  # type: ignore[call-overload]


def test_each_form_of_a_dataset_is_a_config_of_its_card_and_pairs_are_counted() -> None:
    forms = [
        FormatRecord(name="preference", columns=["prompt", "chosen", "rejected"], train=20, validation=0),
        FormatRecord(name="alpaca", columns=["id", "instruction"], train=40, validation=4, left_out=14),
    ]
    pairs = PairsRecord(train=20, validation=0, prompts=31, paired=20, differences={"verifier:max_words": 20})
    m = manifest(formats=forms, pairs=pairs)
    card = build_dataset_card(m, RECIPE, 52, 6)
    head = front_matter(card)
    assert head["configs"] == [
        {
            "config_name": "preference",
            "default": True,
            "data_files": [{"split": "train", "path": "train.parquet"}],
        },
        {
            "config_name": "alpaca",
            "data_files": [
                {"split": "train", "path": "alpaca/train.parquet"},
                {"split": "validation", "path": "alpaca/validation.parquet"},
            ],
        },
    ]
    assert "dpo" in list(head["tags"])  # type: ignore[call-overload]
    assert "20 pairs of 31 prompts" in card
    assert r"| verifier:max\_words | 20 |" in card
    assert "| `alpaca` | 40 | 4 | 14 |" in card
    assert 'alpaca = load_dataset("path/to/dataset", "alpaca")' in card
    assert "| `chosen` |" in card


def test_the_dataset_card_says_how_it_was_made_and_what_it_is_not() -> None:
    card = build_dataset_card(manifest(), RECIPE, 52, 6)
    assert "58 samples of 120 candidates (48 %); 55 dropped, 7 failed" in card
    assert "**Teacher** `local/smollm2-135m`, as generator and critic." in card
    assert "**Verifier** `constraints`" in card
    assert "| distinct-2 | 0.61 | 0.82 | 0.79 to 0.84 | below |" in card
    assert "Not checked for truth." in card
    assert "Apache-2.0" in card
    assert card.endswith("\n")


def test_a_baselines_dataset_card_claims_no_check() -> None:
    single = Recipe.model_validate({**RECIPE.model_dump(), "topology": {"kind": "single"}})
    all_to_train = FormatRecord(name="messages", columns=["id", "messages"], train=52, validation=0)
    card = build_dataset_card(manifest(collapse=None, formats=[all_to_train]), single, 52, 0)
    assert "checked before they were kept" not in card
    assert "**Verifiers**: none decided" in card
    assert "Not measured." in card
    assert "validation.parquet" not in card.split("---\n", 2)[1]


def test_hostile_reasons_stay_in_their_table_cell() -> None:
    card = build_dataset_card(manifest(reasons={"verifier:a | b\n# c <img>": 62}), RECIPE, 52, 6)
    assert r"| verifier:a \| b # c \<img\> | 62 |" in card


@pytest.mark.parametrize(
    ("rows", "category"),
    [(0, "n<1K"), (999, "n<1K"), (1000, "1K<n<10K"), (50_000, "10K<n<100K"), (2_000_000, "1M<n<10M"), (10**9, "n>1B")],
)
def test_size_categories_are_the_hubs(rows: int, category: str) -> None:
    assert find_size_category(rows) == category


@pytest.mark.parametrize(
    ("share", "shown"), [(0, "0 %"), (0.001, "1 %"), (0.483, "48 %"), (0.999, "99 %"), (1, "100 %")]
)
def test_only_none_is_0_percent_and_only_all_is_100(share: float, shown: str) -> None:
    assert format_percent(share) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.21, "0.2 s"), (143, "143 s"), (1790, "30 min"), (7199, "2 h 00 min"), (9000, "2 h 30 min")],
)
def test_durations_are_readable(seconds: float, shown: str) -> None:
    assert format_duration(seconds) == shown


def test_reasons_of_one_kind_are_grouped_and_none_is_lost() -> None:
    reasons = {f"near_duplicate:repeats sample {i}": 1 for i in range(30)} | {"critic:relevance": 9, "verifier": 2}
    groups = run_report.group_drop_reasons(reasons)
    assert [(g.reason, g.samples) for g in groups] == [("near_duplicate", 30), ("critic", 9), ("verifier", 2)]
    assert groups[0].details[-1] == ("23 more", 23)
    assert all(g.samples == sum(count for _, count in g.details) for g in groups)


def test_a_report_is_valid_json_even_with_hostile_text(tmp_path: Path) -> None:
    m = manifest(error=HOSTILE)
    written(tmp_path, m, [], [])
    assert json.loads((tmp_path / m.run / "report.json").read_text())["error"] == HOSTILE


def test_the_last_reasons_of_a_card_are_counted_in_words() -> None:
    reasons = {f"verifier:check_{i}": 40 - i for i in range(13)}
    record = manifest().model_copy(update={"reasons": reasons})
    assert "1 more reason: 28" in format_run_card(record, RunDir(Path("data/runs/x-3f9c2a1b")))
    record = manifest().model_copy(update={"reasons": {**reasons, "length": 2}})
    assert "2 more reasons: 30" in format_run_card(record, RunDir(Path("data/runs/x-3f9c2a1b")))


def test_an_assessment_shows_code_and_names_what_it_speaks_of(tmp_path: Path) -> None:
    phrase = PhraseRecord(text="<b>and</b>", candidate=0.5, reference=0.0)
    record = COLLAPSE.model_copy(
        update={
            "verdict": CollapseVerdict.collapse,
            "findings": {"repetition": ["openers"], "tail": []},
            "openers": [phrase],
        }
    )
    write_assessment_page(tmp_path / "page.html", Path("rows.jsonl"), CollapseAssessment(collapse=record))
    page = (tmp_path / "page.html").read_text()
    assert "`" not in page
    assert "<code>lineage.real</code>" in page
    assert "50 % of the documents begin “&lt;b&gt;and&lt;/b&gt;”" in page
