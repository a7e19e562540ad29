import asyncio
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from random import Random
from typing import Any

import pytest

import prompts
from agents.checks import Check, Subject
from agents.checks.text.quantities import find_quantities
from agents.checks.text.quotes import QuotesOptions, find_quotes_fault, quotes_check
from agents.checks.text.second_reader import read_again_check
from agents.checks.text.supported_by_passage import supported_check
from agents.families.grounded_qa import (
    QUESTION_KINDS,
    GroundedDraft,
    GroundedOptions,
    GroundedQAFamily,
    PassagePool,
    both_passages_check,
    own_words_check,
    unanswerable_check,
)
from agents.families.question_targets import can_carry, find_table_rows
from agents.families.standalone_questions import standalone_check
from agents.planning.run_plan import RunPlan
from agents.planning.seeds import RunSeeds
from core.errors import RecipeError
from core.project_files import PROJECT
from core.sample import Candidate, RejectionReason, Sample, SampleStatus, Seed
from flows.recipes.recipe_catalog import load_recipe_plan
from teachers.fake.fake_teacher import FakeTeacher
from tests.agents.checks.rows import check_each
from tests.support.scripted_teacher import build_test_seeds, produce_scripted

GOLDEN = PROJECT / "tests" / "agents" / "checks" / "golden"
SILENCE = "The text does not say."
CLOSED = ["task.context=false", "task.unanswerable=0"]


def plan_of(*settings: str) -> RunPlan:
    plain = ["teachers.main={model='fake/grounded_qa'}", "agents.critic=false", "topology.max_revisions=0"]
    return load_recipe_plan("grounded-qa", [*plain, "samples=120", *settings])


def made(plan: RunPlan, folder: Path) -> list[Sample]:
    return produce_scripted(plan, FakeTeacher(plan.recipe.teachers["main"], "grounded_qa"), folder)


# The family


def loose(text: str) -> str:
    """Letters and digits alone: an oracle that knows nothing of marks."""
    return "".join(char for char in unicodedata.normalize("NFKD", text).lower() if char.isalnum())


@pytest.mark.parametrize("settings", [[], CLOSED, ["task.cited=false"], ["task.unanswerable=1"]])
def test_kept_answers_are_grounded_by_an_independent_verification(settings: list[str], tmp_path: Path) -> None:
    samples = made(plan_of(*settings), tmp_path)
    kept = [sample for sample in samples if sample.state == SampleStatus.kept]
    assert len(kept) > 30
    for sample in kept:
        data, fields = sample.seed.data, sample.candidate.fields
        assert fields["question"].endswith("?")
        assert "zebedee" not in fields["answer"].lower()
        if not data["answerable"]:
            assert (fields["quotes"], fields["answer"]) == ([], SILENCE)
            continue
        assert 1 <= len(fields["quotes"]) <= 3
        assert all(quote in data["text"] for quote in fields["quotes"])
        assert loose(re.sub("^(Yes, )?(A )?", "", fields["answer"])) in loose(" ".join(fields["quotes"]))
        numbers = set(re.findall(r"\d+", fields["answer"]))
        assert numbers <= set(re.findall(r"\d+", " ".join(fields["quotes"])))
        if not data["context"]:
            assert "passage" not in fields["question"]


def test_every_sample_ends_for_a_reason_and_each_check_finds_something(tmp_path: Path) -> None:
    samples = made(plan_of("samples=300", "agents.generator.max_repairs=0"), tmp_path)
    assert len(samples) == 300
    for sample in samples:
        assert (sample.state == SampleStatus.kept) == (sample.reason is None)
        assert sample.reason in (None, RejectionReason.verifier)
    dropped = {sample.detail for sample in samples if sample.state == SampleStatus.dropped}
    assert dropped == {"quotes", "supported", "own_words", "standalone", "unanswerable", "read_again"}


def test_a_passage_is_anywhere_among_the_nearest_or_left_out(tmp_path: Path) -> None:
    plan = plan_of("task.distractors=5", "agents.critic={}", "topology.max_revisions=1", "task.unanswerable=0.4")
    seeds = build_test_seeds(plan)[:]
    assert seeds == build_test_seeds(plan)[:]
    nearest = nearest_of_same_document = 0
    sources = {row["text"]: row["source"] for row in plan.seed_rows.rows}
    for seed in seeds:
        shown, text = seed.data["shown_passages"], seed.data["text"]
        assert len(set(shown)) == 6, "as many texts whether the right one is left out or not"
        assert text in shown or seed.data["answerable"]
        others = [passage for passage in shown if passage != text]
        assert not any(seed.data["focus"] in other for other in others if seed.data["focus"])
        nearest += len(others)
        nearest_of_same_document += sum(sources[other] == seed.data["source"] for other in others)
    assert nearest_of_same_document > nearest / 5, "random passages would be of the same document in one of 25"
    places = Counter(seed.data["shown_passages"].index(seed.data["text"]) if is_shown(seed) else -1 for seed in seeds)
    assert sorted(places) == list(range(-1, 6))
    assert min(places.values()) > 5, "16 to 24 are expected"

    samples = made(plan, tmp_path)
    kept = [sample for sample in samples if sample.state == SampleStatus.kept]
    assert len(kept) > 20
    for sample in kept:
        data, asked, answer = sample.seed.data, *(message.content for message in sample.candidate.messages)
        texts = re.split(r"^Text \d+:\n", asked.partition(data["instruction"])[2], flags=re.MULTILINE)[1:]
        assert [text.partition("\n\nQuestion: ")[0].rstrip("\n") for text in texts] == data["shown_passages"]
        assert (answer == SILENCE) == (not data["answerable"] or not is_shown(sample.seed))
        assert all(quote in data["text"] for quote in sample.candidate.fields["quotes"])
        assert "passage" not in sample.candidate.fields["question"]
        assert "texts" in data["instruction"]
        assert "does not know which it is" in data["request"]
        for turn in sample.turns:
            seen = [passage for passage in data["shown_passages"] if passage in turn.asked]
            assert turn.agent != "verifier" or seen == data["shown_passages"], "a reader sees what the student sees"
            assert turn.agent == "verifier" or set(seen) <= {data["text"]}, "nobody else sees the others"
    assert any(sample.revisions for sample in kept)


def is_shown(seed: Seed) -> bool:
    return seed.data["text"] in seed.data["shown_passages"]


@pytest.mark.parametrize(
    ("shown", "found", "passes"),
    [
        (["The pond is closed.", "Membership costs £14."], "£14", True),
        (["The pond is closed.", "Membership costs £14."], "£20", False),
        (["The pond is closed.", "Swans nest there."], "", True),
        (["The pond is closed.", "Readers pay £14 a year."], "£14", False),
    ],
)
def test_a_reader_of_all_passages_finds_the_answer_unless_it_is_left_out(
    shown: list[str], found: str, passes: bool
) -> None:
    data = {"text": "Membership costs £14.", "answerable": True, "silence": SILENCE, "shown_passages": shown}
    fields = {"question": "What does membership cost?", "answer": "£14."}
    reads = [{"found": bool(found), "answer": found}]
    assert (verdict(read_again_check, data, fields, {"reads": reads}) is None) == passes


def test_a_teacher_is_held_to_the_sentence_and_to_a_quote_by_the_schema() -> None:
    for seed in build_test_seeds(plan_of())[:40]:
        properties = GroundedQAFamily().reply_json_schema(seed)["properties"]
        if seed.data["answerable"]:
            assert properties["quotes"]["minItems"] == 1
            assert "enum" not in properties["answer"]
        else:
            assert properties["answer"]["enum"] == [SILENCE]


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (["task.kinds={riddle=1}"], "unknown kinds riddle; known are fact, number"),
        (["task.kinds={fact=0}"], "at least one kind with a weight above 0"),
        (["task.context=false"], "unanswerable = 0.2 needs context = true"),
        ([*CLOSED, "task.distractors=2"], "distractors = 2 needs context = true"),
        (["task.two_passages=0.5"], "needs the check `both_passages`"),
        (
            ["verifiers=[{type='read_again', votes=3,temperature=0}]"],
            "votes = 3 at temperature = 0 would be one reply 3 times",
        ),
        (["verifiers=[{type='read_again', agree=2}]"], "agree = 2 of votes = 1 cannot be"),
        (["verifiers=[{type='quotes', least=4}]"], "least = 4 is over most = 3"),
        (["seeds.path='data/seeds/topics.jsonl'"], "has both `path` and `documents`"),
    ],
)
def test_impossible_settings_are_reported_before_a_run(settings: list[str], sentence: str) -> None:
    with pytest.raises(RecipeError) as caught:
        plan_of(*settings)
    assert sentence in str(caught.value)


def test_the_examples_of_the_prompt_pass_the_checks() -> None:
    messages = prompts.load_prompt("grounded_qa", "generator").messages
    pairs = [(messages[i].content, json.loads(messages[i + 1].content)) for i in range(1, len(messages) - 1, 2)]
    assert len(pairs) >= 12
    assert len({reply["question"].split()[0] for _, reply in pairs}) >= 8, "openings differ"
    for asked, fields in pairs:
        text, _, request = asked.partition(":\n")[2].rpartition("\n\n")
        kind = next(kind for kind, words in QUESTION_KINDS.items() if f"Ask a question {words}." in request)
        focus = re.split(r"of the passage: |with its header: ", request)[-1].split("\n")[0]
        assert focus in text
        data = {
            "text": text,
            "answerable": "Give no quotes" not in request,
            "context": True,
            "silence": SILENCE,
            "kind": kind,
            "follow_up": "first_question" in request,
        }
        assert (
            not data["answerable"]
            or "\n\nSecond passage:\n" in text
            or can_carry(kind, focus)
            or focus in find_table_rows(text)
        )
        for check in (quotes_check, supported_check, own_words_check, standalone_check, unanswerable_check):
            options = {quotes_check: {"share": 1.0}, supported_check: {"share": 0.6}}.get(check, {})
            assert verdict(check, data, fields, {"options": options}) is None, fields["question"]


FIRST = {
    "first_question": "How long does a canoe trip to the island take?",
    "first_answer": "two hours",
    "answer": "Mara.",
}
TRIP = "A canoe trip to the island takes two hours. It is led by Mara Lind. Bring a hat."


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"question": "And who leads it?"}, None),
        ({"question": "Who is the leader of that trip?"}, None),
        ({"question": "Why so long?"}, None),
        ({"question": "Who leads the canoe trip to the island?"}, "without the first"),
        ({"question": "How many boats are there?"}, "without the first"),
        ({"question": "What else is sold there?"}, None),
        ({"question": "Who leads it in the passage?"}, "speaks of 'the passage'"),
        ({"question": "Who leads it?", "first_question": "How long will they paddle on time?"}, "name it"),
        ({"question": "Who leads it?", "first_answer": "2 h"}, "not copied"),
        ({"question": "Who leads it?", "first_question": "Tell me of the trip."}, "must be one question"),
        ({"question": "Who leads it?", "first_question": "Do they take two hours?"}, "in first_question already"),
        ({"question": "Who leads it?", "first_question": "How long does it take?"}, "stands; name it"),
    ],
)
def test_a_second_question_refers_to_the_first(fields: dict[str, str], fault: str | None) -> None:
    data = {"context": True, "answerable": True, "text": TRIP, "follow_up": True, "shown_passages": [TRIP, "Another."]}
    found = verdict(standalone_check, data, {**FIRST, **fields}, {})
    assert (found is None) if fault is None else fault in (found or ""), found


@pytest.mark.parametrize("follow_up", [False, True])
def test_a_first_question_counts_only_where_it_is_asked_for(follow_up: bool) -> None:
    text = "Prices rose. A canoe trip takes **two hours**, by “Mara”."
    data = {
        "text": text, "follow_up": follow_up, "context": True, "cited": True, "instruction": "Answer.",
        "layout": "text_first", "silence": SILENCE,
    }  # fmt: skip
    draft = GroundedDraft(
        first_question="How long is it?",
        first_answer='two hours, by "Mara"',
        question="Who led?",
        quotes=[],
        answer="Mara.",
    )
    candidate = GroundedQAFamily().candidate(Seed.model_construct(data=data, conditions={}), draft)
    asked, *_, reply = candidate.messages
    assert asked.content.endswith(f"Question: {'How long is it?' if follow_up else 'Who led?'}")
    assert reply.content == "Mara."
    assert candidate.fields["first_answer"] == ("two hours**, by “Mara”" if follow_up else "")
    if follow_up:
        assert candidate.messages[1].content.endswith("> A canoe trip takes **two hours**, by “Mara”.")


def test_second_questions_are_drawn_and_kept(tmp_path: Path) -> None:
    plan = plan_of("task.follow_ups=0.6", "task.unanswerable=0.1")
    samples = made(plan, tmp_path)
    second = [sample for sample in samples if sample.seed.data["follow_up"]]
    assert len(samples) / 3 < len(second) < len(samples) * 2 / 3
    kept = [sample for sample in second if sample.state == SampleStatus.kept]
    assert len(kept) > 2
    for sample in kept:
        first, reply, question, answer = sample.candidate.messages
        fields = sample.candidate.fields
        assert fields["first_question"] in first.content
        assert reply.content.startswith(f"{fields['first_answer']}\n> ")
        assert (question.role, question.content) == ("user", fields["question"])
        assert answer.content.startswith(fields["answer"])


def test_a_row_of_a_table_is_asked_about_as_a_row() -> None:
    text = "Prices in euros.\n\n| Boat | An hour |\n|---|---|\n| canoe | 9 |\n| raft | 12 |"
    row: dict[str, Any] = {"text": text, "passages": PassagePool([{"text": text}])}
    drawn = [GroundedQAFamily().condition(row, GroundedOptions(unanswerable=0), Random(seed)) for seed in range(30)]
    assert {data["focus"] for data in drawn} == {"| canoe | 9 |", "| raft | 12 |"}
    assert {data["kind"] for data in drawn} == {"fact", "number", "comparison"}
    assert all("row of the table, read with its header: | " in data["request"] for data in drawn)


def test_a_question_over_two_passages_needs_both(tmp_path: Path) -> None:
    plan = plan_of("task.distractors=3", "task.two_passages=0.5", "verifiers=[{type='quotes'},{type='both_passages'}]")
    seeds = build_test_seeds(plan)[:]
    joined = [seed for seed in seeds if seed.data["joined"]]
    assert 30 < len(joined) < 66, "48 are expected"
    assert {len(seed.data["shown_passages"]) for seed in seeds} == {4}
    for seed in joined:
        first, second = seed.data["text"].split("\n\nSecond passage:\n")
        assert {first, second} < set(seed.data["shown_passages"])
        assert seed.data["focus"] in first

    first, second = "The ferry takes no bicycles on board.", "On the night boat bicycles travel free."
    data = {
        "text": f"{first}\n\nSecond passage:\n{second}", "joined": True, "silence": SILENCE,
        "shown_passages": [second, "Dogs sleep on deck.", first],
    }  # fmt: skip
    fields = {"question": "Which boat takes bicycles?", "quotes": [first, second], "answer": "The night boat."}
    silent, answered = {"found": False, "answer": ""}, {"found": True, "answer": "the night boat"}
    for reads, quotes, fault in (
        ([silent, silent], [first, second], None),
        ([silent, answered], [first, second], "without the passage that begins 'On the night"),
        ([silent, silent], [first], "no quote is from the passage that begins 'On the night"),
    ):
        found = verdict(both_passages_check, data, {**fields, "quotes": quotes}, {"reads": reads})
        assert (fault or "") in (found or "") if fault else found is None


# Documents as seeds


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ({}, "has no document (.txt, .md, .markdown, .html, .htm, .pdf)"),
        ({"a.docx": b"PK"}, "has no document (.txt, .md, .markdown, .html, .htm, .pdf); 1 other files are there"),
        ({"a.txt": b"Too little."}, "has no text of 10 words; a.txt has 2 words, under 10"),
        ({"a.txt": b"caf\xe9 " * 20}, "a.txt: is not utf-8 text"),
        ({"a.pdf": b"no pdf"}, "a.pdf: cannot be read as PDF"),
    ],
)
def test_a_folder_without_text_is_a_problem_of_the_recipe(
    files: Mapping[str, bytes], sentence: str, tmp_path: Path
) -> None:
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(RecipeError) as caught:
        plan_of(f"seeds.documents={tmp_path}")
    assert sentence in str(caught.value)
    assert "1 problem\n  seeds.documents: " in str(caught.value)


# The checks, by golden cases


def golden(name: str) -> list[Any]:
    return [json.loads(line) for line in (GOLDEN / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


def verdict(check: Check, data: dict[str, Any], fields: dict[str, Any], case: Mapping[str, Any]) -> str | None:
    """The fault that `check` finds in a candidate with these fields, or None."""
    readings = iter(case.get("reads", ()))

    async def ask(role: str, contract: Any, values: Mapping[str, str], *, which: int, temperature: float) -> Any:
        assert set(values) == {"text", "question"}, "a reader sees the passage and the question alone"
        reading = next(readings)
        return None if reading is None else contract.model_validate(reading)

    subject = Subject(Seed(id="s-0", data=data), Candidate(messages=[], fields=fields), ask)
    (finding,) = asyncio.run(check.findings(subject, check.options.model_validate(case.get("options", {}))))
    assert finding.evidence
    assert len(finding.evidence) < 1500, "evidence goes into a prompt"
    return None if finding.passed else finding.evidence


def answerable(case: Mapping[str, Any]) -> dict[str, Any]:
    return {"answerable": case["answerable"]} if "answerable" in case else {}


@check_each(golden("quotes"))
def test_quotes_golden(case: dict[str, Any]) -> None:
    found = verdict(quotes_check, {"text": case["text"], **answerable(case)}, {"quotes": case["quotes"]}, case)
    assert (found is None) == case["passes"], found
    assert case.get("tells", "") in (found or "")


@check_each(golden("supported"))
def test_supported_golden(case: dict[str, Any]) -> None:
    found = verdict(supported_check, {"text": case.get("text", ""), **answerable(case)}, case, case)
    assert (found is None) == case["passes"], found


@check_each(golden("own_words"))
def test_own_words_golden(case: dict[str, Any]) -> None:
    """Recorded answers that repeat their quotes fail; short ones in own words pass, and so they do with the recorded reader."""
    data = {"answerable": True, "kind": case["kind"], "text": "A passage.", "silence": SILENCE}
    found = verdict(own_words_check, data, case, case)
    assert (found is None) == case["passes"], found
    if "reads" in case:
        assert verdict(supported_check, data, case, {"options": {"share": 0.6}}) is None
        assert verdict(read_again_check, data, case, {**case, "options": {"similarity": 0.6}}) is None


RECORDED_TARGETS = [
    ("reason", "Each day throw half of it away and add 25 g of flour and 25 g of water.", False),
    ("reason", "Then take the lid off and bake it for 20 minutes at 220 degrees.", False),
    ("reason", "The rent of a half plot is £18 a year.", False),
    ("reason", "A slight smell of machine oil is normal and goes away after the second boil.", False),
    ("list", "It is marked by a white line on the wall.", False),
    ("definition", "Then boil clear water once and pour it away.", False),
    ("number", "It is marked by a white line on the wall.", False),
    ("comparison", "Rain fell on five days, never more than 8 mm.", False),
    ("reason", "Paddles must be wound down by hand and never dropped, because a falling paddle cracks.", True),
    ("reason", "Since May the gate is open, so it can be passed at night.", True),
    ("list", "If that is not enough, loosen the bolt, pull the cable through and tighten it again.", True),
    ("definition", "A paddle is a small sliding door in the gate, or in a tunnel beside it.", True),
    ("number", "Filling takes about 6 minutes in a narrow lock and about 11 minutes in a broad one.", True),
    ("comparison", "Filling takes about 6 minutes in a narrow lock and about 11 minutes in a broad one.", True),
    ("list", "He had brought thirty, took twenty-six orders, and said that he would have to buy more radios.", False),
    (
        "list",
        "It is called the warden, since it flies up first and shouts loudest, and all other birds follow it.",
        False,
    ),
    ("number", "Children under eight must be kept away from the kettle and its cord.", False),
    ("number", "Leonardo drew mitre gates for the canals of Milan about 1497.", False),
    ("number", "Two of its oak beams are rotten, and it was closed on 3 June 2024.", False),
    ("number", "The meeting chose oak by 19 votes to 11, with one abstention.", True),
    ("list", "With the rear brake on, the rear wheel must slide and not turn.", False),
    ("list", "When a groove is less than 1 mm deep, change the pads, and change both of a wheel together.", False),
    ("list", "The dough needs flour, water, salt and time.", True),
    ("yes_no", "Parents are asked not to park on the zigzag lines.", True),
    ("yes_no", "The rent of a half plot is £18 a year.", False),
    ("fact", "The rent of a half plot is £18 a year.", True),
]


@pytest.mark.parametrize(("kind", "sentence", "carries"), RECORDED_TARGETS)
def test_a_sentence_carries_the_kinds_that_it_answers(kind: str, sentence: str, carries: bool) -> None:
    assert can_carry(kind, sentence) == carries


@check_each(golden("standalone"))
def test_standalone_golden(case: dict[str, Any]) -> None:
    data = {"context": case["context"], "answerable": case.get("answerable", True), "text": case.get("text", "")}
    found = verdict(standalone_check, data, case, case)
    assert (found or "") == "" if case["fault"] == "" else case["fault"] in (found or ""), found


@check_each(golden("unanswerable"))
def test_unanswerable_golden(case: dict[str, Any]) -> None:
    data = {"answerable": case["answerable"], "text": case["text"], "silence": case.get("silence", SILENCE)}
    found = verdict(unanswerable_check, data, case, case)
    assert (found or "") == "" if case["fault"] == "" else case["fault"] in (found or ""), found


@check_each(golden("read_again"))
def test_read_again_golden(case: dict[str, Any]) -> None:
    data = {"text": "A passage.", "answerable": case["answerable"], "silence": SILENCE}
    found = verdict(read_again_check, data, {"question": case["question"], "answer": case["answer"]}, case)
    assert (found is None) == case["passes"], found


# The checks, beyond them


@pytest.mark.parametrize("source", ["canal-lock.txt", "sourdough.md", "village-meeting.html", "rim-brakes.pdf"])
def test_every_run_of_whole_words_of_a_chunk_is_found_and_no_cut_one(source: str) -> None:
    rows = [row for row in RunSeeds(plan_of(), "0" * 16).rows if row["source"] == source]
    options = QuotesOptions(max_words=100, share=1.0)
    for row in rows:
        sentences = re.findall(r"[A-Z][^.|*#\n]{30,}[a-z]\.", row["text"])
        assert sentences
        for sentence in sentences:
            assert find_quotes_fault([sentence], row["text"], options) is None
            assert sentence[1] == " " or find_quotes_fault([sentence[1:]], row["text"], options) is not None
            assert find_quotes_fault([sentence[:-2]], row["text"], options) is not None
            swapped = sentence.translate(str.maketrans("ab", "ba"))
            assert swapped == sentence or find_quotes_fault([swapped], row["text"], options) is not None


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("between 10 and 15 minutes", [("10", "minute"), ("15", "minute")]),
        ("10-15 min, 3 kg", [("10-15", "minute"), ("3", "kilogram")]),
        ("£48,000 or 20 euros", [("48,000", "pound"), ("20", "euro")]),
        ("a 22-metre lock of 1.5 million litres", [("22", "metre"), ("1.5 million", "litre")]),
        ("twenty-five years, six o'clock, K17", [("twenty-five", "year"), ("six", "o'clock"), ("k17", "")]),
        ("the upper one of two", [("two", "")]),
        ("no number at all", []),
    ],
)
def test_numbers_are_read_with_their_units(text: str, found: list[tuple[str, str]]) -> None:
    assert [(number.text, number.unit) for number in find_quantities(text)] == found


@pytest.mark.parametrize(
    "text",
    [
        "1 " * 10_000,
        "one " * 10_000,
        "a-" * 10_000,
        "not " * 10_000,
        "only more before after most 7 " * 2_000,
        "first since 6 m 7, " * 3_000,
        "?" * 50_000,
        "é" * 50_000,
    ],
)
def test_long_texts_of_any_kind_are_judged_in_time(text: str) -> None:
    fields = {"question": text, "answer": text[:400], "quotes": [text, text[:100]]}
    data = {"text": text, "answerable": True, "context": False, "silence": SILENCE}
    for check in (quotes_check, supported_check, standalone_check, unanswerable_check):
        verdict(check, data, fields, {"options": {}})
    verdict(
        unanswerable_check, {**data, "answerable": False}, {**fields, "quotes": [], "answer": SILENCE}, {"options": {}}
    )
