"""Releases on a Hub of this machine: publish, interrupted and resumed; pull, with every hash checked; what is refused."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from core.project_files import PROJECT
from core.runs.releases import Release, compute_manifest_digest, read_release
from core.storage.atomic_files import hash_file, write_json
from flows.release.release_creation import create_release
from plugins.publish.hub_publication import locate_publication_record
from plugins.publish.publication_plan import ContentScan
from plugins.publish.tests.test_rows_release import make_folder
from tests.flows.clean.test_dataset_filter import corpus
from tests.flows.commands.test_commands import called
from tests.support.lineages import make_run
from tests.support.local_hub import HostedRepo, LocalHub, serve_local_hub
from tests.support.waiting import HANG_SECONDS

# huggingface_hub itself sends large files in a way that its HTTP library has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

TERMS = ('dataset.license="cc-by-4.0"', 'dataset.publisher="Example Lab, data@lab-of-examples.eu"')


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Release:
    """A release that met the gate; never changed by a test."""
    runs = tmp_path_factory.mktemp("released") / "runs"
    return create_release(make_run(runs, *TERMS)).release


@pytest.fixture
def release(released: Release, tmp_path: Path) -> Release:
    """A copy, next to which records may be written."""
    data = shutil.copytree(released.path.parents[2], tmp_path / "data")
    return read_release(data / released.path.relative_to(released.path.parents[2]))


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalHub]:
    """A Hub that this process uses too. The tests' own settings keep huggingface_hub offline otherwise."""
    import huggingface_hub.constants

    with serve_local_hub() as served:
        for name, value in served.environment(tmp_path / "hf").items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hf"))
        yield served
        assert served.faults == []


def list_contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def publish(capsys: pytest.CaptureFixture[str], release: Release, *words: str) -> tuple[int, Any, str]:
    runs = str(release.path.parents[2] / "runs")
    command = ("publish", str(release.path), "--to", "hf:me/smoke", "--json", "--quiet", "--runs-dir", runs)
    code, out, errors = called(capsys, *command, *words)
    return code, json.loads(out) if code == 0 else None, errors


def test_a_release_goes_to_the_hub_and_comes_back_byte_for_byte(
    hub: LocalHub, release: Release, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, plan, _ = publish(capsys, release, "--dry-run")
    assert code == 0
    assert hub.served == [], "a dry run asks nobody"
    files = {file["path"]: file["sha256"] for file in plan["repos"][0]["files"]}
    assert {**release.manifest.files, "manifest.json": files["manifest.json"]} == files
    code, sent, _ = publish(capsys, release)
    assert code == 0
    [repo] = sent["repos"]
    assert sorted(repo["sent"]) == sorted(files)
    assert hub.repos["dataset", "me/smoke"].private
    there = hub.files("dataset", "me/smoke")
    assert {name: data for name, data in there.items() if name != ".gitattributes"} == list_contents(release.path)

    [record] = json.loads(locate_publication_record(release).read_text())
    head = hub.repos["dataset", "me/smoke"].head
    assert (record["revision"], record["digest"], record["private"]) == (head, release.manifest.digest, True)
    uploads = list(hub.uploads)
    code, again, errors = publish(capsys, release)
    assert code == 0, errors
    assert (code, again["repos"][0]["sent"], again["repos"][0]["present"]) == (0, [], len(files))
    assert hub.uploads == uploads
    assert hub.repos["dataset", "me/smoke"].head == head, "and no empty commit"

    out = tmp_path / "pulled"
    code, text, _ = called(capsys, "pull", f"hf:me/smoke@{head}", "--out", str(out), "--json", "--quiet")
    assert (code, json.loads(text)["digest"]) == (0, release.manifest.digest)
    assert list_contents(out) == list_contents(release.path)
    assert not list(tmp_path.glob(".pulled*"))
    assert called(capsys, "pull", "hf:me/smoke", "--out", str(out))[0] == 2, "nothing is overwritten"


def test_a_signed_statement_goes_along_and_is_verified_elsewhere(
    hub: LocalHub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    private, public = tmp_path / "key.pem", tmp_path / "public.pem"
    key = Ed25519PrivateKey.generate()
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    runs = str(tmp_path / "data" / "runs")
    signed, unsigned = [create_release(make_run(runs, *TERMS, "rebuild.documents=false")).release for _ in range(2)]
    assert called(capsys, "rebuild", str(signed.path), "--sign", str(private), "--runs-dir", runs, "--quiet")[0] == 0
    code, sent, errors = publish(capsys, signed)
    assert code == 0, errors
    assert {"release.statement.json", "recording/samples.jsonl"} <= set(sent["repos"][0]["sent"])

    out = tmp_path / "pulled"
    code, text, _ = called(capsys, "pull", "hf:me/smoke", "--out", str(out), "--json", "--quiet")
    assert (code, json.loads(text)["statement"]) == (0, str(tmp_path / "pulled.statement.json"))
    assert list_contents(out) == list_contents(signed.path)
    assert called(capsys, "rebuild", str(out), "--verify", str(public), "--quiet")[0] == 0
    assert called(capsys, "rebuild", str(out), "--quiet", "--runs-dir", str(tmp_path / "none"))[0] == 0
    code, _, errors = called(capsys, "pull", "hf:me/smoke", "--out", str(tmp_path / "pulled"))
    assert (code, "exists" in errors) == (2, True)

    code, sent, errors = publish(capsys, unsigned)
    assert (code, "release.statement.json" in sent["repos"][0]["removed"]) == (0, True), "it signs the one before"
    code, text, _ = called(capsys, "pull", "hf:me/smoke", "--out", str(tmp_path / "next"), "--json", "--quiet")
    assert (code, "statement" in json.loads(text)) == (0, False)


def test_a_later_release_replaces_the_files_of_the_earlier_one_and_no_others(
    hub: LocalHub, release: Release, capsys: pytest.CaptureFixture[str]
) -> None:
    publish(capsys, release)
    repo = hub.repos["dataset", "me/smoke"]
    before = hub.files("dataset", "me/smoke")
    manifest = json.loads(before["manifest.json"])
    manifest["files"]["dataset/old.md"] = "0" * 64
    repo.commit(
        {**before, "manifest.json": json.dumps(manifest).encode(), "dataset/old.md": b"old", "mine.md": b"mine"}
    )
    code, sent, errors = publish(capsys, release)
    assert code == 0, errors
    assert (code, sent["repos"][0]["removed"], sent["repos"][0]["sent"]) == (0, ["dataset/old.md"], ["manifest.json"])
    assert hub.files("dataset", "me/smoke")["mine.md"] == b"mine"


def test_a_failing_hub_is_named_and_what_arrived_is_not_sent_again(
    hub: LocalHub, release: Release, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.failing_commits = 1
    code, _, errors = publish(capsys, release)
    assert code == 1
    assert "answers with status 503" in errors
    assert hub.token not in errors
    assert not locate_publication_record(release).exists()
    uploads = list(hub.uploads)
    assert uploads
    assert publish(capsys, release)[0] == 0
    assert hub.uploads == uploads


@pytest.mark.parametrize("there", ["other/0", "smoke/7"])
def test_a_release_replaces_none_of_another_recipe_and_no_later_one(
    there: str, hub: LocalHub, release: Release, capsys: pytest.CaptureFixture[str]
) -> None:
    publish(capsys, release)
    repo = hub.repos["dataset", "me/smoke"]
    manifest = json.dumps(json.loads(hub.files("dataset", "me/smoke")["manifest.json"]) | {"release": there}).encode()
    repo.commit({**hub.files("dataset", "me/smoke"), "manifest.json": manifest})
    code, _, errors = publish(capsys, release)
    assert (code, hub.files("dataset", "me/smoke")["manifest.json"]) == (2, manifest)
    assert f"has the release {there}" in errors


@pytest.mark.waits
def test_killed_while_it_sends_a_file_it_sends_only_the_rest_afterwards(
    hub: LocalHub, release: Release, tmp_path: Path
) -> None:
    hub.pause_at_upload = 3
    runs = str(release.path.parents[2] / "runs")
    command = [
        sys.executable, "-m", "stillhouse", "publish", str(release.path), "--to", "hf:me/smoke", "--runs-dir", runs, "--quiet",
    ]  # fmt: skip
    environment = {**os.environ, **hub.environment(tmp_path / "hf"), "PYTHONPATH": str(PROJECT)}
    killed = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE)
    assert hub.paused.wait(HANG_SECONDS), killed.communicate(timeout=10)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    hub.pause_at_upload = None
    hub.go_on.set()
    assert len(hub.uploads) == 2
    assert list(hub.files("dataset", "me/smoke")) == [".gitattributes"], "nothing half-sent is visible"
    assert not locate_publication_record(release).exists()
    before = list(hub.uploads)
    subprocess.run(command, env=environment, check=True, capture_output=True)
    assert len(set(hub.uploads)) == len(hub.uploads), "no content arrived twice"
    assert hub.uploads[:2] == before
    there = hub.files("dataset", "me/smoke")
    assert {name: data for name, data in there.items() if name != ".gitattributes"} == list_contents(release.path)


@pytest.mark.parametrize("name", ["dataset/train.parquet", "README.md"])
def test_a_pulled_file_with_another_hash_leaves_no_folder(
    hub: LocalHub, release: Release, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    publish(capsys, release)
    hub.corrupt = name
    out = tmp_path / "pulled"
    code, _, errors = called(capsys, "pull", "hf:me/smoke", "--out", str(out), "--quiet")
    assert code == 1
    assert f"{name} has the SHA-256" in errors
    assert not out.exists()
    hub.corrupt = None
    assert called(capsys, "pull", "hf:me/smoke", "--out", str(out), "--quiet")[0] == 0
    assert list_contents(out) == list_contents(release.path)


def test_a_manifest_that_was_changed_or_points_outside_is_refused(
    hub: LocalHub, release: Release, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    publish(capsys, release)
    repo, files = hub.repos["dataset", "me/smoke"], hub.files("dataset", "me/smoke")
    manifest = json.loads(files["manifest.json"])
    changed = {**manifest, "seeds": 7}
    outside = {**manifest, "files": {**manifest["files"], "../escaped.md": "0" * 64}}
    outside["digest"] = compute_manifest_digest(outside)
    for written, sentence in ((changed, "its digest differs"), (outside, "no path inside a release")):
        commit = repo.commit({**files, "manifest.json": json.dumps(written).encode(), "../escaped.md": b""})
        out = tmp_path / "out"
        code, _, errors = called(capsys, "pull", f"hf:me/smoke@{commit}", "--out", str(out), "--quiet")
        assert code == 1
        assert sentence in errors
        assert not out.exists()
        assert not (tmp_path / "escaped.md").exists()


def test_public_is_asked_for_and_tokens_are_checked(
    hub: LocalHub, release: Release, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert publish(capsys, release, "--public")[0] == 0
    assert not hub.repos["dataset", "me/smoke"].private
    code, _, errors = publish(capsys, release)
    assert code == 2
    assert "is a public repository; add --public" in errors
    code, _, errors = publish(capsys, release, "--student")
    assert code == 2
    assert "trained no student" in errors
    monkeypatch.setenv("HF_TOKEN", "hf_wrongtoken")
    code, _, errors = publish(capsys, release, "--public")
    assert code == 2
    assert "rejects your token (status 401); HF_TOKEN must be valid" in errors
    assert "hf_wrongtoken" not in errors
    monkeypatch.delenv("HF_TOKEN")
    code, _, errors = publish(capsys, release)
    assert code == 2
    assert "HF_TOKEN is not set" in errors


def change_manifest(release: Release, change: Callable[[Any], object]) -> None:
    """Rewrite the manifest of a copy, with its digest."""
    path = release.path / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.unlink()
    write_json(path, {**manifest, "digest": compute_manifest_digest(manifest)})


STUDENT = {
    "README.md": b"---\nlicense: apache-2.0\n---\n# A student\n",
    "config.json": b"{}",
    "model.safetensors": b"weights",
    "student-q8_0.gguf": b"GGUF",
}
"""The files of a student that are sent."""


def add_student(release: Release, files: dict[str, bytes]) -> Release:
    """The release, with a student that its run recorded."""
    student = release.path.parents[2] / "runs" / release.manifest.run.run / "student"
    student.mkdir(exist_ok=True)
    for name, content in files.items():
        (student / name).write_bytes(content)
    hashes = {f"student/{path.name}": hash_file(path) for path in student.iterdir()}
    change_manifest(release, lambda manifest: manifest["run"]["files"].update(hashes))
    return read_release(release.path)


def test_a_student_goes_to_a_repository_of_its_own_without_logs_and_must_be_as_recorded(
    hub: LocalHub, release: Release, capsys: pytest.CaptureFixture[str]
) -> None:
    kept_here = {"training_log.jsonl": b"{}\n", "trained_rows.txt": b"00\n", "evaluation.json": b"{}"}
    release = add_student(release, STUDENT | kept_here)
    code, record, errors = publish(capsys, release, "--student")
    assert code == 0, errors
    assert record["repos"][1]["repo"] == "me/smoke-student"
    there = hub.files("model", "me/smoke-student")
    manifest = (release.path / "manifest.json").read_bytes()
    sent = {name: data for name, data in there.items() if name != ".gitattributes"}
    assert sent == STUDENT | {"manifest.json": manifest}
    student = release.path.parents[2] / "runs" / release.manifest.run.run / "student"
    (student / "config.json").write_bytes(b"[]")
    code, _, errors = publish(capsys, release, "--student-to", "hf:me/other")
    assert code == 1
    assert "config.json: is not what the release records" in errors
    assert ("model", "me/other") not in hub.repos


@pytest.mark.parametrize("there", ["other/0", "smoke/7"])
def test_a_student_replaces_none_of_another_recipe_and_no_later_one(
    there: str, hub: LocalHub, release: Release, capsys: pytest.CaptureFixture[str]
) -> None:
    release = add_student(release, STUDENT)
    publish(capsys, release, "--student")
    repo, files = hub.repos["model", "me/smoke-student"], hub.files("model", "me/smoke-student")
    manifest = json.dumps(json.loads(files["manifest.json"]) | {"release": there}).encode()
    repo.commit({**files, "manifest.json": manifest, "model.safetensors": b"theirs"})
    heads = {key: hosted.head for key, hosted in hub.repos.items()}
    code, _, errors = publish(capsys, release, "--student")
    assert code == 2
    assert f"me/smoke-student: has the student of the release {there}" in errors
    assert {key: hosted.head for key, hosted in hub.repos.items()} == heads


def test_a_public_repository_is_refused_before_anything_is_searched_or_sent(
    hub: LocalHub, release: Release, capsys: pytest.CaptureFixture[str]
) -> None:
    secret = {"chat_template.jinja": b"use " + TOKEN.encode()}
    release = add_student(release, STUDENT | secret)
    hub.repos["model", "me/smoke-student"] = HostedRepo(private=False)
    hub.repos["model", "me/smoke-student"].commit({})
    code, _, errors = publish(capsys, release, "--student")
    assert code == 2, "the search would exit with 3"
    assert "me/smoke-student: is a public repository" in errors
    assert hub.uploads == []
    assert ("dataset", "me/smoke") not in hub.repos


def test_a_release_that_shows_collapse_is_not_published(
    hub: LocalHub, release: Release, capsys: pytest.CaptureFixture[str]
) -> None:
    def show_collapse(manifest: Any) -> None:
        manifest["run"]["collapse"]["verdict"], manifest["run"]["gated"] = "collapse", False

    change_manifest(release, show_collapse)
    code, _, errors = publish(capsys, release)
    assert code == 3
    assert "is not published" in errors
    assert "collapse.gate" not in errors, "no setting allows it"
    assert hub.served == []


TOKEN = "hf_" + "aB3d" * 9
"""Has the shape of a token of the Hub, and is none."""


@pytest.mark.parametrize(
    ("content", "where", "secret"),
    [
        (
            json.dumps({"messages": [{"role": "user", "content": f"use {TOKEN}"}]}),
            "row 2: a token of the Hugging Face Hub",
            True,
        ),
        (json.dumps({"text": "mail jane.doe@gmail.com"}), "row 2: email 1", False),
        (json.dumps({"text": "the bearer of bad news, sk-ating, /home/user@host"}), None, False),
        (json.dumps({"text": "postgres://admin:hunter22@localhost/x"}), "row 2: a password in an address", True),
        (json.dumps({"text": "id 9d5ed678fe57bcca610140957afab571a1b2c3d4e5f60718"}), None, False),
    ],
)
def test_secrets_and_personal_data_are_found_with_file_and_row_and_never_repeated(
    tmp_path: Path, content: str, where: str | None, secret: bool
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "a plain row"}\n' + content + "\n")
    found = list(ContentScan().search(path, "rows.jsonl"))
    assert [str(one) for one in found] == ([f"rows.jsonl, {where}"] if where else [])
    assert [one.is_secret for one in found] == ([secret] if where else [])


def test_a_release_with_personal_data_is_refused_by_place_and_may_be_allowed(
    hub: LocalHub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    real = tmp_path / "real.jsonl"
    turns = [{"role": "user", "content": "Whom do I ask?"}, {"role": "assistant", "content": "Ask jane.doe@gmail.com."}]
    real.write_text(json.dumps({"messages": turns}) + "\n")
    made = create_release(make_run(tmp_path / "runs", *TERMS, f"lineage.real={real}")).release
    code, _, errors = publish(capsys, made)
    assert code == 3
    assert "me/smoke: dataset/train.parquet, row " in errors
    assert "email 1" in errors
    assert "jane.doe" not in errors
    assert hub.repos == {}
    code, sent, _ = publish(capsys, made, "--allow-personal-data")
    assert code == 0
    assert any("dataset/train.parquet" in place for place in sent["allowed"])


@pytest.mark.parametrize("form", [".jsonl", ".jsonl.gz", ".parquet"])
def test_a_release_of_a_filtered_folder_is_published_and_pulled(
    form: str, hub: LocalHub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs, folder = str(tmp_path / "data" / "runs"), make_folder(tmp_path / "clean", corpus(40), form)
    words = ("release", str(folder), "--license", "CC0-1.0", "--runs-dir", runs, "--json")
    code, _, errors = called(capsys, *words)
    assert code == 0, errors
    release = read_release(tmp_path / "data" / "releases" / "clean" / "0")
    code, _, errors = called(capsys, "publish", "clean/0", "--to", "hf:me/clean", "--runs-dir", runs, "--quiet")
    assert code == 0, errors
    code, _, errors = called(capsys, "pull", "hf:me/clean", "--out", str(tmp_path / "pulled"), "--quiet")
    assert code == 0, errors
    assert list_contents(tmp_path / "pulled") == list_contents(release.path)


def test_a_student_replaces_no_model_that_no_release_recorded(
    hub: LocalHub, release: Release, capsys: pytest.CaptureFixture[str]
) -> None:
    release = add_student(release, STUDENT)
    foreign = hub.repos["model", "me/smoke-student"] = HostedRepo(private=True)
    foreign.commit({"model.safetensors": b"another model"})
    code, _, errors = publish(capsys, release, "--student")
    assert code == 2
    assert "has a model that no release recorded (model.safetensors)" in errors
    assert ("dataset", "me/smoke") not in hub.repos, "the dataset is not sent either"
    assert publish(capsys, release, "--student-to", "hf:me/new")[0] == 0
