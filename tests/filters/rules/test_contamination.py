"""Overlap with evaluation sets against a brute-force oracle, on small sets with planted rows."""

import json
import random
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from core.config.filters import ContaminationFilter
from core.errors import UsageError
from core.sample import RejectionReason
from filters.base import Document
from filters.chain.filter_chain import apply_filters
from filters.rules.contamination import MAX_NGRAM_ROWS, MIN_ROW_WORDS, hash_ngrams, hash_words, read_evaluation_texts
from filters.text_normalization import normalize_words

CLIPS = "Natalia sold clips to 48 of her friends in April, and then she sold half as many clips in May."  # 20 words
SHORT = "Which planet is closest to our own sun?"  # 8 words
TINY = "What is 2 + 2?"


def write_set(folder: Path, name: str, rows: list[dict[str, Any]]) -> str:
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return name


def config(*sets: str, **options: Any) -> ContaminationFilter:
    return ContaminationFilter(type="contamination", sets=sets, **options)


def shared(text: str, count: int, start: int = 0) -> str:
    """So many words of `text` in a row, among others."""
    return " ".join(["before", "it", *text.split()[start : start + count], "after", "it"])


@pytest.mark.parametrize(
    ("text", "dropped"),
    [
        (CLIPS, True),
        (shared(CLIPS, 13), True),
        (shared(CLIPS, 13, start=7), True),
        (shared(CLIPS, 12), False),
        (shared(CLIPS, 12, start=8), False),
        (f"{shared(CLIPS, 12)} {shared(CLIPS, 7, start=13)}", False),
        (CLIPS.upper().replace(" ", "\n"), True),
        (CLIPS.replace(",", "").replace("April", '"April"'), True),
        (CLIPS.replace("48", "49"), True),  # the words after the number are 14
        (CLIPS.replace("48", "49").replace("and then", "then"), False),
        (f"Sure. {SHORT} Mercury is.", True),
        ("Which planet is closest to our own moon?", False),
        (TINY, False),
        (f"{shared(CLIPS, 13)} \ud83d", True),
        ("Nothing of the kind is said here, in any of these fourteen words or so.", False),
        ("", False),
    ],
)
def test_thirteen_words_in_a_row_or_a_whole_short_row_are_contamination(
    text: str, dropped: bool, tmp_path: Path
) -> None:
    name = write_set(tmp_path, "maths.jsonl", [{"question": TINY}, {"question": CLIPS}, {"question": SHORT}])
    for document in (Document("a", text), Document("a", "Yes.", asked=text), Document("a", "Yes.", around=text)):
        result = apply_filters([document], [config(name)], tmp_path)
        assert [drop.reason for drop in result.dropped] == [RejectionReason.contamination] * dropped


def test_a_drop_names_set_row_words_and_how_much_of_the_row_is_there(tmp_path: Path) -> None:
    name = write_set(tmp_path, "maths.jsonl", [{"question": TINY}, {"question": CLIPS}])
    (drop,) = apply_filters([Document("a", shared(CLIPS, 14))], [config(name)], tmp_path).dropped
    assert drop.score == pytest.approx(14 / 20)
    assert drop.overlaps == ("maths.jsonl:2",)
    assert drop.detail == (
        "shares 14 of 20 words with maths.jsonl row 2: 'natalia sold clips to 48 of her friends in april and then she'"
    )


def brute_force(documents: list[Document], rows: list[str], ngram: int) -> list[str]:
    def grams(text: str, width: int) -> set[tuple[str, ...]]:
        words = normalize_words(text)
        return {tuple(words[i : i + width]) for i in range(len(words) - width + 1)}

    found = []
    for document in documents:
        for row in rows:
            width = min(ngram, len(normalize_words(row)))
            if width >= min(ngram, MIN_ROW_WORDS) and grams(row, width) & grams(document.text, width):
                found.append(document.id)
                break
    return found


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("ngram", [5, 8, 13, 20])
def test_drops_equal_those_of_brute_force(seed: int, ngram: int, tmp_path: Path) -> None:
    chance = random.Random(seed)
    vocabulary = [f"w{i}" for i in range(30)]
    rows = [" ".join(chance.choices(vocabulary, k=chance.randint(1, 30))) for _ in range(60)]
    documents = []
    for i in range(200):
        words = chance.choices(vocabulary, k=chance.randint(0, 40))
        row = chance.choice(rows).split()
        start, count = chance.randrange(len(row)), chance.randint(1, 25)
        words[5:5] = row[start : start + count]
        documents.append(Document(str(i), " ".join(words)))
    name = write_set(tmp_path, "rows.jsonl", [{"text": row} for row in rows])
    dropped = [drop.id for drop in apply_filters(documents, [config(name, ngram=ngram)], tmp_path).dropped]
    assert dropped == brute_force(documents, rows, ngram)
    assert 5 < len(dropped) < 200


def test_hashes_are_the_same_everywhere() -> None:  # as `printf the | b2sum -l 64`, read from its end
    hashed = hash_words(["the", "bee"])
    assert hashed.tolist() == hash_words(["the", "bee"]).tolist() == [3331141520948189790, 18119106239126326041]
    assert hash_ngrams(hashed, 3).tolist() == []
    assert len(hash_ngrams(hashed, 2)) == 1


def test_sets_are_read_from_every_kind_of_file(tmp_path: Path) -> None:
    rows = [{"question": CLIPS, "answer": "72"}, {"question": SHORT, "answer": "Mercury"}]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    (tmp_path / "a.json").write_text(json.dumps(rows))
    (tmp_path / "a.txt").write_text(f"{CLIPS}\n{SHORT}\n")
    pl.DataFrame(rows).write_parquet(tmp_path / "a.parquet")
    for ending in ("jsonl", "json", "txt", "parquet"):
        assert read_evaluation_texts(tmp_path / f"a.{ending}", ("text", "question")) == [CLIPS, SHORT]
    lines = [json.dumps({"text": f"{text}\u2028"}, ensure_ascii=False) for text in (CLIPS, SHORT)]
    (tmp_path / "u.jsonl").write_bytes("\ufeff{}\r\n{}\r\n".format(*lines).encode())
    assert read_evaluation_texts(tmp_path / "u.jsonl", ("text",)) == [f"{CLIPS}\u2028", f"{SHORT}\u2028"]
    (tmp_path / "u.txt").write_bytes(f"\ufeff{CLIPS}\u2028\r\n{SHORT}\r\n".encode())
    assert read_evaluation_texts(tmp_path / "u.txt", ("text",)) == [f"{CLIPS}\u2028", SHORT]
    (tmp_path / "u.txt").write_text("")
    assert read_evaluation_texts(tmp_path / "u.txt", ("text",)) == []
    turns = [{"role": "user", "content": CLIPS}, {"role": "assistant", "content": "72"}]
    (tmp_path / "b.jsonl").write_text(json.dumps({"messages": turns}))
    assert read_evaluation_texts(tmp_path / "b.jsonl", ("messages",)) == [f"{CLIPS}\n72"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.jsonl", None, "cannot be read: No such file"),
        ("rows.jsonl", '{"puzzle": "x"}', "has the columns puzzle, none of text, question"),
        ("rows.jsonl", "[1]", "each row must be a JSON object"),
        ("rows.jsonl", "{", "cannot be read as an evaluation set"),
        ("rows.csv", "a,b", "must end in .jsonl, .json, .parquet or .txt"),
        ("rows.parquet", "no parquet", "cannot be read as an evaluation set"),
    ],
)
def test_a_set_that_cannot_be_read_is_named(name: str, content: str | None, message: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(UsageError, match=message):
        apply_filters([Document("a", CLIPS)], [config(name)], tmp_path)


def test_thinking_is_compared_like_an_answer(tmp_path: Path) -> None:
    sets = config(write_set(tmp_path, "set.jsonl", [{"question": CLIPS}]))
    documents = [
        Document("a", "So it is.", thinking=f"I know this: {CLIPS}"),
        Document("b", "So it is.", thinking="Hm."),
    ]
    result = apply_filters(documents, [sets], tmp_path)
    assert [document.id for document in result.kept] == ["b"]
    assert result.dropped[0].reason is RejectionReason.contamination


def test_words_do_not_run_on_from_question_to_answer(tmp_path: Path) -> None:
    name = write_set(tmp_path, "maths.jsonl", [{"question": CLIPS}])
    split = Document("a", " ".join(CLIPS.split()[10:]), asked=" ".join(CLIPS.split()[:10]))
    assert apply_filters([split], [config(name)], tmp_path).dropped == []


def test_the_template_of_a_set_does_not_count(tmp_path: Path) -> None:
    template = "The following is a multiple choice question with exactly one right answer among the four"
    rows = [{"text": f"{template} number {i}: {CLIPS.replace('48', str(i))}"} for i in range(MAX_NGRAM_ROWS + 1)]
    name = write_set(tmp_path, "choices.jsonl", rows)
    result = apply_filters([Document("a", template), Document("b", rows[3]["text"])], [config(name)], tmp_path)
    assert [drop.id for drop in result.dropped] == ["b"]
    assert "choices.jsonl:4" in result.dropped[0].overlaps


def test_a_changed_set_is_read_again(tmp_path: Path) -> None:
    name = write_set(tmp_path, "maths.jsonl", [{"question": TINY}])
    assert apply_filters([Document("a", CLIPS)], [config(name)], tmp_path).dropped == []
    write_set(tmp_path, name, [{"question": CLIPS}])
    assert apply_filters([Document("a", CLIPS)], [config(name)], tmp_path).dropped != []
