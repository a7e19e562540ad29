"""Whole runs of the shipped recipe by the recorded replies of a capable model that knew no rule of the plugin."""

import json
from pathlib import Path

import pytest

from core.sample import SampleStatus
from flows.data.curated_run import read_finished_samples
from tests.support.lineages import write_rows
from tests.support.produce_run import produce_run

pytestmark = pytest.mark.slow

RECORDED = Path(__file__).with_name("recorded")
LANGUAGES = ("de", "fr", "es", "zh")


def count_kept(folder: Path, recording: Path, language: str) -> int:
    run, _ = produce_run(
        str(folder),
        "constrained-german",
        [
            f"language={language}",
            f"seeds={{recording='{recording}'}}",
            f"teachers.main={{model='fake/replay:{recording}'}}",
            "samples=30",
            "keep=0",
            "agents.critic=false",
            "topology.max_revisions=0",
            "max_failed=1.0",
        ],
    )
    return sum(sample.state is SampleStatus.kept for sample in read_finished_samples(run))


@pytest.mark.parametrize("language", LANGUAGES)
def test_replies_of_another_writer_keep_their_rules_and_no_others(language: str, tmp_path: Path) -> None:
    recording = RECORDED / f"{language}.jsonl"
    assert count_kept(tmp_path / "sound", recording, language) == 30
    rows = [json.loads(line) for line in recording.read_text().splitlines()]
    replies = [row["replies"][0]["reply"] for row in rows]
    for row, other in zip(rows, [*replies[1:], replies[0]], strict=True):
        row["replies"][0]["reply"] = other
    exchanged = write_rows(tmp_path / f"{language}.jsonl", rows)
    assert count_kept(tmp_path / "exchanged", exchanged, language) <= 0, "control: each reply under another's rules"
