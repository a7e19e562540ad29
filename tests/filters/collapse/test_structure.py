"""Few structures filled with different words, without a reference: found in each kind, where the words do not repeat."""

import json
import random
from collections.abc import Callable, Sequence

import pytest

from core.runs.records import CollapseRecord, CollapseVerdict
from filters.base import Document
from filters.collapse.repetition import assess_repetition
from filters.collapse.text_kinds import TEXT_KINDS

SYLLABLES = "ba de fi go ku la me ni po ru sa te vi wo zu".split()


def name(rng: random.Random) -> str:
    return "".join(rng.choices(SYLLABLES, k=4))


def write_code(shape: int, rng: random.Random) -> str:
    """A function of one of many shapes: a statement for each binary digit of the shape's number."""
    x, f = name(rng), name(rng)
    lines = [f"{x} = {x} + {name(rng)}" if shape >> bit & 1 else f"if {x}: {name(rng)}({x})" for bit in range(8)]
    return f"def {f}({x}):\n" + "".join(f"    {line}\n" for line in lines)


def write_sum(shape: int, rng: random.Random) -> str:
    signs = ["+-*"[shape // 3**place % 3] for place in range(4)]
    return "".join(f"{rng.randint(100, 9_999)} {sign} " for sign in signs) + str(rng.randint(100, 9_999))


def write_record(shape: int, rng: random.Random) -> str:
    """The values depend on the shape, but for a name and a flag."""
    drawn = random.Random(shape)
    values = {field: name(drawn) for field in ("city", "street", "trade", "owner")}
    return json.dumps({"name": name(rng), **values, "open": rng.random() < 0.5})


FRAMES = "the of and a to in is was for with on at by from or as an be this that".split()


def write_prose(shape: int, rng: random.Random) -> str:
    frame = random.Random(shape).choices(FRAMES, k=8)
    return " ".join(f"{name(rng)} {name(rng)} {word}" for word in frame)


WRITERS: dict[str, Callable[[int, random.Random], str]] = {
    "code": write_code, "arithmetic": write_sum, "json": write_record, "prose": write_prose, "dialogue": write_prose,
}  # fmt: skip


def assess_shapes(kind: str, shapes: int, size: int, seed: int) -> CollapseRecord:
    rng = random.Random(seed)
    return assess([WRITERS[kind](rng.randrange(shapes), rng) for _ in range(size)], kind)


def assess(texts: Sequence[str], kind: str, seeds: Sequence[dict[str, object]] = ()) -> CollapseRecord:
    documents = [Document(str(number), text) for number, text in enumerate(texts)]
    return assess_repetition(documents, seed=1, kind=TEXT_KINDS[kind], seeds=seeds)


@pytest.mark.parametrize("size", [100, 500])
@pytest.mark.parametrize("kind", WRITERS)
def test_few_structures_are_a_collapse_that_words_do_not_show_and_many_are_none(kind: str, size: int) -> None:
    for seed in range(5):
        few = assess_shapes(kind, 4, size, seed)
        assert (few.verdict, list(few.findings)) == (CollapseVerdict.collapse, ["structure"]), (
            "words alone show nothing"
        )
        assert few.evidence[0].startswith("STRUCTURE: few structures, filled with different words (as with ")
        assert few.headline.endswith("; few different structures")
        assert [advice.cause for advice in few.advice] == ["few_seeds", "wanted_structures"]
        assert assess_shapes(kind, 80, size, seed).verdict is not CollapseVerdict.collapse


def test_few_structures_that_are_wanted_are_not_judged_but_repetition_still_is() -> None:
    rng = random.Random(0)
    texts = [write_code(0, rng) for _ in range(500)]
    documents = [Document(str(number), text) for number, text in enumerate(texts)]
    assert assess(texts, "code").verdict is CollapseVerdict.collapse
    wanted = assess_repetition(documents, seed=1, kind=TEXT_KINDS["code"], few_structures=True)
    assert (wanted.verdict, wanted.findings) == (CollapseVerdict.unrepeated, {})
    assert wanted.metrics[-1].meaning.startswith(
        "shown, not gating (the recipe wants few, `collapse.structures = false`)"
    )
    assert wanted.headline.endswith("; rare words and structure were not judged")
    assert "Their structure was not judged." in wanted.paragraph
    twice = assess_repetition([*documents, *documents], seed=1, kind=TEXT_KINDS["code"], few_structures=True)
    assert (twice.verdict, list(twice.findings)) == (CollapseVerdict.collapse, ["repetition"])


def test_structures_that_the_recipe_drew_are_its_own() -> None:
    rng = random.Random(0)
    shapes = [number % 2 for number in range(400)]
    texts = [write_sum(shape, rng) for shape in shapes]
    assert assess(texts, "arithmetic").verdict is CollapseVerdict.collapse
    drawn = assess(texts, "arithmetic", [{"form": str(shape), "topic": rng.choice("abc")} for shape in shapes])
    assert drawn.findings == {}
    assert "where different values of form were drawn" in drawn.metrics[-1].meaning
    other = assess(texts, "arithmetic", [{"topic": rng.choice("abc")} for _ in shapes])
    assert other.verdict is CollapseVerdict.collapse, "an attribute that does not decide the structure"
