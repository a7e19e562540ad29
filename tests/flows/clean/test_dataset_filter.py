"""`filter` on files of users: every row is written somewhere, unchanged; a stop, a kill or a full disk loses nothing."""

import bz2
import contextlib
import gzip
import hashlib
import io
import json
import lzma
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.corpus import PlantedCorpus
from core.errors import StoreError, UsageError
from core.project_files import PROJECT
from filters.base import Document
from filters.chain.filter_chain import apply_filters
from flows.clean import dataset_filter
from flows.clean.dataset_filter import (
    add_to_duplicate_index,
    apply_duplicate_index,
    filter_dataset,
    parse_filter_settings,
)
from flows.report.filter_report import FilterReport
from flows.rows import dataset_rows
from flows.terminal.console import SESSION
from tests.flows.commands.test_commands import called
from tests.support.waiting import wait_until

DUPLICATES = parse_filter_settings([], "exact,minhash")
COMPRESSED: dict[str, Callable[[bytes], bytes]] = {
    "": bytes, ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress, ".zst": zstandard.compress,
}  # fmt: skip
DECOMPRESSED: dict[str, Callable[[bytes], bytes]] = {
    "": bytes, ".gz": gzip.decompress, ".bz2": bz2.decompress, ".xz": lzma.decompress,
    ".zst": lambda content: zstandard.ZstdDecompressor().stream_reader(content).read(),
}  # fmt: skip


def corpus(count: int, seed: int = 4) -> list[str]:
    return next(PlantedCorpus(count, seed=seed).batches())[0]


def lines(texts: Sequence[str]) -> list[str]:
    """Rows of JSON in unusual but valid form, so that a rewritten row differs from a kept one."""
    return [f'{{"n":{i} , "text": {json.dumps(text)},"id": "r{i}"}}' for i, text in enumerate(texts)]


def written(file: Path, texts: Sequence[str]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(line + "\n" for line in lines(texts)))
    return file


def expected(texts: Sequence[str]) -> tuple[list[int], dict[str, str | None]]:
    """Kept places, and the originals of the dropped rows, after filtering all rows at once in memory."""
    return expected_of(tuple(texts))


@lru_cache(maxsize=4)
def expected_of(texts: tuple[str, ...]) -> tuple[list[int], dict[str, str | None]]:
    result = apply_filters([Document(f"r{i}", text) for i, text in enumerate(texts)], DUPLICATES)
    return [int(document.id[1:]) for document in result.kept], {drop.id: drop.duplicate_of for drop in result.dropped}


def dropped(out: Path) -> dict[str, str | None]:
    rows = pl.read_parquet(out / "dropped.parquet")
    return dict(rows.select("id", "duplicate_of").iter_rows()) if len(rows) else {}


def adds_up(report: FilterReport) -> bool:
    counts = report.counts
    return counts.candidates == counts.kept + counts.dropped + counts.failed


@pytest.mark.parametrize("ending", COMPRESSED)
def test_lines_are_kept_byte_by_byte_in_their_order_compressed_or_not(ending: str, tmp_path: Path) -> None:
    texts = corpus(500)
    file = tmp_path / f"rows.jsonl{ending}"
    file.write_bytes(COMPRESSED[ending]("".join(line + "\n" for line in lines(texts)).encode()))
    report = filter_dataset(file, tmp_path / "out", DUPLICATES)
    kept, repeats = expected(texts)
    assert len(repeats) > 14
    got = DECOMPRESSED[ending]((tmp_path / "out" / f"kept.jsonl{ending}").read_bytes()).decode().splitlines()
    assert got == [lines(texts)[place] for place in kept]
    assert dropped(tmp_path / "out") == repeats
    assert adds_up(report)


def test_parquet_keeps_its_columns_types_and_metadata(tmp_path: Path) -> None:
    texts = corpus(500)
    table = pa.table(
        {
            "id": [f"r{i}" for i in range(len(texts))],
            "text": texts,
            "n": pa.array(range(len(texts)), pa.uint16()),
            "tags": [["a", "b"][: i % 3] for i in range(len(texts))],
            "score": [None if i % 2 else 0.5 for i in range(len(texts))],
        }
    ).replace_schema_metadata({"huggingface": '{"info": 1}'})
    file = tmp_path / "rows.parquet"
    pq.write_table(table, file, row_group_size=64)
    table = pq.read_table(file)
    filter_dataset(file, tmp_path / "out", DUPLICATES)
    kept, repeats = expected(texts)
    got = pq.read_table(tmp_path / "out" / "kept.parquet")
    assert got.schema.equals(table.schema, check_metadata=True)
    assert got.equals(table.take(kept))
    gone = pq.read_table(tmp_path / "out" / "dropped.parquet")
    assert gone.select(table.column_names).equals(table.take([int(name[1:]) for name in repeats]))
    assert dropped(tmp_path / "out") == repeats


def build_odd_rows() -> list[dict[str, Any]]:
    """Texts with near-duplicates, in English, Chinese and punctuation, empty and long, in four forms."""
    chance = random.Random(7)
    chinese = ["".join(chance.choices("天地玄黄宇宙洪荒日月盈昃辰宿列张寒来暑往", k=60)) for _ in range(60)]
    texts = [*corpus(700), *chinese, *(f"{text[:50]}藏{text[51:]}" for text in chinese[::3]), *(["", " . ", "…?!"] * 3)]
    texts += [text.upper().replace(" ", "  , ") for text in texts[:90]] + [" ".join(texts[:400]), "漢" * 40_000]
    chance.shuffle(texts)
    forms: list[Callable[[str], dict[str, Any]]] = [
        lambda text: {"text": text},
        lambda text: {"messages": [{"role": "user", "content": text[:9]}, {"role": "assistant", "content": text[9:]}]},
        lambda text: {"prompt": text[:30], "completion": text[30:], "score": 1},
        lambda text: {"text": text, "more": {"keys": ["y", None]}},
    ]
    return [{"id": f"r{i}", **forms[i % 4](text)} for i, text in enumerate(texts)]


def test_the_result_is_that_of_earlier_versions(tmp_path: Path) -> None:
    """The digests are of the version before 2026-12-01."""
    rows = build_odd_rows()
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    pl.DataFrame(rows, infer_schema_length=None).write_parquet(tmp_path / "rows.parquet")
    digests = []
    for ending in ("jsonl", "parquet"):
        out = tmp_path / ending
        filter_dataset(tmp_path / f"rows.{ending}", out, DUPLICATES)
        kept = (out / "kept.jsonl").read_bytes().splitlines() if ending == "jsonl" else read_rows(out / "kept.parquet")
        digests.append(hashlib.sha256(repr((kept, read_rows(out / "dropped.parquet"))).encode()).hexdigest()[:16])
    assert digests == ["c7d228470ba3a29c", "969ac894571e5efa"]


def read_rows(file: Path) -> list[dict[str, Any]]:
    return pq.read_table(file).to_pylist()  # type: ignore[no-any-return]


def test_a_folder_is_one_dataset_in_the_order_of_its_files(tmp_path: Path) -> None:
    texts = corpus(600)
    written(tmp_path / "in" / "b.jsonl", texts[300:])
    (tmp_path / "in" / "a.jsonl.gz").write_bytes(gzip.compress(("\n".join(lines(texts[:300]))).encode()))
    (tmp_path / "in" / "README.md").write_text("not data")
    filter_dataset(tmp_path / "in", tmp_path / "out", DUPLICATES)
    kept, _ = expected(texts)
    got = gzip.decompress((tmp_path / "out" / "kept.jsonl.gz").read_bytes()).decode().splitlines()
    assert [json.loads(line)["text"] for line in got] == [texts[place] for place in kept]
    gone = pl.read_parquet(tmp_path / "out" / "dropped.parquet")
    assert gone["row"].str.contains(r"^(a\.jsonl\.gz|b\.jsonl):\d+$").all()
    for row, original in gone.select("row", "duplicate_row").iter_rows():
        assert place_of(original) < place_of(row)


def place_of(row: str) -> int:
    name, _, number = row.rpartition(":")
    return int(number) + (300 if name == "b.jsonl" else 0)


def test_broken_lines_are_reported_by_number_and_set_aside(tmp_path: Path) -> None:
    good = lines(["The first good row of text.", "The second one says more."])
    turns = [
        '"text"',
        "{}",
        "[3]",
        '["\\"x\\""]',
        '["3"]',
        '[{"role": "user"}]',
        '[{"content": "x"}]',
        '[{"role": 1, "content": 2}]',
    ]
    forms = [f'{{"messages": {turn}}}' for turn in turns]
    broken = ['{"text": "cut off', "[1, 2]", '{"txt": "no such column"}', '{"text": 7}', "\x00", *forms]
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join([good[0], "", *broken, "   ", good[1]]))
    report = filter_dataset(file, tmp_path / "out", DUPLICATES)
    assert (tmp_path / "out" / "kept.jsonl").read_text().splitlines() == good
    aside = [json.loads(line) for line in (tmp_path / "out" / "aside.jsonl").read_text().splitlines()]
    assert [(row["line"], row["text"]) for row in aside] == list(zip(range(3, 16), broken, strict=True))
    assert [row["error"].split(":")[0] for row in aside] == [
        "is not JSON", "must be a JSON object, not list; one array of all rows is read from a file in .json",
        "needs `text`, or `messages`, or `conversations`, or a question and its answer (`prompt` and `completion` or `response`, "
        "`question` and `answer`, `instruction` and `output`); name other columns, as in --columns user=ASKED,assistant=SAID; "
        "it has txt",
        "`text` must be text, not int", "is not JSON", "`messages` must be a list of role and content, not str",
        "`messages` must be a list of role and content, not dict",
        "`messages` must be a list of role and content; a turn is int, not an object",
        "`messages` must be a list of role and content; a turn is str, not an object",
        "`messages` must be a list of role and content; a turn is int, not an object",
        *["`messages` must be a list of role and content"] * 3,
    ]  # fmt: skip
    assert (report.counts.failed, report.counts.candidates) == (13, 15)
    assert [aside.line for aside in report.asides] == list(range(3, 16))


HALF = "\ud83d"
"""Of a surrogate pair."""


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("rows.parquet", b"PAR1 nothing of the kind", "rows.parquet: cannot be read"),
        ("rows.jsonl.gz", b"\x1f\x8b and no more", "rows.jsonl.gz: cannot be read"),
        ("rows.jsonl.zst", b"not zstd", "rows.jsonl.zst: cannot be read"),
        ("rows.jsonl", b'{"txt": "a"}\n{"txt": "b"}\n', "no row can be read; line 1 needs `text`, or `messages`"),
        ("rows.jsonl", '{"text": "a"}'.encode("utf-16"), "rows.jsonl: cannot be read: it is UTF-16; save it as UTF-8"),
        ("rows.xls", b"text", "rows.xls: is no data file; give a run"),
        ("rows.jsonl", b"<html>", "no row can be read; line 1 is not JSON"),
    ],
)
def test_an_input_without_rows_is_an_error_of_one_sentence(
    name: str, content: bytes, sentence: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match=sentence):
        filter_dataset(tmp_path / name, tmp_path / "deep" / "out", DUPLICATES)
    assert not (tmp_path / "deep").exists()
    (tmp_path / "other").mkdir()
    other = written(tmp_path / "other" / "rows.jsonl", corpus(20))
    out = tmp_path / "out"
    filter_dataset(other, out, DUPLICATES)
    (out / "report.json").unlink()  # as where it was stopped before
    before = {file: file.is_file() and file.read_bytes() for file in out.rglob("*")}
    with pytest.raises(UsageError, match=sentence):
        filter_dataset(tmp_path / name, out, DUPLICATES)
    assert {file: file.is_file() and file.read_bytes() for file in out.rglob("*")} == before


def test_a_damaged_file_is_named_and_leaves_no_finished_output(tmp_path: Path) -> None:
    for name in ("a", "b"):
        pq.write_table(pa.table({"text": corpus(400)}), tmp_path / f"{name}.parquet")
    whole = (tmp_path / "b.parquet").read_bytes()
    (tmp_path / "b.parquet").write_bytes(whole[:2000] + bytes(4000) + whole[6000:])
    with pytest.raises(UsageError, match=r"b\.parquet: cannot be read"):
        filter_dataset(tmp_path, tmp_path / "out", DUPLICATES)
    assert not (tmp_path / "out").exists()


ODD = st.text(st.characters(codec="utf-8"), max_size=40)
ROWS = st.lists(
    st.one_of(ODD, st.sampled_from(["a b c d e f g", "a b c d e f g!", "", "one", "\ufeff", "中文 文本"])), min_size=1
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=ROWS, size=st.integers(1, 5))
def test_batches_of_any_size_give_the_same_result(
    texts: list[str], size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "case"
    shutil.rmtree(folder, ignore_errors=True)
    file = written(folder / "rows.jsonl", texts)
    monkeypatch.setattr(dataset_rows, "BATCH_ROWS", size)
    report = filter_dataset(file, folder / "out", DUPLICATES)
    kept, repeats = expected(texts)
    assert (folder / "out" / "kept.jsonl").read_text().splitlines() == [lines(texts)[place] for place in kept]
    assert dropped(folder / "out") == repeats
    assert adds_up(report)
    again = filter_dataset(folder / "out" / "kept.jsonl", folder / "again", DUPLICATES)
    assert again.counts.dropped == 0


COMMAND = [sys.executable, "-m", "stillhouse", "filter"]


def test_several_processes_give_the_result_of_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = written(tmp_path / "rows.jsonl", corpus(2000))
    monkeypatch.setattr(dataset_rows, "BATCH_ROWS", 150)
    filter_dataset(file, tmp_path / "one", DUPLICATES, workers=1)
    monkeypatch.setattr(dataset_filter, "SMALL_INPUT_BYTES", 0)
    filter_dataset(file, tmp_path / "two", DUPLICATES, workers=2)
    for name in ("kept.jsonl", "dropped.parquet"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def command(file: Path, out: Path, *more: str) -> list[str]:
    return [*COMMAND, str(file), "--out", str(out), "--filters", "exact,minhash", "--workers", "2", *more]


@pytest.mark.slow
@pytest.mark.waits
def test_a_command_killed_at_any_moment_ends_with_the_same_files(tmp_path: Path) -> None:
    texts = corpus(10_000)
    file = written(tmp_path / "rows.jsonl", texts)
    filter_dataset(file, tmp_path / "whole", DUPLICATES)
    chance = random.Random(3)
    for _ in range(3):
        child = subprocess.Popen(command(file, tmp_path / "out", "--quiet"), cwd=PROJECT, start_new_session=True)
        time.sleep(chance.uniform(0.5, 2.5))
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
    assert subprocess.run(command(file, tmp_path / "out", "--quiet"), cwd=PROJECT, check=False).returncode == 0
    for name in ("kept.jsonl", "dropped.parquet"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert not list((tmp_path / "out").glob(".*"))


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "ids.jsonl": lambda content: content * 2,
    "drops.jsonl": lambda content: b"[" * len(content),
    "batches.jsonl": lambda content: content * 2,
    "input.json": lambda _: b"{",
}


@pytest.mark.parametrize(("name", "damage"), [*DAMAGES.items(), ("batches.jsonl", lambda _: b"{}\n")])
def test_a_damaged_checkpoint_is_made_again(
    name: str, damage: Callable[[bytes], bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dataset_rows, "BATCH_ROWS", 100)
    configs = parse_filter_settings([], "length,exact,minhash")
    file, out = written(tmp_path / "rows.jsonl", ["short", *corpus(400)]), tmp_path / "out"
    first = filter_dataset(file, out, configs)
    (out / "report.json").unlink()  # as after a kill
    (out / "work" / name).write_bytes(damage((out / "work" / name).read_bytes()))
    again = filter_dataset(file, out, configs)
    assert (again.counts, again.reasons) == (first.counts, first.reasons)
    assert len((out / "work" / "batches.jsonl").read_text().splitlines()) == 5


@pytest.mark.slow
@pytest.mark.waits
def test_a_second_command_into_the_same_folder_is_refused_and_harms_nothing(tmp_path: Path) -> None:
    file, out = written(tmp_path / "rows.jsonl", corpus(10_000) * 4), tmp_path / "out"
    first = subprocess.Popen(command(file, out, "--quiet"), cwd=PROJECT)
    wait_until((out / "work" / "batches.jsonl").exists, every=0.002)
    first.send_signal(signal.SIGSTOP)  # so that it cannot end before the second begins
    second = subprocess.run(command(file, out), cwd=PROJECT, check=False, capture_output=True, text=True)
    first.send_signal(signal.SIGCONT)
    assert first.wait() == 0
    assert second.returncode == 2
    assert f"{out}: another `filter` writes to it; wait for it or stop it" in second.stderr
    assert "Traceback" not in second.stderr
    kept = (out / "kept.jsonl").read_bytes()
    third = subprocess.run(command(file, out, "--quiet"), cwd=PROJECT, check=False)
    assert third.returncode == 0
    assert (out / "kept.jsonl").read_bytes() == kept


def list_live_children(parent: int) -> list[int]:
    """Processes below `parent` that have not ended."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, above = stat.read_text().rpartition(")")[2].split()[:2]
            if int(above) == parent and state != "Z":
                found.append(int(stat.parent.name))
    return found


def has_ended(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@pytest.mark.slow
@pytest.mark.waits
def test_the_workers_of_a_killed_command_end(tmp_path: Path) -> None:
    file = written(tmp_path / "rows.jsonl", corpus(10_000) * 6)
    filters = ["--filters", "length,exact,minhash"]
    child = subprocess.Popen(command(file, tmp_path / "out", "--quiet", *filters), cwd=PROJECT)
    while child.poll() is None and not (tmp_path / "out" / "work" / "batches.jsonl").exists():
        time.sleep(0.01)
    workers = list_live_children(child.pid)
    assert len(workers) >= 3, "two workers and their resource tracker"
    child.kill()
    child.wait()
    try:
        wait_until(lambda: all(map(has_ended, workers)))
    finally:
        for worker in workers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker, signal.SIGKILL)


@pytest.mark.parametrize("name", ["thesis.txt", "work/notes.txt"])
def test_a_folder_with_other_files_is_refused_and_unchanged(name: str, tmp_path: Path) -> None:
    file, out = written(tmp_path / "rows.jsonl", corpus(20)), tmp_path / "out"
    foreign = out / name
    foreign.parent.mkdir(parents=True)
    foreign.write_text("my own")
    with pytest.raises(UsageError, match=rf"{out}: has other files \({name}\); give a new or empty folder"):
        filter_dataset(file, out, DUPLICATES)
    assert [path for path in out.rglob("*") if path.is_file()] == [foreign]
    foreign.unlink()
    filter_dataset(file, out, DUPLICATES)
    foreign.write_text("added later")
    filter_dataset(file, out, DUPLICATES)


@pytest.mark.slow
@pytest.mark.waits
def test_a_stop_keeps_filtered_batches_and_prints_how_to_resume(tmp_path: Path) -> None:
    file = written(tmp_path / "rows.jsonl", corpus(10_000) * 6)
    child = subprocess.Popen(
        command(file, tmp_path / "out"), cwd=PROJECT, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    journal = tmp_path / "out" / "work" / "batches.jsonl"
    while child.poll() is None and not (journal.exists() and journal.stat().st_size):
        time.sleep(0.01)
    os.killpg(child.pid, signal.SIGINT)
    _, err = child.communicate()
    assert child.returncode == 130
    assert "the same command resumes" in err
    assert "Traceback" not in err
    assert not (tmp_path / "out" / "report.json").exists()
    filtered = journal.read_text()
    assert filtered
    report = filter_dataset(file, tmp_path / "out", DUPLICATES)
    assert report.counts.candidates == 60_000
    assert journal.read_text().startswith(filtered), "what was filtered before the stop is used again"


def test_a_full_disk_is_an_error_of_one_sentence_and_leaves_no_finished_output(tmp_path: Path) -> None:
    file = written(tmp_path / "rows.jsonl", corpus(3000))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, before[1]))
    try:
        with pytest.raises(StoreError, match="cannot be written"):
            filter_dataset(file, tmp_path / "out", DUPLICATES)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"work"}
    assert filter_dataset(file, tmp_path / "out", DUPLICATES).counts.candidates == 3000


class ProgressHook(io.StringIO):
    """A progress stream that calls `change` when the command prints `writing`."""

    def __init__(self, change: Callable[[], object]) -> None:
        super().__init__()
        self._change = change

    def write(self, text: str) -> int:
        if text == "writing":
            self._change()
        return super().write(text)


@pytest.mark.parametrize(
    "change",
    [
        lambda file: file.write_bytes(b"\n" + file.read_bytes()),
        lambda file: file.write_bytes(file.read_bytes()[:5000]),
        lambda file: file.write_bytes(b""),
        lambda file: os.utime(file, ns=(0, 0)),
        lambda file: file.rename(file.with_suffix(".old")),
    ],
    ids=["longer", "shorter", "empty", "touched", "gone"],
)
def test_an_input_that_changes_while_it_is_filtered_is_rejected(
    change: Callable[[Path], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SESSION, "quiet", False)  # a command that another test called in this process may have set it
    file = written(tmp_path / "rows.jsonl", corpus(300))
    with (
        contextlib.redirect_stderr(ProgressHook(lambda: change(file))),
        pytest.raises(UsageError, match=r"rows\.jsonl: (was changed while|cannot be read)"),
    ):
        filter_dataset(file, tmp_path / "out", DUPLICATES)
    assert not (tmp_path / "out").exists()


def test_later_rows_are_checked_against_earlier_releases(tmp_path: Path) -> None:
    texts = corpus(1000)
    first, second = written(tmp_path / "1.jsonl", texts[:500]), written(tmp_path / "2.jsonl", texts[500:])
    filter_dataset(first, tmp_path / "1", DUPLICATES)
    kept = tmp_path / "1" / "kept.jsonl"
    count = len(kept.read_text().splitlines())
    assert add_to_duplicate_index(tmp_path / "index", kept, "week 1", 5, print) == count
    assert add_to_duplicate_index(tmp_path / "index", kept, "week 1", 5, print) == 0
    report = filter_dataset(second, tmp_path / "2", apply_duplicate_index(DUPLICATES, tmp_path / "index"))
    gone = pl.read_parquet(tmp_path / "2" / "dropped.parquet")
    earlier = gone.filter(pl.col("duplicate_of").str.starts_with("week 1:"))
    _, repeats = expected(texts)
    across = {name for name, original in repeats.items() if int(name[1:]) >= 500 > int((original or "r0")[1:])}
    assert len(across) > 20
    names = {f"r{int(name[1:]) + 500}" for name in earlier["id"]}
    assert len(names ^ across) <= 2, "only rows close to the threshold may differ"
    assert earlier["duplicate_row"].null_count() == earlier.height
    assert adds_up(report)


def test_the_command_prints_its_report_and_exits_with_1_for_unreadable_rows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = written(tmp_path / "rows.jsonl", corpus(300))
    with file.open("a") as more:
        more.write("{broken\n")
    code, out, _ = called(
        capsys, "filter", str(file), "--out", str(tmp_path / "out"), "--filters", "exact,minhash", "--json"
    )
    assert code == 1
    report: dict[str, Any] = json.loads(out)
    assert report == json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["counts"]["failed"] == 1


@pytest.mark.parametrize(("options", "code"), [((), 1), (("--min-kept", "0"), 0), (("--min-kept", "3"), 1)])
def test_fewer_kept_rows_than_min_kept_are_no_success(
    options: Sequence[str], code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = corpus(2) if "3" in options else ["too short", "this too"]
    file, out = written(tmp_path / "r.jsonl", texts), tmp_path / "out"
    got, _, stderr = called(capsys, "filter", str(file), "--out", str(out), *options)
    assert got == code
    assert (tmp_path / "out" / "report.json").exists()
    least = options[1] if options else "1"
    assert (f"fewer than --min-kept {least}" in stderr) == bool(code)


def test_a_masked_row_with_half_a_surrogate_pair_is_utf_8(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps({"text": f"é {HALF} to ann.lee@corp.com"}))
    filter_dataset(file, tmp_path / "out", parse_filter_settings([], "pii"))
    kept = (tmp_path / "out" / "kept.jsonl").read_text(encoding="utf-8")
    assert json.loads(kept) == {"text": "é ? to [EMAIL]"}
