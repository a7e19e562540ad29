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

from core.errors import RecipeError
from core.runs.run_dir import RunDir
from core.runs.student_records import ReplayRecord, StepRecord, StudentRecord
from core.storage.atomic_files import read_json
from flows.evaluate.student_evaluation import collect_used_requests
from flows.recipes.recipe_catalog import load_recipe_plan
from plugins.forms.average_choice import AVERAGE_SHARES, ShareScore, choose_average_share, describe_choice
from plugins.forms.averaged_students import write_card
from students.student_folder import list_result_rows
from tests.students.conftest import saved, tiny_llama, tiny_tokenizer
from tests.support.forked import FORKS

REQUESTS = 2
TRAINED = StudentRecord(
    start="layers", parameters=1, train_samples=9, held_out_samples=1, steps=3, seconds=1.0,
    loss_before=3.5, loss_after=1.111, kl_before=0.9, kl_after=0.3,
    step_records=[StepRecord(type="windows", rows={"attention": "windows of 16 tokens"})],
    replay=ReplayRecord(learned=16, held_out=8, divergence_before=0.0, divergence=0.777),
)  # fmt: skip


def scores(*rates: tuple[float, float]) -> list[ShareScore]:
    return [ShareScore(share, passed, panel) for share, (passed, panel) in zip(AVERAGE_SHARES, rates, strict=True)]


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
            load_recipe_plan("smoke", [f"student={{steps=[{{type='average_choice'}}]{evaluation}}}"])


@pytest.mark.slow
@pytest.mark.xdist_group("run")
def test_a_run_that_is_killed_while_it_chooses_does_not_train_again(tmp_path: Path, prefect_home: Path) -> None:
    tokenizer = tiny_tokenizer()
    start = saved(tiny_llama(len(tokenizer)), tokenizer, tmp_path / "start")
    student = (
        f"student={{start='{start}',epochs=1,batch_size=8,max_tokens=512,steps=[{{type='average_choice'}}],"
        f"evaluation={{requests={REQUESTS},panel=2}}}}"
    )
    words = ["run", "smoke", "--set", student, "--set", "samples=24", "--set", "collapse={gate=false}"]
    place: Any = {"PREFECT_HOME": str(prefect_home), "XDG_CACHE_HOME": str(tmp_path)}
    killed = FORKS.start("stillhouse", *words, "--runs-dir", str(tmp_path / "killed"), **place)
    while killed.poll() is None and not list((tmp_path / "killed").glob("*/wip/average.json")):
        time.sleep(0.02)
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate()
    (manifest_file,) = (tmp_path / "killed").glob("*/manifest.json")
    run = RunDir(manifest_file.parent)
    assert not run.student.exists()
    trained = load_file(run.path / "wip" / "student" / "model.safetensors")

    resumed = FORKS.run("stillhouse", *words, "--runs-dir", str(tmp_path / "killed"), "--resume", **place)
    assert resumed.returncode == 0, resumed.stderr
    assert "is trained already" in resumed.stderr
    record = run.read_manifest().student
    assert record
    [choice] = [step for step in record.step_records if step.type == "average_choice"]
    share = choice.values["share"]
    assert share in AVERAGE_SHARES
    before, after = load_file(start / "model.safetensors"), load_file(run.student / "model.safetensors")
    for name, weight in after.items():
        expected = torch.lerp(before[name].bfloat16().float(), trained[name].float(), share)
        torch.testing.assert_close(weight.float(), expected, rtol=2**-7, atol=1e-6)
    assert f"| weights | start + {share:g} * (trained - start)" in (run.student / "README.md").read_text()
    assert read_json(run.student / "student.json")["record"] == json.loads(record.model_dump_json())
    asked = read_json(run.student / "validation_requests.json")
    assert len(set(asked)) == REQUESTS
    assert set(asked) <= collect_used_requests(run, load_recipe_plan("smoke"), print)
    evaluation = run.read_manifest().evaluation
    assert evaluation
    assert evaluation.example not in asked
    assert not list((run.path / "wip").glob("average*"))
    assert not (run.path / "wip" / "student").exists()


def test_the_card_of_averaged_weights_has_no_result_of_the_trained_ones(tmp_path: Path) -> None:
    assert TRAINED.replay
    choice = describe_choice([ShareScore(0.5, 0.5, 0.5)], 0.5, 4, 4)
    replay = TRAINED.replay.model_copy(update={"divergence": 0.444})
    changes = {"loss_after": 2.222, "step_records": [*TRAINED.step_records, choice], "replay": replay}
    card = tmp_path / "README.md"
    card.write_text("\n".join(["| held-out loss before | 3.500 |", *list_result_rows(TRAINED), "| seed | 7 |"]))
    write_card(tmp_path, TRAINED, TRAINED.model_copy(update=changes))
    text = card.read_text()
    assert "1.111" not in text
    assert "0.777" not in text
    assert text.count("2.222") == 1
    assert text.count("| attention | windows of 16 tokens |") == 1
    assert text.count("| weights | start + 0.5 * (trained - start) |") == 1
    assert "| choice of the share | share 0.5 of the training, chosen by 4 requests" in text
    assert "0.900 before, 0.300 after the training, before its weights were averaged" in text
    assert text.startswith("| held-out loss before | 3.500 |")
    assert text.endswith("| seed | 7 |")
