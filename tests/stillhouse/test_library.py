"""The library in a program that has an event loop of its own, as a notebook has."""

import asyncio
import gzip
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import nbformat
import pandas as pd
import polars as pl
import pytest
from nbclient import NotebookClient

import stillhouse
from core.project_files import PROJECT
from core.sample import SampleStatus
from flows.prefect_server.local_server import stop_local_server
from stillhouse.functions import run_call

ROWS = [
    {"text": f"The {name} of the harbour was painted in {year}."}
    for name in ("wall", "gate")
    for year in range(1900, 1910)
]
ENGLISH = PROJECT / "data" / "reference" / "english.jsonl"


def test_importing_it_is_light_and_every_public_name_exists() -> None:
    code = "import sys, stillhouse; print([name for name in ('polars', 'prefect', 'pydantic', 'torch') if name in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"
    assert [name for name in stillhouse.__all__ if getattr(stillhouse, name) is None] == []
    with pytest.raises(AttributeError, match="nothing_of_that_name"):
        stillhouse.nothing_of_that_name  # noqa: B018


def test_a_preview_in_a_running_event_loop() -> None:
    async def cell() -> stillhouse.Preview:
        return stillhouse.preview("smoke", 2)

    samples = asyncio.run(cell())
    assert len(samples) == samples.estimate.previewed == 2
    assert samples.estimate.calls.value > 60
    assert all(sample.state in SampleStatus and sample.turns for sample in samples)
    with pytest.raises(stillhouse.RecipeError, match="samples"):
        stillhouse.preview("smoke", settings={"samples": -1})


@pytest.mark.parametrize("as_frame", [True, False])
def test_filter_takes_a_frame_or_a_file_and_leaves_nothing_behind(
    as_frame: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    frame = pl.DataFrame([*ROWS, ROWS[0], {"text": "x"}])
    source = frame if as_frame else tmp_path / "rows.parquet"
    if not as_frame:
        frame.write_parquet(tmp_path / "rows.parquet")
    messages: list[stillhouse.Progress] = []
    found = stillhouse.filter(source, filters=["exact", {"type": "length", "min_words": 2}], progress=messages.append)
    assert found.kept.to_dicts() == ROWS
    assert found.dropped["filter"].to_list() == ["exact", "length"]
    assert found.report.counts.candidates == len(found.kept) + len(found.dropped) == 22
    assert found.path is None
    assert ("writing", None) in messages
    lines = tmp_path / "rows.jsonl.gz"
    lines.write_bytes(gzip.compress(b'{"text": "one"}\n' * 200 + b'{"text": "two", "late": 1}\n'))
    assert stillhouse.filter(lines, filters=["exact"]).kept.to_dicts() == [
        {"text": "one", "late": None},
        {"text": "two", "late": 1},
    ]
    nothing = stillhouse.filter(lines, filters=[{"type": "length", "min_words": 9}])
    assert (len(nothing.kept), len(nothing.dropped)) == (0, 201)
    assert list((tmp_path / "temporary").iterdir()) == []
    kept = stillhouse.filter(source, tmp_path / "out", filters=["exact"])
    assert kept.path == tmp_path / "out"
    assert (tmp_path / "out" / "report.html").is_file()
    with pytest.raises(stillhouse.UsageError, match="leave out"):
        stillhouse.filter(source, filters=["exact"], recipe="smoke")


class TextRow(dict[str, str]):
    """A mapping that is no plain dict."""


def make_pandas(rows: list[TextRow]) -> pd.DataFrame:
    """With an index that is no row number."""
    return pd.DataFrame(rows, index=[f"i{number}" for number in range(len(rows))])


@pytest.mark.parametrize("form", [list, tuple, pl.DataFrame, make_pandas, datasets.Dataset.from_list])
def test_filter_takes_rows_of_any_form(form: Callable[[list[TextRow]], Any]) -> None:
    found = stillhouse.filter(form([TextRow(row) for row in [*ROWS, ROWS[0]]]), filters=["exact"])
    assert found.kept.to_dicts() == ROWS
    assert (found.report.kept, found.report.out) == ("", "")
    assert repr(found).startswith(f"filter ({type(form([])).__name__})  done\n  rows 21 -> kept 20, dropped 1\n")
    assert len(repr(found)) < 400
    assert found._repr_html_().startswith("<pre>filter (")


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ({"text": "a b c d"}, "not dict; wrap a single row in a list"),
        (None, "not NoneType"),
        (7, "not int"),
        (["a b c d"], "must have a dict for each row"),
        ([{"text": {1, 2}}], "the rows of the list cannot be written: Object of type set"),
        ([], "(list): has no rows"),
        (pl.DataFrame({"label": [1]}), "(DataFrame): "),
    ],
)
@pytest.mark.parametrize("function", [stillhouse.filter, stillhouse.assess])
def test_what_is_no_dataset_is_an_error_of_one_sentence(
    source: Any, error: str, function: Callable[[Any], object]
) -> None:
    with pytest.raises(stillhouse.StillhouseError) as caught:
        function(source)
    assert error in str(caught.value)
    assert "\n" not in str(caught.value)


def test_assess_returns_frames() -> None:
    english = [json.loads(line)["text"] for line in ENGLISH.read_text().splitlines()]
    frame = pl.DataFrame({"text": ["The cat is on the mat and the dog is in the fog."] * 200})
    assessment = stillhouse.assess(frame, ENGLISH)
    assert assessment.verdict == "collapse"
    assert assessment.metrics.filter(pl.col("name") == "exact_duplicates")["candidate"].item() > 0.9
    same = stillhouse.assess(pl.DataFrame({"text": english[::9]}), ENGLISH)
    assert same.verdict != "collapse", "real text is not collapsed: the control"
    alone = stillhouse.assess(frame)
    assert alone.verdict == "collapse", "it repeats itself"
    assert stillhouse.assess(pl.DataFrame({"text": english[:600]})).verdict == "no repetition"


IN_A_LOOP = """
import asyncio, gc, json, os, signal, sys, time
from pathlib import Path
import stillhouse
from flows.prefect_server.local_server import find_live_server, stop_local_server

async def cell():
    return stillhouse.run("smoke", runs_dir=sys.argv[1], settings={"samples": 12}, progress=messages.append)

variables = dict(os.environ)
messages, numbers = [], (signal.SIGINT, signal.SIGTERM)
handlers = [signal.getsignal(number) for number in numbers]
run = asyncio.run(cell())
try:
    stillhouse.run("smoke", runs_dir=sys.argv[1], settings={"samples": 12})
except stillhouse.RunExists as error:
    refused = str(error)
stop_local_server(home := Path(os.environ["PREFECT_HOME"]))
while find_live_server(home):
    time.sleep(0.05)
again = stillhouse.generate("smoke", runs_dir=sys.argv[1], settings={"samples": 12}, resume=True)
print(json.dumps({
    "path": str(run.path), "again": str(again.path), "refused": refused, "shares": sum(m.share is not None for m in messages),
    "frozen": gc.get_freeze_count(), "variables": sorted({name for name, _ in variables.items() ^ os.environ.items()}),
    "handlers": handlers == [signal.getsignal(number) for number in numbers],
}))
"""


@pytest.mark.slow
@pytest.mark.waits
def test_a_run_in_a_running_event_loop_and_without_signal_handlers(tmp_path: Path) -> None:
    command = [sys.executable, "-c", IN_A_LOOP, str(tmp_path / "runs")]
    environment = {**os.environ, "PREFECT_HOME": str(tmp_path / "prefect")}
    ran = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True, check=True)
    stop_local_server(tmp_path / "prefect")
    assert ran.stderr == "", "a library prints nothing"
    found = json.loads(ran.stdout)
    assert (found["handlers"], found["frozen"]) == (True, 0)
    assert found["variables"] == ["_RJEM_MALLOC_CONF"], "which polars sets"
    assert found["path"] == found["again"]
    assert "exists" in found["refused"]
    assert found["shares"] > 0
    run = stillhouse.Run(Path(found["path"]), str(tmp_path / "runs"))
    assert run.state in ("done", "partial")
    assert len(run.dataset.train) + len(run.dataset.validation) == run.manifest.counts.kept > 0
    samples = run.samples()
    assert len(samples) == run.manifest.counts.candidates == 12
    assert run.sample(samples["id"][0]).id == samples["id"][0]
    assert run.report_page.is_file()
    assert run.student is None
    assert "kept" in repr(run)
    with pytest.raises(stillhouse.UsageError, match="smoke: nothing of this recipe was released"):
        stillhouse.load_release("smoke", runs_dir=tmp_path / "runs")


@pytest.mark.slow
@pytest.mark.waits
def test_an_interrupt_stores_finished_samples(tmp_path: Path, prefect_home: Path) -> None:
    code = """
import sys, stillhouse
print("ready", flush=True)
try:
    stillhouse.generate("smoke", runs_dir=sys.argv[1], settings={"samples": 4000, "shard_size": 20},
                        progress=lambda one: one.share and print(one.message, flush=True))
except KeyboardInterrupt:
    print("interrupted", flush=True)
print(sum(1 for t in __import__("threading").enumerate() if t.name.startswith("stillhouse")))
"""
    command = [sys.executable, "-c", code, str(tmp_path / "runs")]
    environment = {**os.environ, "PREFECT_HOME": str(prefect_home)}
    with subprocess.Popen(command, cwd=PROJECT, env=environment, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        lines = iter(child.stdout.readline, "")
        next(line for line in lines if " samples" in line or "%" in line)
        child.send_signal(signal.SIGINT)
        rest = list(lines)
    assert rest[-2:] == ["interrupted\n", "0\n"]
    run = stillhouse.Run(next((tmp_path / "runs").glob("smoke-*")), str(tmp_path / "runs"))
    assert run.state == "interrupted"
    assert len(run.samples()) > 0


def test_one_call_at_a_time() -> None:
    running: list[int] = []
    overlaps: list[int] = []

    def work() -> None:
        running.append(1)
        time.sleep(0.05)
        overlaps.append(len(running))
        running.pop()

    threads = [threading.Thread(target=run_call, args=(work, None)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert overlaps == [1, 1, 1, 1]


@pytest.mark.slow
@pytest.mark.waits
def test_the_notebook_runs_in_a_kernel(tmp_path: Path, prefect_home: Path) -> None:
    notebook = nbformat.read(PROJECT / "docs" / "notebook.ipynb", as_version=4)
    environment = {**os.environ, "PYTHONPATH": str(PROJECT), "PREFECT_HOME": str(prefect_home)}
    client = NotebookClient(notebook, timeout=None, resources={"metadata": {"path": tmp_path}})
    client.execute(env=environment)
    shown = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert [output for output in shown if output.output_type == "error"] == []
    assert sum("text/html" in output.get("data", {}) for output in shown) >= 5, "the run's card and four frames"
