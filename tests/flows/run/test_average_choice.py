"""The share of the training in a student's weights, chosen by a run on validation requests and the general panel."""

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from core.config.students import StudentConfig
from core.errors import RecipeError
from core.runs.run_dir import RunDir
from core.runs.student_records import ShareScore
from core.sample import Message
from core.storage.atomic_files import read_json
from flows.data.curated_run import extract_conversations, read_kept_rows
from flows.data.preference_pairs import find_rejected_answers, leave_out_scarce_pairs
from flows.evaluate.student_evaluation import collect_used_requests
from flows.recipes.recipe_catalog import load_recipe_plan
from flows.run.pipeline import AVERAGE_SHARES, choose_average_share
from tests.students.conftest import saved, tiny_llama, tiny_tokenizer
from tests.support.forked import COMMAND_FORKS

REQUESTS = 2


def scores(*rates: tuple[float, float]) -> list[ShareScore]:
    return [
        ShareScore(share=share, pass_rate=passed, panel_rate=panel)
        for share, (passed, panel) in zip(AVERAGE_SHARES, rates, strict=True)
    ]


@pytest.mark.parametrize(
    ("rates", "share"),
    [
        ([(0.2, 0.6), (0.3, 0.6), (0.4, 0.6), (0.5, 0.6)], 1.0),  # nothing is lost
        ([(0.2, 0.6), (0.3, 0.55), (0.4, 0.54), (0.5, 0.3)], 0.5),  # 0.05 is the limit
        ([(0.3, 0.6), (0.3, 0.6), (0.3, 0.6), (0.3, 0.6)], 0.25),  # a tie
        ([(0.1, 0.5), (0.4, 0.4), (0.5, 0.3), (0.5, 0.2)], 0.5),  # all lose too much: the best sum, smaller in a tie
    ],
)
def test_the_share_gains_most_without_a_loss_beyond_the_limit(rates: list[tuple[float, float]], share: float) -> None:
    assert choose_average_share(scores(*rates), 0.6, 0.05) == share


def test_a_share_is_chosen_on_requests_and_a_panel_only() -> None:
    for evaluation in ("", ",evaluation={requests=4,panel=0}"):
        with pytest.raises(RecipeError, match="the share is chosen on requests of the recipe and on the general panel"):
            load_recipe_plan("smoke", [f"student={{average='validation'{evaluation}}}"])


@pytest.mark.slow
@pytest.mark.xdist_group("run")
def test_a_run_that_is_killed_while_it_chooses_does_not_train_again(tmp_path: Path, prefect_home: Path) -> None:
    tokenizer = tiny_tokenizer()
    start = saved(tiny_llama(len(tokenizer)), tokenizer, tmp_path / "start")
    student = (
        f"student={{start='{start}',epochs=1,batch_size=8,max_tokens=512,average='validation',"
        f"evaluation={{requests={REQUESTS},panel=2}}}}"
    )
    words = ["run", "smoke", "--set", student, "--set", "samples=24", "--set", "collapse={gate=false}"]
    place: Any = {"PREFECT_HOME": str(prefect_home), "XDG_CACHE_HOME": str(tmp_path)}
    killed = COMMAND_FORKS.start("stillhouse", *words, "--runs-dir", str(tmp_path / "killed"), **place)
    while killed.poll() is None and not list((tmp_path / "killed").glob("*/wip/average.json")):
        time.sleep(0.02)
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate()
    (manifest_file,) = (tmp_path / "killed").glob("*/manifest.json")
    run = RunDir(manifest_file.parent)
    assert not run.student.exists()
    trained = load_file(run.path / "wip" / "student" / "model.safetensors")

    resumed = COMMAND_FORKS.run("stillhouse", *words, "--runs-dir", str(tmp_path / "killed"), "--resume", **place)
    assert resumed.returncode == 0, resumed.stderr
    assert "is trained already" in resumed.stderr
    record = run.read_manifest().student
    assert record
    assert record.average_choice
    assert record.average == record.average_choice.share
    assert [score.share for score in record.average_choice.scores] == list(AVERAGE_SHARES)
    before, after = load_file(start / "model.safetensors"), load_file(run.student / "model.safetensors")
    for name, weight in after.items():
        expected = torch.lerp(before[name].bfloat16().float(), trained[name].float(), record.average)
        torch.testing.assert_close(weight.float(), expected, rtol=2**-7, atol=1e-6)
    assert f"| weights | start + {record.average:g} * (trained - start)" in (run.student / "README.md").read_text()
    assert read_json(run.student / "student.json")["record"] == json.loads(record.model_dump_json())
    asked = read_json(run.student / "validation_requests.json")
    assert len(set(asked)) == REQUESTS
    assert set(asked) <= collect_used_requests(run, load_recipe_plan("smoke"), print)
    evaluation = run.read_manifest().evaluation
    assert evaluation
    assert evaluation.example not in asked
    assert not list((run.path / "wip").glob("average*"))
    assert not (run.path / "wip" / "student").exists()


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
    student = f"start='{start}',epochs=1,batch_size=8,max_tokens=512,objective={{sft=1.0,dpo=0.5}}"
    words = ["run", "smoke", "--set", f"student={{{student}}}", "--set", "samples=60", "--set", "collapse={gate=false}"]
    place: Any = {"PREFECT_HOME": str(prefect_home), "XDG_CACHE_HOME": str(tmp_path)}
    done = COMMAND_FORKS.run("stillhouse", *words, "--runs-dir", str(tmp_path / "runs"), **place)
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
    assert read_json(run.student / "student.json")["config"]["objective"] == {"sft": 1.0, "dpo": 0.5}
    settings: list[str] = []
    for part in (f"start='{start}'", "epochs=1", "max_tokens=512", "objective={sft=1.0,dpo=0.5}"):
        settings += ["--set", part]
    again = COMMAND_FORKS.run(
        "stillhouse", "distill", str(run.path), "--out", str(tmp_path / "out"), *settings, **place
    )
    assert again.returncode == 0, again.stderr
    assert f"distill: {len(pairs)} conversations with a rejected answer for dpo" in again.stderr
