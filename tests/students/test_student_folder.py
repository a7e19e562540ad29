from pathlib import Path

from core.runs.student_records import (
    AverageRecord,
    ReplayRecord,
    ShareScore,
    StepRecord,
    StudentRecord,
)
from students.student_folder import list_result_rows, write_card_average

TRAINED = StudentRecord(
    start="layers", parameters=1, train_samples=9, held_out_samples=1, steps=3, seconds=1.0,
    loss_before=3.5, loss_after=1.111, kl_before=0.9, kl_after=0.3,
    step_records=[StepRecord(type="windows", rows={"attention": "windows of 16 tokens"})],
    replay=ReplayRecord(learned=16, held_out=8, divergence_before=0.0, divergence=0.777),
)  # fmt: skip
CHOICE = AverageRecord(
    requests=4, tasks=4, start_panel_rate=0.5, max_loss=0.1, share=0.5,
    scores=[ShareScore(share=0.5, pass_rate=0.5, panel_rate=0.5)],
)  # fmt: skip


def test_the_card_of_averaged_weights_has_no_result_of_the_trained_ones(tmp_path: Path) -> None:
    assert TRAINED.replay
    changes = {"loss_after": 2.222, "average": 0.5, "average_choice": CHOICE}
    replay = TRAINED.replay.model_copy(update={"divergence": 0.444})
    averaged = TRAINED.model_copy(update={**changes, "replay": replay})
    card = tmp_path / "README.md"
    card.write_text("\n".join(["| held-out loss before | 3.500 |", *list_result_rows(TRAINED), "| seed | 7 |"]))
    write_card_average(tmp_path, TRAINED, averaged)
    text = card.read_text()
    assert "1.111" not in text
    assert "0.777" not in text
    assert text.count("2.222") == 1
    assert "| attention | windows of 16 tokens |" in text
    assert "| weights | start + 0.5 * (trained - start): share 0.5 of the training, chosen by 4 requests" in text
    assert "0.900 before, 0.300 after the training, before its weights were averaged" in text
    assert text.startswith("| held-out loss before | 3.500 |")
    assert text.endswith("| seed | 7 |")
