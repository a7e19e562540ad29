"""The objective `kto`: kept and refused answers, with the kept ones as texts at the same time."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch.optim.optimizer import register_optimizer_step_pre_hook
from transformers import PreTrainedTokenizerBase

from core.config.students import StudentConfig
from core.errors import UsageError
from core.sample import Message
from students.chat_encoding import Conversation
from students.training.loss_functions import kto_loss
from students.training.student_training import train_student
from students.training.training_loop import run_training_loop
from students.training.training_setup import prepare_objective, prepare_start
from students.training_data import encode_and_split
from tests.students.conftest import quiet
from tests.students.training.test_student_training import assert_close, assert_same_student, with_settings

BOTH = {"sft": 1.0, "kto": 1.0}
GOLDEN: list[dict[str, Any]] = json.loads((Path(__file__).parent / "golden" / "trl_losses.json").read_text())["kto"]


def judge(talk: list[Conversation]) -> list[tuple[Conversation, bool]]:
    """Each conversation, and one that a check refused for each."""
    refused = [[one[0], Message(role="assistant", content=f"Never {one[0].content[12:-1]}!")] for one in talk]
    return [*((one, True) for one in talk), *((one, False) for one in refused)]


@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: f"beta {case['beta']}")
def test_the_loss_of_verdicts_is_that_of_trl(case: dict[str, Any]) -> None:
    now, before = torch.tensor(case["now"]), torch.tensor(case["before"])
    losses = kto_loss(now, before, torch.tensor([True, False]), case["divergence"], beta=case["beta"])
    assert losses.mean().item() == pytest.approx(case["loss"], abs=1e-5)
    swapped = kto_loss(now, before, torch.tensor([False, True]), case["divergence"], beta=case["beta"])
    assert (losses + swapped).tolist() == pytest.approx([1, 1]), "the control"


@pytest.mark.parametrize("grown", [True, False])
def test_the_divergence_is_that_of_the_papers_formula(
    grown: bool, talk: list[Conversation], config: StudentConfig, tmp_path: Path
) -> None:
    """Unrelated answers, each to another prompt than its own, and never below 0."""
    settings = with_settings(config, objective=BOTH, precision="float32")
    training = prepare_start(talk, None, (), judge(talk), settings, 7, quiet, out=tmp_path / "student")
    objective, model, judged = prepare_objective(training, ""), training.start.model, list(training.data.judged)
    assert all(one.unrelated.ids != one.text.ids for one in judged)

    def scale_weights(factor: float) -> None:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(factor)

    if grown:
        scale_weights(1.5)
    objective.record_reference(model, [text for one in judged for text in (one.text, one.unrelated)], training.pad)
    scale_weights(1 / 1.5 if grown else 1.5)

    def likelihood(one: Any) -> float:
        ids, learned = torch.tensor([one.ids]), torch.tensor(one.learned[1:])
        with torch.no_grad():
            each = model(ids).logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0]
        return float(each[learned].sum())

    gains = [likelihood(one.unrelated) - objective._before[one.unrelated] for one in judged]
    expected = max(0.0, sum(gains) / len(gains))
    divergence = objective.estimate_divergence(model, judged, training.pad)
    if grown:
        assert expected > 1
        assert divergence == pytest.approx(expected, abs=1e-3)
    else:
        assert divergence == 0
    own = [likelihood(one.text) - objective._before[one.text] - expected for one in judged]
    exact = [
        1 - 1 / (1 + math.exp(-0.1 * (gain if one.kept else -gain))) for gain, one in zip(own, judged, strict=True)
    ]
    losses = objective.compute_kto(model, judged, expected, training.pad)
    assert losses.tolist() == pytest.approx(exact, abs=1e-4)


def test_a_student_leaves_refused_answers_and_keeps_kept_ones(
    talk: list[Conversation], config: StudentConfig, tmp_path: Path
) -> None:
    """Compared with texts alone, with true and with inverted verdicts."""
    inverted = [(text, not kept) for text, kept in judge(talk)]
    texts, last = {"sft": 1.0, "kto": 1e-9}, {}
    for name, objective, judged in (
        ("both", BOTH, judge(talk)),
        ("inverted", BOTH, inverted),
        ("texts", texts, judge(talk)),
        ("inverted texts", texts, inverted),
    ):
        settings = with_settings(config, objective=objective)
        record = train_student(talk, settings, tmp_path / name, seed=7, progress=quiet, judged=judged)
        log = [json.loads(line) for line in (tmp_path / name / "training_log.jsonl").read_text().splitlines()]
        assert record.loss_after < record.loss_before - 1
        if objective is BOTH:
            assert all(line["loss"] == pytest.approx(line["sft"] + line["kto"], rel=1e-4) for line in log)
            assert log[0]["kto"] == pytest.approx(0.5, abs=0.01)
        last[name] = log[-1]["kto"]
    assert last["both"] < 0.3
    assert last["both"] < 0.85 * last["texts"]
    assert last["inverted"] > 0.4, "the control: kept answers are learned as texts, and cannot be left too"
    assert last["inverted"] < 0.85 * last["inverted texts"]


def test_a_killed_training_with_verdicts_resumes_to_the_same_student(
    talk: list[Conversation], config: StudentConfig, tmp_path: Path
) -> None:
    settings = with_settings(config, objective=BOTH, epochs=4, checkpoint_steps=5)
    train_student(talk, settings, tmp_path / "whole", seed=7, progress=quiet, judged=judge(talk))

    steps: list[object] = []

    def stop(*_: object) -> None:
        steps.append(None)
        if len(steps) == 8:
            raise KeyboardInterrupt

    hook = register_optimizer_step_pre_hook(stop)
    try:
        with pytest.raises(KeyboardInterrupt):
            train_student(talk, settings, tmp_path / "again", seed=7, progress=quiet, judged=judge(talk))
    finally:
        hook.remove()
    lines: list[str] = []
    train_student(talk, settings, tmp_path / "again", seed=7, progress=lines.append, judged=judge(talk))
    assert "student: resumes after step 5" in lines
    assert_same_student(tmp_path / "whole", tmp_path / "again")


def test_batches_of_verdicts_do_not_change_the_student(
    talk: list[Conversation], config: StudentConfig, tmp_path: Path
) -> None:
    whole = with_settings(config, objective=BOTH, precision="float32", epochs=2, batch_size=6)
    made = []
    for settings in (whole, with_settings(whole, batch_size=2, accumulate=3)):
        training = prepare_start(talk, None, (), judge(talk), settings, 7, quiet, out=tmp_path / str(len(made)))
        done = run_training_loop(training, prepare_objective(training, ""))
        weights = {name: parameter.detach() for name, parameter in training.start.model.named_parameters()}
        made.append((weights, [line["kto"] for line in done.log]))
    (one, losses), (same, others) = made
    assert_close(one, same, atol=1e-4)
    assert losses == pytest.approx(others, rel=1e-3)


def test_verdicts_on_held_out_prompts_are_not_learned_from(
    talk: list[Conversation], tokenizer: PreTrainedTokenizerBase
) -> None:
    for held_out, rows in ((None, talk), (talk[:3], talk[3:])):
        data = encode_and_split(rows, held_out, tokenizer, StudentConfig(held_out=0.25), 3, judged=judge(talk))
        assert len(data.judged) == 2 * (12 - len(data.held_out)) == 18
        assert not {one.text for one in data.judged} & set(data.held_out)


def test_a_draft_with_another_prompt_is_held_out_with_the_row_of_its_seed(
    talk: list[Conversation], tokenizer: PreTrainedTokenizerBase
) -> None:
    """A revision may change the question too, so the draft of a held-out row has a prompt that is not held out."""
    drafts = [[Message(role="user", content=f"Draft: {one[0].content}"), one[1]] for one in talk]
    judged = [*((one, True) for one in talk), *((one, False) for one in drafts)]
    siblings: list[list[Conversation]] = [*([] for _ in talk), *([one] for one in talk)]
    for held_out, rows in ((None, talk), (talk[:3], talk[3:])):
        data = encode_and_split(
            rows, held_out, tokenizer, StudentConfig(held_out=0.25), 3, judged=judged, siblings=siblings
        )
        refused = {one.text for one in data.judged if not one.kept}
        assert len(refused) == 12 - len(data.held_out) == 9
        every = encode_and_split(rows, held_out, tokenizer, StudentConfig(held_out=0.25), 3, judged=judged)
        assert len([one for one in every.judged if not one.kept]) == 12, "the control learns from all drafts"


@pytest.mark.parametrize(
    ("verdict", "sentence"), [(True, "12 kept and 0 refused ones"), (False, "0 kept and 12 refused ones")]
)
def test_verdicts_of_one_kind_teach_nothing(
    verdict: bool, sentence: str, talk: list[Conversation], config: StudentConfig, tmp_path: Path
) -> None:
    settings = with_settings(config, objective=BOTH)
    with pytest.raises(UsageError, match=sentence):
        train_student(
            talk, settings, tmp_path / "student", seed=7, progress=quiet, judged=[(one, verdict) for one in talk]
        )
    with pytest.raises(UsageError, match="there are 0 kept and 0 refused ones; train on a run with both"):
        train_student(talk, settings, tmp_path / "student", seed=7, progress=quiet)


def test_settings_that_verdicts_do_not_go_with() -> None:
    for settings, sentence in (
        ({"objective": "kto"}, "kto does not teach the texts of kept answers; add sft"),
        ({"objective": {"dpo": 1.0, "kto": 1.0}}, "add sft"),
        ({"objective": BOTH, "patience": 2}, "leave out patience or kto"),
        ({"objective": {**BOTH, "jsd": 1.0}, "distillation": {"lmbda": 0.5}}, "kto learns from given answers only"),
    ):
        with pytest.raises(ValidationError, match=sentence):
            StudentConfig.model_validate(settings)
