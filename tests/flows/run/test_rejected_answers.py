"""Rejected answers of a run's own samples, from which its student learns by `dpo`."""

import json
from pathlib import Path
from typing import Any

import pytest

from core.config.students import StudentConfig
from core.errors import UsageError
from core.runs.run_dir import RunDir
from core.sample import Message
from core.storage.atomic_files import read_json
from flows.data.curated_run import extract_conversations, read_kept_rows
from flows.data.preference_pairs import find_preference_data, find_rejected_answers, leave_out_scarce_pairs
from tests.students.conftest import saved, tiny_llama, tiny_tokenizer
from tests.support.forked import FORKS


@pytest.mark.parametrize(("pairs", "objective"), [(4, {"sft": 1.0}), (5, {"sft": 1.0, "dpo": 0.5})])
def test_a_handful_of_pairs_is_needed(pairs: int, objective: dict[str, float]) -> None:
    config = StudentConfig(objective={"sft": 1.0, "dpo": 0.5})
    rejected = [[Message(role="user", content="?")] if place < pairs else None for place in range(9)]
    chosen, used, sentence = leave_out_scarce_pairs(config, rejected)
    assert chosen.objective_weights == objective
    assert bool(used) == (pairs == 5)
    assert sentence.startswith(f"{pairs} conversations with a rejected answer")


@pytest.mark.slow
@pytest.mark.xdist_group("run")
def test_a_run_and_distill_learn_from_the_runs_own_rejected_answers(tmp_path: Path, prefect_home: Path) -> None:
    tokenizer = tiny_tokenizer()
    start = saved(tiny_llama(len(tokenizer)), tokenizer, tmp_path / "start")
    student = f"start='{start}',epochs=1,batch_size=8,max_tokens=512,objective={{sft=1.0,dpo=0.5,kto=1.0}}"
    words = ["run", "smoke", "--set", f"student={{{student}}}", "--set", "samples=60", "--set", "collapse={gate=false}"]
    place: Any = {"PREFECT_HOME": str(prefect_home), "XDG_CACHE_HOME": str(tmp_path)}
    done = FORKS.run("stillhouse", *words, "--runs-dir", str(tmp_path / "runs"), **place)
    assert done.returncode == 0, done.stderr
    (manifest_file,) = (tmp_path / "runs").glob("*/manifest.json")
    run = RunDir(manifest_file.parent)
    conversations = extract_conversations(read_kept_rows(run))
    rejected = find_rejected_answers(run, run.read_recipe(), conversations)
    pairs = [(one, other) for one, other in zip(conversations, rejected, strict=True) if other]
    assert 5 <= len(pairs) < len(conversations)
    for one, other in pairs:
        assert one[0] == other[0]
        assert one[-1] != other[-1]
    assert "with a rejected answer for dpo" in done.stderr
    config = StudentConfig(objective={"sft": 1.0, "kto": 1.0})
    found = find_preference_data(run, config, conversations)
    refused = [text for text, kept in found.judged if not kept]
    assert f"distill: {len(refused)} answers that failed a check, for kto" in done.stderr
    assert len(found.siblings) == len(found.judged)
    assert all(text[0] == row[0] for (text, _), rows in zip(found.judged, found.siblings, strict=True) for row in rows)
    assert {len(rows) for rows in found.siblings[len(conversations) :]} == {0, 1}, (
        "the seed of a draft has a row or none"
    )
    assert [text for text, kept in found.judged if kept] == conversations
    assert not any(text in conversations for text in refused)
    log = [json.loads(line) for line in (run.student / "training_log.jsonl").read_text().splitlines()]
    assert all("kto" in line for line in log)
    assert read_json(run.student / "student.json")["config"]["objective"] == {"sft": 1.0, "dpo": 0.5, "kto": 1.0}
    settings: list[str] = []
    for part in (f"start='{start}'", "epochs=1", "max_tokens=512", "objective={sft=1.0,dpo=0.5,kto=1.0}"):
        settings += ["--set", part]
    again = FORKS.run("stillhouse", "distill", str(run.path), "--out", str(tmp_path / "out"), *settings, **place)
    assert again.returncode == 0, again.stderr
    assert f"distill: {len(pairs)} conversations with a rejected answer for dpo" in again.stderr
    assert f"distill: {len(refused)} answers that failed a check, for kto" in again.stderr
    stored = read_json(run.recipe_file)
    run.recipe_file.write_text(json.dumps({**stored, "recipe": {**stored["recipe"], "filters": [{"type": "pii"}]}}))
    with pytest.raises(UsageError, match="its filter pii masks no refused answers"):
        find_preference_data(run, config, conversations)
