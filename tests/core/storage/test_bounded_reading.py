"""Small files that unpack to gigabytes are refused in a sentence, in little memory; what people have is read."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from core.errors import UsageError
from core.project_files import PROJECT
from core.storage.bounded_reading import MAX_ROW_BYTES, read_line_blocks
from filters.rules.contamination import read_evaluation_texts
from flows.recipes.recipe_catalog import load_recipe_plan
from flows.rows.dataset_rows import read_batch_lines, read_dataset_batches, read_dataset_documents

MEMORY = 1 << 30
"""What a command may allocate here; the modules that it loads are half of it."""


def one_text(text: str, rows: int) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), [text])


def store(file: Path, **columns: pa.Array) -> None:
    """With a dictionary however long its texts are, and read as plain texts."""
    pq.write_table(pa.table(columns), file, compression="zstd", store_schema=False, dictionary_pagesize_limit=1 << 30)


def many_rows(file: Path) -> None:
    store(file, text=one_text("x" * 10_000_000, 2_000))


def many_turns(file: Path) -> None:
    turns = 1_000_000
    said = pa.StructArray.from_arrays([one_text("user", turns), one_text("y" * 1_000_000, turns)], ["role", "content"])
    store(file, messages=pa.ListArray.from_arrays(pa.array([0, turns], pa.int32()), said))


def long_line(file: Path) -> None:
    with zstandard.open(file, "wb") as out:
        out.write(b'{"text": "')
        for _ in range(1_000):
            out.write(b"z" * 1_000_000)
        out.write(b'"}\n')


BOMBS = [
    ("rows.parquet", many_rows, "row 1 has more than 8 MB of text; split it"),
    ("turns.parquet", many_turns, "row 1 has more than 8 MB of text; split it"),
    ("line.jsonl.zst", long_line, "line 1 has more than 8 MB; split it"),
]


FILTER_ALL = """
import contextlib, resource, sys
from flows.cli import main
resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
for file in sys.argv[1:]:
    sys.argv = ["stillhouse", "filter", file, "--out", f"{file}.out"]
    with contextlib.suppress(SystemExit):
        main()
"""


@pytest.mark.attack(
    "Parquet under 2 kB whose dictionary has one 10 MB text for 2,000 rows, or whose one row lists a 1 MB text a "
    "million times; `.jsonl.zst` (`.gz`, `.bz2`, `.xz`) unpacking to a line of 1 GB (`filter`, `assess`, `gaps`, "
    "`distill`, `index`, seeds, evaluation sets)",
    "refused before unpacking: 8 MB per row or line; exit 2 with its number",
)
def test_filter_refuses_a_bomb_in_a_sentence(tmp_path: Path) -> None:
    files = [tmp_path / name for name, *_ in BOMBS]
    for file, (_, write, _) in zip(files, BOMBS, strict=True):
        write(file)
        assert file.stat().st_size < 100_000
    code = FILTER_ALL.replace("MEMORY", str(MEMORY))
    ran = subprocess.run([sys.executable, "-c", code, *files], cwd=PROJECT, capture_output=True, text=True, check=False)
    messages = [f"error: {file}: cannot be read: {sentence}" for file, (*_, sentence) in zip(files, BOMBS, strict=True)]
    assert ran.stderr.splitlines() == messages


def test_a_long_line_is_named_wherever_it_is() -> None:
    lines = [b"short\n"] * 1000 + [b"a" * (MAX_ROW_BYTES + 1) + b"\n"] + [b"short\n"] * 1000
    with pytest.raises(ValueError, match="line 1001 has more than 8 MB"):
        list(read_line_blocks(io.BytesIO(b"".join(lines)), 16 << 20))
    fits = [b"b" * MAX_ROW_BYTES + b"\n", b"short\n", b"c" * MAX_ROW_BYTES]
    assert b"".join(read_line_blocks(io.BytesIO(b"".join(fits)), 1 << 20)) == b"".join(fits)


def test_batches_do_not_depend_on_the_columns_that_are_read(tmp_path: Path) -> None:
    """Rows are found again by their place in a batch."""
    file = tmp_path / "rows.parquet"
    rows = 12_345
    table = pa.table({"text": [f"text {i}" * (i % 90) for i in range(rows)], "more": ["x" * 5_000] * rows})
    pq.write_table(table, file, row_group_size=5_000)
    found = [
        [(b.first, len(list(read_batch_lines(b)))) for b in read_dataset_batches([file], only)]
        for only in (["text"], None)
    ]
    assert found[0] == found[1]
    assert sum(count for _, count in found[0]) == rows
    assert len(found[0]) == 2


@pytest.mark.attack(
    "`/dev/zero` or a named pipe as any input file",
    "only regular files are read; exit 2",
)
@pytest.mark.parametrize("key", ["seeds.path", "collapse.reference", "seeds.draw.mood"])
def test_an_endless_file_is_refused(key: str, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text('name = "mine"\n[teachers.main]\nmodel = "fake/writer"\n[seeds]\n')
    settings = {"seeds.path": "data/seeds/topics.jsonl", key: "/dev/zero"}
    overrides = [f"{name}={json.dumps(value)}" for name, value in settings.items()]
    with pytest.raises(UsageError, match="is a device, a pipe or a socket; give a regular file"):
        _ = load_recipe_plan(str(recipe), overrides).sources
    for read in (read_dataset_documents, lambda file: iter(read_evaluation_texts(file, ["text"]))):
        (tmp_path / "zero.jsonl").unlink(missing_ok=True)
        os.mkfifo(tmp_path / "zero.jsonl")
        with pytest.raises(UsageError):
            list(read(tmp_path / "zero.jsonl"))
