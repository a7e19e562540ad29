"""Steps that hold a student near its start, or stop its training before it forgets more."""

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from core.config.students import StudentConfig
from students.chat_encoding import Conversation
from students.training.student_training import train_student
from tests.students.conftest import quiet
from tests.students.training.test_forgetting import (
    chatty,
    configure,
    distance,
    measure_fresh_divergence,
    read_weights,
    replay_file,
)

__all__ = ["chatty", "replay_file"]


@pytest.mark.parametrize("lora", [None, {"rank": 8}])
def test_start_kl_holds_the_student_on_the_data(
    lora: dict[str, int] | None, talk: list[Conversation], chatty: Path, tmp_path: Path
) -> None:
    plain = configure(chatty, lora=lora).model_copy(update={"replay": None})
    weights = {}
    for name, weight in {"plain": None, "weak": 1e-30, "strong": 5.0}.items():
        steps = [{"type": "start_kl", "weight": weight}] if weight else []
        config = StudentConfig.model_validate({**plain.model_dump(), "steps": steps})
        train_student(talk, config, tmp_path / name, seed=7, progress=quiet)
        weights[name] = read_weights(tmp_path / name)
    assert distance(weights["plain"], weights["weak"]) == 0
    assert measure_fresh_divergence(tmp_path / "strong", chatty) < 0.8 * measure_fresh_divergence(
        tmp_path / "plain", chatty
    )
    log = [json.loads(line) for line in (tmp_path / "strong" / "training_log.jsonl").read_text().splitlines()]
    assert log[0]["start_kl"] == pytest.approx(0, abs=0.02)
    assert log[-1]["start_kl"] > 0.02


def test_early_stopping_on_both_stops_before_more_is_forgotten(
    talk: list[Conversation], chatty: Path, replay_file: Path, tmp_path: Path
) -> None:
    """The training conversations are held out too, so their loss only falls while the start is forgotten."""
    settings = {"patience": 3, "evaluate_steps": 1, "epochs": 8, "learning_rate": 1e-2, "replay": {"weight": 1e-30}}
    records, logs = {}, {}
    for on in ("data", "both"):
        config = configure(chatty, replay_file, steps=[{"type": "forgetting_stop"}] if on == "both" else [], **settings)
        out = tmp_path / on
        records[on] = train_student(talk, config, out, seed=7, progress=quiet, held_out=talk)
        logs[on] = [json.loads(line) for line in (out / "training_log.jsonl").read_text().splitlines()]
    assert not any("held_out_replay" in line for line in logs["data"])
    totals = [line["held_out"] + line["held_out_replay"] for line in logs["both"]]
    assert records["both"].best_step == totals.index(min(totals)) + 1
    best = [records[on].best_step or 0 for on in ("both", "data")]
    assert best[0] < best[1]
    before, after = records["both"].replay, records["data"].replay
    assert before
    assert after
    assert before.divergence < after.divergence
    with pytest.raises(ValidationError, match="both losses are measured for patience"):
        configure(chatty, steps=[{"type": "forgetting_stop"}])
