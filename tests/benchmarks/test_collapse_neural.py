"""The neural case of the collapse benchmarks: which sentences are read again."""

import json
from pathlib import Path

import pytest

from benchmarks.collapse import neural
from core.sample import Message


def test_sentences_are_read_again_only_if_all_that_made_them_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    students = [tmp_path / name for name in ("first", "same", "longer", "other")]
    for folder, weights, layers in zip(students, (b"1", b"1", b"1", b"2"), (2, 2, 3, 2), strict=True):
        folder.mkdir()
        (folder / "model.safetensors").write_bytes(weights)
        (folder / "config.json").write_text(json.dumps({"layers": layers}))
        (folder / "student.json").write_text(folder.name)  # when and how long it was trained determines no sentence
    first, same, longer, other = students
    known = neural.identify_sentences(first, 1.0, 7)
    assert neural.identify_sentences(same, 1.0, 7) == known, "of the same weights, in another folder"
    changed = [
        neural.identify_sentences(student, temperature, seed)
        for student, temperature, seed in ((longer, 1.0, 7), (other, 1.0, 7), (first, 0.7, 7), (first, 1.0, 8))
    ]
    request = (Message(role="user", content="Write two sentences."),)
    for setting, value in (("TOKENS", 61), ("SENTENCES", 9), ("ANSWERS_AT_ONCE", 3), ("REQUEST", request)):
        with monkeypatch.context() as patch:
            patch.setattr(neural, setting, value)
            changed.append(neural.identify_sentences(first, 1.0, 7))
    assert len({known, *changed}) == 1 + len(changed)
