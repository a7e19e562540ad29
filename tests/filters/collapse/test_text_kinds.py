"""Kinds of data: what is counted of each, which kind a dataset is found to be, and what a comparison says."""

import json
import math
import random
import time
from collections.abc import Sequence
from typing import get_args

import pytest

from agents.families import list_families
from core.errors import UsageError
from core.runs.records import CollapseRecord, CollapseVerdict
from core.shared_options import DataKind
from filters.base import Document
from filters.collapse.assessment import assess_texts
from filters.collapse.collapse_metrics import METRIC_NAMES
from filters.collapse.dialogues import assess_dialogue_repetition, assess_dialogues
from filters.collapse.repetition import REPETITION_LIMITS
from filters.collapse.text_kinds import TEXT_KINDS, find_kind, get_kind, read_turns

NAMES = [f"{a}{b}" for a in "bcdfghklmnprst" for b in ("ar", "en", "il", "om", "ust", "ay", "ip", "ock")]
VERBS = ("read", "sort", "merge", "find", "drop", "send", "pack", "fold")


def draw_name(rng: random.Random) -> str:
    """Words with the frequencies of Zipf's law, so that most are rare."""
    return NAMES[min(int(rng.paretovariate(0.6)) - 1, len(NAMES) - 1)]


def write_code(rng: random.Random) -> str:
    name, part, other = (f"{rng.choice(VERBS)}_{draw_name(rng)}" for _ in range(3))
    lines = [f"    {draw_name(rng)} = {part}({other}, {rng.randrange(9)})" for _ in range(rng.randrange(1, 4))]
    end = rng.choice([f"    return {part}", f"    for {part} in {other}:\n        yield {name}", f"    raise {part}()"])
    return "\n".join([f"def {name}({part}, {other}):", *lines, end])


def write_record(rng: random.Random) -> str:
    record = {"name": draw_name(rng), "size": rng.randrange(9_000), "tags": [draw_name(rng) for _ in range(3)]}
    return json.dumps(record | ({"owner": {"city": draw_name(rng)}} if rng.random() < 0.3 else {}))


def write_sum(rng: random.Random) -> str:
    parts = [str(rng.randrange(1, 900)) for _ in range(rng.randrange(2, 5))]
    return " ".join(word for part in parts for word in (part, rng.choice("+-*")))[:-2] + f" = {rng.randrange(999)}"


def write_chinese(rng: random.Random) -> str:
    return (
        "".join(chr(0x4E00 + min(int(40 * rng.paretovariate(0.7)), 9_000)) for _ in range(rng.randrange(10, 30))) + "。"
    )


def write_prose(rng: random.Random) -> str:
    return f"The {draw_name(rng)} and a {draw_name(rng)} went {rng.choice(VERBS)}ing to the {draw_name(rng)}."


def write_dialogue(rng: random.Random) -> str:
    turns = [{"role": role, "content": write_prose(rng)} for role in ("user", "assistant", "user", "assistant")]
    return json.dumps(turns)


WRITERS = {
    "arithmetic": write_sum, "characters": write_chinese, "code": write_code, "dialogue": write_dialogue,
    "json": write_record, "prose": write_prose,
}  # fmt: skip


def write_texts(kind: str, count: int, seed: int = 1) -> list[str]:
    rng = random.Random(f"{kind} {seed}")
    return [WRITERS[kind](rng) for _ in range(count)]


def test_one_table_has_every_kind() -> None:
    assert sorted(TEXT_KINDS) == sorted(get_args(DataKind)) == sorted(WRITERS)
    for kind in TEXT_KINDS.values():
        assert kind.metrics <= set(METRIC_NAMES)
        assert kind.repetition <= {metric.name for metric in REPETITION_LIMITS}
    with pytest.raises(UsageError, match="known are arithmetic, characters, code"):
        get_kind("poetry")


@pytest.mark.parametrize("kind", WRITERS)
def test_the_kind_is_found_from_the_texts(kind: str) -> None:
    texts = write_texts(kind, 30)
    assert find_kind(texts).name == kind
    assert find_kind([*texts, *write_texts("prose", 20)]).name == kind
    assert find_kind([*texts[:5], *write_texts("prose", 30)]).name == "prose"


@pytest.mark.parametrize(
    ("kind", "text", "units"),
    [
        ("code", "Here:\n```python\nx = read_all(1)  # all\n```\nDone.", ["x", "=", "read_all", "(", "1", ")"]),
        ("code", '"""A docstring that is prose, and long."""', ['"…"']),
        ("json", '{"a": {"b": 1}, "c": [true, "Two Words"]}', [".a.b=1", ".c[]=true", ".c[]=two words"]),
        ("json", '{"n": 1234, "m": -99.5}', [".n=1e3", ".m=-99.…"]),
        ("json", '<tool_call>\n{"name": "find"}\n</tool_call>', [".name=find"]),
        (
            "json",
            '{"a": "a text of many words", "b": []}',
            [*(f".a={w}" for w in "a text of many words".split()), ".b=[]"],
        ),
        ("arithmetic", "She has 12 × 1,200 pens", ["she", "has", "12", "*", "1200", "pens"]),
        *(
            (kind, "本软件 doesn't use 库。", ["本软", "软件", "doesn't", "use", "库"])
            for kind in ("characters", "dialogue", "prose")
        ),
    ],
)
def test_units(kind: str, text: str, units: list[str]) -> None:
    assert TEXT_KINDS[kind].split(text) == units


HOSTILE = {
    "nested lists": "[" * 100_000,
    "nested objects": '{"a":' * 3_000 + "1" + "}" * 3_000,
    "nested parentheses": "(" * 50_000,
    "signs": "-" * 50_000 + "1",
    "many numbers": "1 " * 100_000,
    "a huge number": '{"a": ' + "9" * 100_000 + "}",
    "a huge number in code": "x = " + "9" * 100_000,
    "surrogates": "def f():\n    return '\ud800'\n",
    "surrogates in JSON": '{"a": "\\ud800"}',
    "escaped quotes": "\\'" * 50_000,
    "triple quotes": '\\"""' * 20_000,
    "fences": "```\n" * 20_000,
    "backticks": "`" * 100_000,
    "spaces": "1" + " " * 100_000 + "x",
    "a null byte": "def f():\0 pass",
    "operators": "1+" * 50_000,
    "characters": "字" * 100_000,
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_documents_cost_nothing_but_themselves(text: str) -> None:
    began = time.process_time()
    for kind in TEXT_KINDS.values():
        units = kind.split(text)
        assert all(isinstance(unit, str) for unit in units)
        kind.matches(text)
        if kind.outline:
            kind.outline(text)
    assert time.process_time() - began < 20
    assert read_turns(text) == {}


def compare(kind: str, candidate: Sequence[str], reference: Sequence[str]) -> CollapseRecord:
    if kind == "dialogue":
        turns = [list(map(read_turns, side)) for side in (candidate, reference)]
        return assess_dialogues(*turns, name="real", seed=1)
    return assess_texts(candidate, reference, name="real", seed=1)


@pytest.mark.parametrize("kind", WRITERS)
def test_real_data_passes_and_copies_do_not(kind: str) -> None:
    """Metrics that do not hold are not shown, and the sentences name the units."""
    texts = write_texts(kind, 840)
    real = compare(kind, texts[:120], texts[120:])
    named = ["LANGUAGE: not all documents are in English; not judged: duplicate_8grams, strange_words"]
    assert (real.verdict, real.kind) == (CollapseVerdict.inconclusive, kind)
    assert real.evidence == (named if kind == "characters" else [])
    shown = {metric.name for metric in real.metrics if metric.z is not None}
    assert shown <= TEXT_KINDS[kind].metrics
    assert shown >= TEXT_KINDS[kind].metrics - {"strange_words"}
    if (unit := TEXT_KINDS[kind].unit) != "word":
        assert not any(" word" in text for text in [real.paragraph, *(metric.meaning for metric in real.metrics)])
        assert f"{unit}s" in real.paragraph
    copied = compare(kind, random.Random(1).choices(texts[:24], k=120), texts[120:])
    assert copied.verdict is CollapseVerdict.collapse
    assert any("REPEAT" in sentence for sentence in copied.evidence)


@pytest.mark.parametrize("kind", sorted(set(WRITERS) - {"prose", "dialogue"}))
def test_another_kind_of_reference_gives_one_sentence_and_no_numbers(kind: str) -> None:
    for candidate, reference in ((kind, "prose"), ("prose", kind)):
        record = compare(candidate, write_texts(candidate, 60), write_texts(reference, 90))
        assert record.verdict is CollapseVerdict.inconclusive
        assert (record.metrics, record.documents) == ([], 0)
        assert record.evidence == [
            f"the dataset is {TEXT_KINDS[candidate].noun} and the reference real is {TEXT_KINDS[reference].noun}, so their "
            "numbers cannot be compared"
        ]


def test_the_worse_role_of_a_dialogue_counts() -> None:
    texts = [read_turns(text) for text in write_texts("dialogue", 900)]
    poor = [{**turns, "user": ["Tell me of the weather, please."]} for turns in texts[:100]]
    record = assess_dialogues(poor, texts[100:], name="real", seed=1)
    assert (record.verdict, record.turns) == (CollapseVerdict.collapse, "user")
    assert record.evidence[0].startswith("user turns: ")
    assert record.headline.startswith("collapse, 100 user turns vs real; ")
    assert "The verdicts by role: user collapse, assistant inconclusive." in record.paragraph
    documents = [Document(str(i), turns["assistant"][0], asked=turns["user"][0]) for i, turns in enumerate(poor)]
    assert assess_dialogue_repetition(documents, seed=1).turns == "user"
    missing = assess_dialogues(texts[:50], [{"": ["A text of its own."]}] * 50, name="novel", seed=1)
    assert missing.metrics == []
    assert "the dataset is dialogues" in missing.evidence[0]


def test_families_name_the_kind_of_their_answers() -> None:
    named = {family.name: family.defaults.get("collapse", {}).get("kind") for family in list_families()}
    kinds = {
        "arithmetic": "arithmetic",
        "code": "code",
        "extraction": "json",
        "image_questions": "prose",
        "own_prompt": "dialogue",
        "pictures": "prose",
        "tool_calls": "json",
    }
    assert named == {name: kinds.get(name) for name in named}


CODE = TEXT_KINDS["code"]


def test_the_names_of_code_are_shown_and_decide_nothing() -> None:
    texts = [
        f"def f{i}(a):\n    value = helper_{i % 40}(a, {i})\n    return tool_{i % 7}(value, {i % 3})"
        for i in range(300)
    ]
    poor = [
        f"def f{i}(a):\n    value = helper_{i % 3}(a, {i})\n    return tool_{i % 7}(value, {i % 3})"
        for i in range(1_000, 1_100)
    ]
    record = assess_texts(poor, texts, name="real", seed=1, kind=CODE)
    shown = {metric.name: metric for metric in record.metrics if metric.family is None}
    assert shown["called_names"].candidate == pytest.approx(math.sqrt(3 * 7) * 2, rel=0.01), "half of the calls each"
    assert shown["called_names"].candidate < shown["called_names"].low < 47
    assert not any("openings: ." in sentence or sentence.endswith("openings: ") for sentence in record.evidence)
    assert shown["called_names"].z is None
    prose = assess_texts(["A cat sat on a mat."] * 40, ["A dog sat on a log."] * 90, name="real", seed=1)
    assert not {"called_names", "identifiers"} & {metric.name for metric in prose.metrics}
