"""The step `grpo` of a run: its settings, the rewards of answers by a recipe's checks, and a run that is killed."""

import asyncio
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from agents.studies.held_out_evaluation import held_out_seeds
from core.errors import RecipeError
from core.runs.run_dir import RunDir
from core.runs.student_records import StudentRecord
from core.sample import Message
from core.storage.atomic_files import read_json
from flows.evaluate.student_evaluation import collect_used_requests
from flows.recipes.recipe_catalog import load_recipe_plan
from plugins.reinforcement.grading import build_reward, find_reward_fault
from plugins.reinforcement.hooks import HOOKS
from plugins.reinforcement.policy_training import CHECKPOINT_STEPS, SampledAnswer
from plugins.reinforcement.reinforced_student import describe_reinforcement
from tests.students.conftest import saved, tiny_llama, tiny_tokenizer
from tests.support.forked import FORKS

PANEL = "evaluation={requests=4,panel=2}"
REQUESTS = 8 * (CHECKPOINT_STEPS + 1)


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ("", "what it costs is measured on the general panel, in a run; add an evaluation with a panel"),
        (f"{PANEL},lora={{}}", "its updates are of whole matrices; leave lora out"),
        (f"{PANEL},start='random',steps=[{{type='grpo'}},{{type='hybrid'}}]", "hybrid: its weights would not keep"),
        (f"{PANEL},steps=[{{type='grpo',requests=12}}]", "multiple of 8"),
        (f"{PANEL},steps=[{{type='grpo',answers=12}}]", "answers"),
    ],
)
def test_settings_that_cannot_work_are_one_sentence(settings: str, fault: str) -> None:
    steps = "" if "steps" in settings else ",steps=[{type='grpo'}]"
    with pytest.raises(RecipeError, match=fault):
        load_recipe_plan("smoke", [f"student={{{settings}{steps}}}".replace("{,", "{")])


def test_a_family_whose_requests_cannot_be_asked_is_refused_before_the_run() -> None:
    step = f"student={{{PANEL},steps=[{{type='grpo'}}]}}"
    instructions = load_recipe_plan("constrained-instructions", [step])
    assert HOOKS.list_seed_problems(instructions, held_out_seeds(instructions, 1)) == []
    turns = [Message(role="user", content="Hi."), Message(role="user", content="And now?")]
    assert "have several turns, and it learns from one" in (find_reward_fault(instructions, turns) or "")
    assert "the generator writes the questions" in (find_reward_fault(instructions, None) or "")


def test_the_reward_is_the_share_of_the_rules_that_an_answer_keeps() -> None:
    plan = load_recipe_plan("constrained-instructions", [])
    seed = next(one for one in held_out_seeds(plan, 200) if one.data["constraints"][0][0]["kind"] == "no_commas")
    seed = seed.model_copy(
        update={"data": {**seed.data, "topic": "bread", "constraints": [seed.data["constraints"][0][:1]]}}
    )
    texts = {
        "Fresh bread smells good. Many people bake it at home on cold days.": 1.0,
        "Fresh bread smells good, and many people bake it at home on cold days.": 2 / 3,
        "Rivers run to the sea, or to a lake, because water always flows down the hills.": 1 / 3,
        "": 0.0,
    }
    answers = [SampledAnswer(0, text, finished=True) for text in texts]
    answers.append(answers[0]._replace(finished=False))
    rewards = asyncio.run(build_reward(plan, [seed])(answers))
    assert rewards == pytest.approx([*texts.values(), 0.0])


def test_weights_that_lose_too_much_on_the_panel_are_not_kept() -> None:
    log = [{"reward": 0.2 + 0.1 * step} for step in range(8)]
    kept, lost = (describe_reinforcement(log, panel, 20, 64) for panel in ((10, 9), (10, 8)))
    assert (kept.values["kept"], lost.values["kept"]) == (1.0, 0.0)
    assert kept.values["first"] == pytest.approx(0.25)
    assert kept.values["last"] == pytest.approx(0.85)
    assert "general panel 50% before and 40% after, which is more than 5% less" in lost.rows["reinforcement"]


@pytest.mark.slow
@pytest.mark.xdist_group("run")
def test_a_run_that_is_killed_while_it_reinforces_resumes_to_the_same_weights(
    tmp_path: Path, prefect_home: Path
) -> None:
    tokenizer = tiny_tokenizer()
    start = saved(tiny_llama(len(tokenizer)), tokenizer, tmp_path / "start")
    student = (
        f"student={{start='{start}',epochs=1,batch_size=8,max_tokens=512,precision='float32',replay={{most=16,max_tokens=16}},"
        f"steps=[{{type='grpo',requests={REQUESTS},learning_rate=1e-3}}],{PANEL}}}"
    )
    words = ["run", "smoke", "--set", student, "--set", "samples=24", "--set", "collapse={gate=false}"]
    words += ["--set", "agents.generator.max_tokens=16"]
    place: Any = {"PREFECT_HOME": str(prefect_home), "XDG_CACHE_HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}

    def run(folder: str, *more: str) -> tuple[RunDir, StudentRecord]:
        done = FORKS.run("stillhouse", *words, "--runs-dir", str(tmp_path / folder), *more, **place)
        assert done.returncode == 0, done.stderr
        (found,) = (RunDir(file.parent) for file in (tmp_path / folder).glob("*/manifest.json"))
        record = found.read_manifest().student
        assert record
        return found, record

    killed = FORKS.start("stillhouse", *words, "--runs-dir", str(tmp_path / "killed"), **place)
    while killed.poll() is None and not list((tmp_path / "killed").glob("*/wip/.reinforced-*.checkpoint/state.pt")):
        time.sleep(0.02)
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate()
    (manifest,) = (tmp_path / "killed").glob("*/manifest.json")
    trained = load_file(manifest.parent / "wip" / "student" / "model.safetensors")
    earlier = manifest.parent / "wip" / "reinforced-of-an-earlier-student"
    shutil.copytree(manifest.parent / "wip" / "student", earlier)
    (earlier / "grpo.jsonl").write_text("{}\n")
    whole, _ = run("whole")
    resumed, record = run("killed", "--resume")
    weights, expected = (load_file(one.student / "model.safetensors") for one in (resumed, whole))
    for name, weight in weights.items():
        assert torch.equal(weight, expected[name]), name
    assert any(not torch.equal(weight, trained[name]) for name, weight in weights.items())
    [step] = [step for step in record.step_records if step.type == "grpo"]
    assert step.rows["reinforcement"] in (resumed.student / "README.md").read_text()
    asked = read_json(resumed.student / "validation_requests.json")
    assert len(set(asked)) == REQUESTS
    assert set(asked) <= collect_used_requests(resumed, load_recipe_plan("smoke"), print)
    assert len((resumed.student / "grpo.jsonl").read_text().splitlines()) == CHECKPOINT_STEPS + 1
    assert not {*(resumed.path / "wip").glob("student"), *(resumed.path / "wip").glob("*reinforced*")}
