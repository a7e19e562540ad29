import base64
import hashlib
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml

from core.config.recipe import Recipe
from core.runs.records import (
    CollapseRecord,
    ComparedSimilarities,
    CostsRecord,
    CriticRecord,
    DatasetRecord,
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
from core.runs.student_records import StudentRecord
from core.runs.verdict_words import CollapseAssessment
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
from flows.data.dataset_card import build_dataset_card
from flows.report.pages import write_assessment_page
from flows.report.run_report import write_run_report
from flows.terminal.run_summary import format_run_card
from flows.terminal.sample_history import format_sample_history
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
        "agents": {"checks": [{"type": "constraints", "about": "A program checks every constraint.", "asks": False}]},
        "similarities": {"2 minhash": SIMILARITIES},
        "collapse": COLLAPSE,
        "dataset": DatasetRecord(
            formats=[FormatRecord(name="messages", columns=["id", "messages"], train=52, validation=6)]
        ),
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
        self.source = source
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
    m = manifest(state=RunState.failed, invocation=called, remedy="preview")
    assert format_run_card(m, RunDir(tmp_path / m.run), m.run).endswith(
        "next: stillhouse preview smoke --set samples=9"
    )


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
    m = manifest(**ended, costs=CostsRecord(spent=Spending(300, 40_000, 2_000, 1.99, 60.0)))
    card = format_run_card(m, RunDir(tmp_path / m.run), m.run)
    assert f"missing   {short}" in " ".join(card.split("\n")).replace("            ", " ")
    assert "paid      cost 1.99   300 calls   40,000 tokens in   2,000 out" in card
    assert card.endswith("next: stillhouse run smoke --resume")
    unsure = m.model_copy(update={"costs": CostsRecord(spent=Spending(300, 40_000, 2_000, 1.99, 60.0, uncounted=4))})
    limits = "cost at most 1.99   300 calls   at most 40,000 tokens in   at most 2,000 out"
    lines = " ".join(format_run_card(unsure, RunDir(tmp_path / m.run), m.run).split("\n")).replace(
        "            ", "   "
    )
    assert limits in lines
    assert "4 calls without a token count" in lines
    final = format_run_card(m.model_copy(update={"remedy": None}), RunDir(tmp_path / m.run), m.run)
    assert final.endswith(f"next: stillhouse show {m.run}"), "--resume brings nothing more"
    written(tmp_path, m, [sample("s-000000")], [])
    page = (tmp_path / m.run / "report.html").read_text()
    assert f"<strong>Missing.</strong> {short}" in page
    assert "cost 1.99, 300 calls, 40,000 tokens in, 2,000 out" in page


@pytest.mark.parametrize("bad", ["\x1b[2J", "\x07", "\x9b31m", "\u202e", "\x00"])
def test_text_for_a_terminal_has_no_characters_a_terminal_obeys(bad: str) -> None:
    hostile = dropped("s1", f"before{bad}after\nnext line")
    m = manifest(error=f"bad {bad} error", reasons={f"verifier:{bad}": 62})
    assert bad[0] not in format_sample_history(hostile)
    assert bad[0] not in format_run_card(m, RunDir(Path("runs/x")))
    assert "| next line" in format_sample_history(hostile)


def test_the_pages_counts_are_the_manifests(tmp_path: Path) -> None:
    page = written(tmp_path, manifest(), [sample("s1")], [dropped("s2")])
    labels = page.labels()
    assert "58 of 120 candidates kept" in page.text
    assert "distinct-2 below" in page.text
    assert COLLAPSE.paragraph in page.text
    assert "seeds 157, candidates 120, verified 63, kept 58." in labels
    assert "verifier 41 (max_words 41), critic 10 (relevance 10), contract 7 (generator 7), near_duplicate 4" in labels
    assert "produce 140 s, curate 3.0 s" in labels
    assert "2 of 2 first drafts were not accepted; 1 of these samples was kept after a revision" in page.text
    assert "3.214 before training, 2.449 after" in labels
    assert "98,420" in page.text


def test_the_json_report_has_the_pages_numbers(tmp_path: Path) -> None:
    m = manifest()
    passed = Verdict(revision=1, check="max_words", passed=True, evidence="it has 4 words")
    written(tmp_path, m, [sample("s1"), sample("s3", verdicts=[passed])], [dropped("s2")])
    numbers = read_json(tmp_path / m.run / "report.json")
    assert numbers["counts"] == {"candidates": 120, "kept": 58, "dropped": 55, "failed": 7}
    assert sum(numbers["reasons"].values()) == 62
    columns = ("check", "passed", "verdicts", "sent_back", "kept_later", "example")
    assert [tuple(row[column] for column in columns) for row in numbers["checks"]] == [
        ("max_words", 2, 5, 2, 1, ["s1", "it has 31 words"]),
        ("critic", 2, 3, 1, 1, ["s3", "it strays"]),
    ], "a critic sends back what no check refused"
    assert numbers["kept_by_revisions"] == {"1": 2}
    assert {row["agent"]: row["calls"] for row in numbers["agents"]} == {"generator": 6, "critic": 3}
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
    assert read_json(tmp_path / m.run / "report.json")["error"] == HOSTILE


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
@pytest.mark.parametrize("changes", [{}, EMPTY, {"collapse": None}, {"student": None}])
def test_every_state_renders(state: RunState, changes: dict[str, object], tmp_path: Path) -> None:
    m = manifest(state=state, **changes)
    page = written(tmp_path, m, [], [])
    assert m.run in page.text
    assert ("To resume" in page.text) == (state is not RunState.done)
    assert "There are no samples." in page.text


def test_browsers_have_no_complaint_of_either_page_which_ask_for_nothing(tmp_path: Path) -> None:
    record = COLLAPSE.model_copy(
        update={"evidence": [HOSTILE], "openers": [PhraseRecord(text=HOSTILE, candidate=0.25, reference=0.0)]}
    )
    m = manifest(collapse=record)
    written(tmp_path, m, [sample("s1", text=HOSTILE)], [])
    assert collect_browser_complaints(tmp_path / m.run / "report.html", tmp_path / "one") == ([], [])
    write_assessment_page(tmp_path / "page.html", Path(HOSTILE), CollapseAssessment(collapse=record, parent=COLLAPSE))
    assert collect_browser_complaints(tmp_path / "page.html", tmp_path / "other") == ([], [])


def front_matter(card: str) -> dict[str, object]:
    _, head, _ = card.split("---\n", 2)
    return dict(yaml.safe_load(head))


def test_each_form_of_a_dataset_is_a_config_of_its_card_and_pairs_are_counted() -> None:
    forms = [
        FormatRecord(name="preference", columns=["prompt", "chosen", "rejected"], train=20, validation=0),
        FormatRecord(name="alpaca", columns=["id", "instruction"], train=40, validation=4, left_out=14),
    ]
    pairs = PairsRecord(train=20, validation=0, prompts=31, paired=20, differences={"verifier:max_words": 20})
    m = manifest(dataset=DatasetRecord(formats=forms, pairs=pairs))
    card = build_dataset_card(m, RECIPE, 52, 6)
    head = front_matter(card)
    assert head["configs"] == [
        {"config_name": "preference", "default": True, "data_files": [{"split": "train", "path": "train.parquet"}]},
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
    assert "| distinct-2 | 0.61 | 0.82 | 0.79 to 0.84 | below |" in card
    assert "Not checked for truth." in card


def test_hostile_reasons_stay_in_their_table_cell() -> None:
    card = build_dataset_card(manifest(reasons={"verifier:a | b\n# c <img>": 62}), RECIPE, 52, 6)
    assert r"| verifier:a \| b # c \<img\> | 62 |" in card


@pytest.mark.parametrize(("reviews", "faulted", "is_silent"), [(20, 0, True), (19, 0, False), (500, 1, False)])
def test_few_reviews_say_nothing_about_a_critic(reviews: int, faulted: int, is_silent: bool) -> None:
    assert CriticRecord(reviews=reviews, faulted=faulted).is_silent is is_silent
