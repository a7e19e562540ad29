"""Coverage gaps: they are found, a fair sample has none, and seeds lead back to them."""

import asyncio
import json
import random
import re
import shlex
import shutil
from pathlib import Path

import polars as pl
import pytest

import stillhouse
from agents.calls.agent_context import LocalAgentContext
from agents.calls.call_ledger import CallLedger
from core.config.recipe import ENGLISH_REFERENCE
from core.project_files import PROJECT
from filters.collapse.matched_samples import TokenCorpus, split_into_words
from filters.collapse.reference_corpus import ReferenceCorpus
from flows.recipes.recipe_catalog import load_recipe_plan
from plugins.features.coverage_gaps import MAX_LACKING_SHARE, GapReport, find_coverage_gaps
from plugins.features.feature_gaps import find_dataset_feature_gaps
from plugins.features.feature_labelling import add_labels, read_labels
from plugins.features.feature_labels import FeatureEvidence, FeatureLabel, ask_for_labels
from plugins.features.tests.conftest import write_rows, write_texts
from teachers.base import TeacherQuestion
from tests.flows.commands.test_commands import called, passages, written
from tests.support.scripted_teacher import ScriptedTeacher, open_scripted_dispatcher

TEXTS = [
    json.loads(line)["text"] for line in Path(PROJECT / ENGLISH_REFERENCE).read_text(encoding="utf-8").splitlines()
]
TAKEN = ("house", "letter", "family")


class Sides:
    """Real text, and the same text drawn once more."""

    def __init__(self, seed: int) -> None:
        texts = random.Random(seed).sample(TEXTS, len(TEXTS))
        self.own, self.real = texts[:1500], texts[1500:]
        self.reference = ReferenceCorpus.from_texts(self.real, "real")

    def gaps(self, texts: list[str], starts: int = 30) -> GapReport:
        documents = [words for text in texts if (words := split_into_words(text))]
        found = find_coverage_gaps(TokenCorpus.from_words(documents, self.reference.vocabulary), self.reference, starts)
        assert found
        return found


@pytest.fixture(scope="module")
def sides() -> Sides:
    return Sides(1)


def without(texts: list[str]) -> list[str]:
    return [text for text in texts if not set(TAKEN) & set(split_into_words(text))]


def test_a_fair_sample_has_no_gaps() -> None:
    """`FALSE_ALARM_PROBABILITY` allows one draw in 100 to show a gap. Nine draws find a rate of 30 in 100 with a probability of
    0.96.
    """
    for seed in range(3):
        drawn = Sides(seed)
        for size in (30, 300, 1500):
            found = drawn.gaps(drawn.own[:size])
            assert not found.topics + found.words, (seed, size)
            assert not found.starts


def test_exactly_the_removed_words_are_gaps(sides: Sides) -> None:
    found = sides.gaps(without(sides.own))
    assert {gap.name for gap in found.words} == set(TAKEN)
    for gap in found.words:
        assert gap.here == 0.0
        share = sum(gap.name in split_into_words(text) for text in sides.real) / len(sides.real)
        assert gap.real == pytest.approx(share, abs=0.002)


def test_a_word_at_half_of_its_share_is_lacking_and_above_it_is_not(sides: Sides) -> None:
    """At 30,000 documents any difference is real; only a large one is a gap."""
    have, have_not = ([t for t in sides.real if ("letter" in split_into_words(t)) is has] for has in (True, False))
    share = len(have) / len(sides.real)
    for part, expected in ((0.45, True), (0.6, False)):
        count = round(part * share * 30_000)
        texts = [have[i % len(have)] for i in range(count)]
        texts += [have_not[i % len(have_not)] for i in range(30_000 - count)]
        assert ("letter" in {gap.name for gap in sides.gaps(texts).words}) is expected
    assert MAX_LACKING_SHARE == 0.5


def test_texts_like_the_seeds_close_the_gap(sides: Sides) -> None:
    poor = without(sides.own)
    found = sides.gaps(poor, starts=80)
    mended = sides.gaps([*poor, *(sides.real[start.place] for start in found.starts)])
    assert not mended.words


REFERENCE = PROJECT / "data/reference/english.jsonl"

__all__ = ["passages"]


def test_gaps_prints_missing_topics_and_its_seeds_feed_the_next_run(
    passages: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    real = written(tmp_path / "real.jsonl", passages[1500:])
    poor = written(tmp_path / "poor.jsonl", [text for text in passages[:1500] if "house" not in text.lower()])
    seeds = tmp_path / "my seeds.jsonl"
    words = ["gaps", poor, "--reference", real, "--out", str(seeds), "-n", "8"]
    code, out, _ = called(capsys, *words)
    assert code == 0
    assert [line.split()[:2] for line in out.splitlines() if line.startswith("  house ")] == [["house", "0.0%"]]
    rows = [json.loads(line) for line in seeds.read_text().splitlines()]
    assert len(rows) == 8
    assert all(passages[1499 + row["number"]] == row["text"] for row in rows)
    assert sum("house" in row["words"] for row in rows) >= 4
    take = out.splitlines()[-1].removeprefix("hint: generate samples for the gaps: stillhouse run RECIPE ")
    code, out, _ = called(capsys, "preview", "smoke", *shlex.split(take), "-n", "1")
    assert (code, out.count("outcome")) == (0, 1)
    assert "house" in out
    code, _, err = called(capsys, *words)
    assert (code, err) == (2, f"error: {seeds}: exists already; name another file, or remove it\n")


def test_a_file_without_rows_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text("\n")
    code, text, err = called(capsys, "gaps", str(file), "--reference", str(REFERENCE))
    assert (code, text) == (2, "")
    assert f"{file}: has no rows; give a file or a folder with one at least\n" in err


def test_gaps_are_frames(tmp_path: Path) -> None:
    frame = pl.DataFrame({"text": ["The cat is on the mat and the dog is in the fog."] * 200})
    lacking = stillhouse.gaps(frame, REFERENCE, tmp_path / "seeds.jsonl", number=5)
    assert lacking.words.columns == ["name", "here", "real"]
    assert (lacking.words["real"] > lacking.words["here"]).all()
    assert (tmp_path / "seeds.jsonl").read_text().count("\n") == lacking.report.seeds


def test_column_names_reach_the_reader(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps({"asked": "Why?", "said": "Because."}) + "\n")
    code, _, err = called(
        capsys, "gaps", str(file), "--reference", str(REFERENCE), "--columns", "user=asked,assistant=sad"
    )
    assert (code, "has no `sad`, which --columns names" in err) == (2, True)


WITH = [f"{'The bees left, all of them. ' * 30}The bees (number {n}) left." for n in range(20)]
"""With brackets after 800 characters: no passage is cut."""
WITHOUT = [f"The rivers of place {n} rise." for n in range(20)]


def answer(question: TeacherQuestion) -> str:
    """Explains the first feature by its brackets and detects them; calls every other feature a tense, and finds it nowhere."""
    asked = question.messages[-1].content
    if question.contract == "Explanation":
        label = "text in brackets" if "(«" in asked else "past tense"
        return json.dumps({"common": "They are alike.", "label": label})
    passages = re.findall(r"^(\d+)\. (.*)$", asked, re.MULTILINE)
    shown = "brackets" in asked.splitlines()[0]
    return json.dumps({"numbers": [int(number) for number, text in passages if shown and "(" in text]})


def build_evidence(feature: int, mark: str) -> FeatureEvidence:
    return FeatureEvidence(
        feature, [text.replace("(number", mark) for text in WITH[:10]], WITHOUT[:10], WITH[10:], WITHOUT[10:]
    )


def test_a_label_is_confirmed_only_if_it_detects_held_out_passages(tmp_path: Path) -> None:
    plan, teacher = load_recipe_plan("smoke", []), ScriptedTeacher(answer)
    evidence = [build_evidence(3, "(«number»"), build_evidence(5, "(number")]

    async def label() -> list[FeatureLabel]:
        with CallLedger(tmp_path / "calls.jsonl") as ledger:
            async with open_scripted_dispatcher(plan, teacher, tmp_path) as dispatcher:
                return await ask_for_labels(LocalAgentContext(plan, dispatcher, ledger), evidence, lambda _text: None)

    first, second = asyncio.run(label())
    assert (first.feature, first.label, first.balanced_accuracy, first.is_confirmed) == (
        3,
        "text in brackets",
        1.0,
        True,
    )
    assert (second.feature, second.balanced_accuracy, second.is_confirmed) == (5, 0.5, False)
    # No passage of a detection was shown in the explanation.
    explained = "".join(q.messages[-1].content for q in teacher.asked if q.contract == "Explanation")
    detected = "".join(q.messages[-1].content for q in teacher.asked if q.contract == "Detection")
    assert all(text not in explained and text in detected for text in (*WITH[10:], *WITHOUT[10:]))
    assert len(teacher.asked) == 2 * (1 + 4)

    add_labels(tmp_path, [first, second])
    add_labels(tmp_path, [second.model_copy(update={"label": "later"})])
    assert {feature: label.label for feature, label in read_labels(tmp_path).items()} == {
        3: "text in brackets",
        5: "later",
    }


def write_long_texts(seed: int, *, brackets: bool) -> list[str]:
    """The texts of the other tests after 170 words. With brackets, in half of them; all go on then, with brackets at the end."""
    texts = [f"{'tea ' * 170}{text}" for text in write_texts(120, seed, brackets=brackets)]
    return [f"{text} {'tea ' * 30}(last)." for text in texts] if brackets else texts


@pytest.fixture
def evidence(dictionary: str, tmp_path: Path) -> list[FeatureEvidence]:
    """Of long texts with brackets, compared with shorter ones without any."""
    folder = Path(shutil.copytree(dictionary, tmp_path / "dictionary"))
    record = json.loads((folder / "reader.json").read_text())
    (folder / "reader.json").write_text(json.dumps({**record, "context": 2_000}))
    real = write_rows(tmp_path / "real.jsonl", write_long_texts(1, brackets=True))
    poor = write_rows(tmp_path / "poor.jsonl", write_long_texts(2, brackets=False))
    found: list[FeatureEvidence] = []
    find_dataset_feature_gaps(Path(poor), real, folder, None, 10, explain=found.extend)
    return found


def test_the_evidence_of_a_label_is_where_the_feature_is(evidence: list[FeatureEvidence]) -> None:
    first = evidence[0]
    # Half of the texts have brackets, a few of them outside of the passage.
    assert min(sum("(" in text for text in side) for side in (first.active, first.held_out_active)) >= 8
    assert max(sum("(" in text for text in side) for side in (first.inactive, first.held_out_inactive)) <= 3
    sides = [side for one in evidence for side in one[1:]]
    assert {len(side) for side in sides} == {10}
    plain = [text.replace("«", "").replace("»", "") for side in sides for text in side]
    assert not any("last)" in text for text in plain), "a passage has brackets after the part that was compared"
    # Passages without the feature are from the same parts of their texts, and as long. Another feature may be at the start.
    cut = [text.replace("«", "").replace("»", "") for side in first[1:] for text in side]
    assert all(text.startswith("…") and 250 <= len(text) <= 502 for text in cut)
