import os
import tempfile
from pathlib import Path

import pytest

from core.errors import StoreError
from core.sample import (
    AgentTurn,
    Candidate,
    Critique,
    Message,
    RejectionReason,
    Sample,
    SampleStatus,
    Seed,
    TokenUsage,
    Verdict,
)
from core.storage.atomic_files import move_durably, write_atomically, write_text
from core.storage.sample_files import read_samples, write_samples


def sample(number: int) -> Sample:
    usage = TokenUsage(calls=1, prompt_tokens=10, completion_tokens=3)
    return Sample(
        id=f"s-{number:06d}",
        seed=Seed(id=f"s-{number:06d}", data={"topic": "ölçü", "nested": {"n": [1, 2.5, None]}}),
        state=SampleStatus.dropped,
        reason=RejectionReason.verifier,
        detail="max_words",
        candidate=Candidate(
            messages=[Message(role="user", content="?"), Message(role="assistant", content='"{x}" \n')]
        ),
        revisions=1,
        turns=[
            AgentTurn(
                agent="generator",
                revision=0,
                attempt=0,
                teacher="fake/x",
                context=(Message(role="system", content="You write."),),
                asked="?",
                reply="{",
                usage=usage,
            )
        ],
        critiques=[Critique(revision=0, scores={"sense": 2}, faults=["dull"], advice="be brief")],
        verdicts=[Verdict(revision=1, check="max_words", passed=False, evidence="31 words")],
        usage=usage,
    )


def test_samples_come_back_from_parquet_as_they_were(tmp_path: Path) -> None:
    samples = [sample(i) for i in range(3)]
    write_samples(tmp_path / "x.parquet", samples)
    assert read_samples(tmp_path / "x.parquet") == samples


def test_what_fails_half_way_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def half() -> None:
        with write_atomically(path) as partial:
            partial.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        half()
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    assert path.read_text() == "old"


def test_a_folder_is_replaced_as_a_whole(tmp_path: Path) -> None:
    for text in ("one", "two"):
        with write_atomically(tmp_path / "folder") as partial:
            partial.mkdir()
            (partial / text).write_text(text)
    assert [p.name for p in (tmp_path / "folder").iterdir()] == ["two"]


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_every_file_has_the_same_permissions_whatever_wrote_it(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        with write_atomically(tmp_path / "folder") as partial:
            (partial / "inner").mkdir(parents=True)
            (partial / "plain").write_text("text")
            with tempfile.NamedTemporaryFile(dir=partial / "inner", delete=False):
                pass  # 0600, as safetensors writes
        write_text(tmp_path / "file", "text")
        with write_atomically(tmp_path / "secret", 0o600) as partial:
            partial.write_text("text")
    finally:
        os.umask(before)
    modes = {path.name[:6]: path.stat().st_mode & 0o777 for path in tmp_path.rglob("*") if path.is_file()}
    assert modes.pop("secret") == 0o600
    assert set(modes.values()) == {0o666 & ~umask}


def synced(monkeypatch: pytest.MonkeyPatch, end: Path) -> list[tuple[int, bool]]:
    """What is synced from now on, by inode, and whether `end` was there by then."""
    seen: list[tuple[int, bool]] = []
    fsync = os.fsync

    def spy(handle: int) -> None:
        seen.append((os.fstat(handle).st_ino, end.exists()))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", spy)
    return seen


def test_a_file_is_on_disk_before_it_has_its_name_and_its_folder_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    seen = synced(monkeypatch, path)
    with write_atomically(path) as partial:
        partial.write_text("text")
    assert seen == [(path.stat().st_ino, False), (tmp_path.stat().st_ino, True)]


def test_all_of_a_folder_is_on_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "folder"
    seen = synced(monkeypatch, path)
    with write_atomically(path) as partial:
        (partial / "inner").mkdir(parents=True)
        (partial / "inner" / "file").write_text("text")
    parts = [path, path / "inner", path / "inner" / "file"]
    assert sorted(seen[:-1]) == sorted((part.stat().st_ino, False) for part in parts)
    assert seen[-1] == (tmp_path.stat().st_ino, True)


def test_what_is_moved_is_on_disk_in_both_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, to = tmp_path / "old" / "file", tmp_path / "new" / "file"
    path.parent.mkdir()
    path.write_text("text")
    seen = synced(monkeypatch, to)
    move_durably(path, to)
    assert sorted(seen) == sorted((folder.stat().st_ino, True) for folder in (path.parent, to.parent))


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(StoreError, match=r"x\.parquet: is not a readable samples file"):
        read_samples(tmp_path / "x.parquet")
