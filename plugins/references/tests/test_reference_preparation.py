"""References made from a user's files, as the command does."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

import stillhouse
from core.config.recipe import ENGLISH_REFERENCE
from core.project_files import PROJECT
from core.runs.collapse_facts import CollapseVerdict
from filters.collapse.reference_corpus import ReferenceCorpus
from flows.data.reference_files import METADATA_KEY, read_reference
from flows.rows.dataset_rows import read_dataset_documents
from plugins.references.preparation import ReferenceOptions, prepare_reference
from plugins.references.self_test import (
    SelfTestResult,
    SelfTestSample,
    choose_sample_size,
    run_self_test,
    split_into_samples,
)
from tests.flows.commands.test_commands import called


@pytest.fixture(scope="module")
def passages() -> list[str]:
    return [document.text for document in read_dataset_documents(PROJECT / ENGLISH_REFERENCE)][:600]


def written(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_reference_is_made_from_rows_and_read_by_assess(
    passages: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    near = passages[1].rsplit(" ", 1)[0] + " indeed."
    rows = [*passages[:400], passages[0].upper(), near * 1, "…", ""]
    source, out = written(tmp_path / "rows.jsonl", [{"text": text} for text in rows]), tmp_path / "real.parquet"
    words = [
        "reference",
        str(source),
        "--out",
        str(out),
        "--source",
        "novels, public domain",
        "--runs-dir",
        str(tmp_path),
    ]
    code, text, _ = called(capsys, *words, "--dry-run")
    assert (code, out.exists(), "nothing was written" in text) == (0, False, True)
    assert f"next: stillhouse {' '.join(words[:3])}" in text
    code, text, _ = called(capsys, *words, "--json")
    report = json.loads(text)
    record = report["reference"]
    assert (code, record["kind"], record["source"], record["read"]) == (0, "prose", "novels, public domain", 404)
    assert record["documents"] + sum(record["dropped"].values()) == 404
    assert (record["dropped"]["empty"], record["dropped"]["exact repeats"]) == (2, 1)
    assert 0.05 <= report["loss"] < 1
    reference = read_reference(out)
    assert reference.record is not None
    assert sorted(reference.texts) == sorted({*reference.texts} & {*passages, near}), "rows are unchanged"
    assert reference.texts != sorted(reference.texts, key=rows.index), "shuffled"
    candidates = written(tmp_path / "mine.jsonl", [{"text": text} for text in passages[400:600]])
    code, text, _ = called(
        capsys, "assess", str(candidates), "--reference", str(out), "--runs-dir", str(tmp_path), "--json"
    )
    assert (code, json.loads(text)["collapse"]["reference"]) == (0, str(out))

    code, _, err = called(capsys, *words)
    assert (code, "exists already; name another file, or replace it with --force" in err) == (2, True)
    before = out.read_bytes()
    assert called(capsys, *words, "--force")[0] == 0
    assert pq.read_table(out).equals(pq.read_table(out.with_name("real.parquet")))
    assert len(before) == out.stat().st_size, "the same input and seed give the same file"


def test_dialogues_are_a_reference_whose_turns_are_compared_by_role(
    passages: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def talk(place: int) -> dict[str, Any]:
        spoken = zip(
            ("system", "user", "assistant", "user", "assistant"),
            ["Be kind.", *passages[place : place + 4]],
            strict=True,
        )
        return {"messages": [{"role": role, "content": text} for role, text in spoken]}

    talks = [talk(place) for place in range(0, 596, 4)]
    source = written(tmp_path / "talks.jsonl", [*talks[:100], talks[0]])
    out, words = tmp_path / "real.parquet", ["--runs-dir", str(tmp_path), "-q"]
    code, text, _ = called(capsys, "reference", str(source), "--out", str(out), "--kind", "dialogue", *words)
    assert (code, "100 documents of 100 texts with 200 user turns and 200 assistant turns, " in text) == (0, True), text
    assert "left out: 1 exact repeat" in text
    assert re.search(r"power     with 2,000 (user|assistant) turns of a dataset \(100 of them compared\), ", text)
    assert "kind dialogue" in text
    first = json.loads(read_reference(out).texts[0])
    assert {message["role"] for message in first} == {"system", "user", "assistant"}

    mine = written(tmp_path / "mine.jsonl", talks[100:])
    code, text, _ = called(capsys, "assess", str(mine), "--reference", str(out), "--json", *words)
    found = json.loads(text)["collapse"]
    assert (code, found["kind"], {*found["roles"]}, found["reference_documents"]) == (
        0, "dialogue", {"user", "assistant"}, 200,
    )  # fmt: skip
    monkeypatch.setattr("plugins.references.self_test.PAIRS", 4)
    code, text, _ = called(capsys, "self-test", str(out), "--documents", "40", "--json", *words)
    found = json.loads(text)
    assert (code, found["samples"], found["real_documents"], found["kind"]) == (0, 4, 400, "dialogue")
    plain = written(tmp_path / "plain.jsonl", [{"text": text} for text in passages[:60]])
    code, text, _ = called(capsys, "assess", str(plain), "--reference", str(out), *words)
    assert (code, "the dataset is prose and the reference" in text) == (0, True)


@pytest.mark.parametrize(
    ("rows", "words", "sentence"),
    [
        ([{"text": "one two"}], ["--out", "real.jsonl"], "real.jsonl: must end in .parquet"),
        ([{"text": "one two"}] * 50, [], "1 document for a reference (left out: 49 exact repeats); 30 are needed"),
        ([{"text": ""}], [], "0 documents for a reference (left out: 1 empty)"),
        ([{"texts": "one"}], [], "row 1: needs `text`, or `messages`"),
        (
            [{"asked": "a", "said": "b"}],
            ["--out", "real.parquet", "--columns", "user=asked,assistant=sad"],
            "has no `sad`, which --columns names",
        ),
        ([{"text": "x" * (9 << 20)}], [], "line 1 has more than 8 MB"),
    ],
)
def test_what_cannot_be_a_reference_is_refused_in_a_sentence(
    rows: list[dict[str, Any]], words: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = written(tmp_path / "rows.jsonl", rows)
    out = tmp_path / "real.parquet"
    code, _, err = called(capsys, "reference", str(source), *(words or ["--out", str(out)]))
    assert (code, sentence in err, out.exists()) == (2, True, False), err


def test_a_changed_reference_is_refused(
    passages: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = written(tmp_path / "rows.jsonl", [{"text": text} for text in passages[:60]])
    out = tmp_path / "real.parquet"
    prepare_reference([source], out, ReferenceOptions(), cache=tmp_path)
    table = pq.read_table(out)
    pq.write_table(table.slice(1), out)
    code, _, err = called(capsys, "assess", str(source), "--reference", str(out))
    assert (code, "its texts are not those of its record; make it again" in err) == (2, True)
    pq.write_table(table.replace_schema_metadata({METADATA_KEY: b'{"kind": 3}'}), out)
    code, _, err = called(capsys, "assess", str(source), "--reference", str(out))
    assert (code, "its record is damaged: kind" in err) == (2, True)


def test_a_reference_is_made_of_frames_and_files(tmp_path: Path) -> None:
    english = [json.loads(line)["text"] for line in (PROJECT / ENGLISH_REFERENCE).read_text().splitlines()]
    (tmp_path / "more.txt").write_text("\n\n".join(english[60:160]))
    out = tmp_path / "real.parquet"
    real = stillhouse.reference([pl.DataFrame({"text": english[:60]}), tmp_path / "more.txt"], out, source="novels")
    assert (real.path, real.report.reference.source, real.report.out) == (out, "novels", str(out))
    assert real.texts.columns == ["text", "origin"]
    assert len(real.texts) == real.report.reference.documents > 60
    assert stillhouse.assess(pl.DataFrame({"text": english[200:260]}), out).verdict == "inconclusive"
    with pytest.raises(stillhouse.UsageError, match="exists already"):
        stillhouse.reference(tmp_path / "more.txt", out)
    again = stillhouse.reference(tmp_path / "more.txt", out, replace=True)
    assert 30 <= again.report.reference.documents < real.report.reference.documents


@given(st.lists(st.integers(1, 9), min_size=1, max_size=40), st.integers(5, 30), st.integers(0, 99))
def test_samples_are_disjoint_and_of_whole_groups(sizes: list[int], documents: int, seed: int) -> None:
    groups = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))
    samples = list(split_into_samples(groups, documents, np.random.default_rng(seed)))
    places = np.concatenate([np.zeros(0, dtype=int), *samples])
    assert len(np.unique(places)) == len(places)
    assert all(documents / 2 <= len(sample) <= documents for sample in samples)
    owners = [np.unique(groups[sample]) for sample in samples]
    assert len(np.unique(np.concatenate([np.zeros(0, dtype=int), *owners]))) == sum(map(len, owners))


def test_real_text_passes_its_own_test(tmp_path: Path) -> None:
    texts = [json.loads(line)["text"] for line in (PROJECT / ENGLISH_REFERENCE).read_text().splitlines()][:1200]
    reference = ReferenceCorpus.from_texts(texts, "real")
    size = choose_sample_size(len(texts), None)
    found = list(run_self_test(reference, size, seed=7, cache=tmp_path, pairs=8))
    result = SelfTestResult(size, found)
    assert (size, result.alarms, sum(result.verdicts.values())) == (300, 0, 8)
    assert min(sample.documents for sample in found) > 250
    assert len(list(tmp_path.iterdir())) == 1, "one null distribution for all samples"
    # The sample's own documents are not part of what it is compared with: half of its rare words are new.
    assert not any("topics" in sample.reasons for sample in found)


@pytest.mark.parametrize(("alarms", "compatible"), [(0, True), (2, True), (4, True), (5, False), (200, False)])
def test_a_rate_is_compatible_unless_its_interval_is_over_one_percent(alarms: int, *, compatible: bool) -> None:
    verdicts = [CollapseVerdict.collapse] * alarms + [CollapseVerdict.passed] * (200 - alarms)
    result = SelfTestResult(500, [SelfTestSample(500, verdict, ()) for verdict in verdicts])
    assert result.is_compatible == compatible
    assert result.rate.high >= 0.0188
