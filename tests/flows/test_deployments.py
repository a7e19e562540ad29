"""Deployments on a real Prefect server with a real worker: deployed, run, watched, paused, killed, cancelled, released."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from core.recipe import PROJECT
from core.release import Lineage, releases_of
from core.run import RunDir, RunState
from flows.curated import made_samples

pytestmark = [pytest.mark.slow, pytest.mark.waits]

ENDED = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}
SMALL = ("--set", "samples=24", "--set", "shard_size=8")
KEY = "sk-nobody-may-read-this"
SLOW = (*SMALL, "--set", "teachers.main.faults={seconds=0.5}", "--set", "teachers.main.max_concurrent=2")


class Server:
    """A Prefect server of its own, asked through its API."""

    def __init__(self, home: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}/api"
        self.environment = {
            **os.environ, "PREFECT_HOME": str(home), "PREFECT_API_URL": self.url, "DO_NOT_TRACK": "1",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false", "PREFECT_WORKER_QUERY_SECONDS": "1",
            "PREFECT_WORKER_PREFETCH_SECONDS": "1", "PREFECT_SERVER_SERVICES_SCHEDULER_ENABLED": "false",
            "PREFECT_SERVER_EVENTS_PROACTIVE_GRANULARITY": "PT1S",
        }  # fmt: skip
        self.process = self.start("prefect", "server", "start", "--port", str(port), "--no-ui")
        self.home = home
        self.api = httpx.Client(base_url=self.url, timeout=30)
        self.until(lambda: self._answers(), 120)

    def _answers(self) -> bool:
        try:
            return self.api.get("/health").status_code == 200
        except httpx.HTTPError:
            return False

    def start(self, module: str, *words: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", module, *words], cwd=PROJECT, env=self.environment, start_new_session=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def worker(self) -> subprocess.Popen[bytes]:
        return self.start("prefect", "worker", "start", "--pool", "stillhouse")

    def call(self, *words: str, code: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "flows", *words], cwd=PROJECT, env=self.environment, text=True, capture_output=True,
            check=False,
        )  # fmt: skip
        assert done.returncode == code, done.stderr
        return done.stdout if code == 0 else done.stderr

    def begin(self, runs: Path, *words: str) -> str:
        """A run of the deployment `once`; its id."""
        told = self.call("run", "smoke", *words, "--runs-dir", str(runs), "--deployment", "once", "--json")
        return str(json.loads(told)["flow_run"])

    def create(self, deployment: str, **parameters: Any) -> str:
        found = self.api.get(f"/deployments/name/{deployment}").raise_for_status().json()
        return str(self.ask(f"/deployments/{found['id']}/create_flow_run", {"parameters": parameters}).json()["id"])

    def block(self, kind: str, name: str, data: dict[str, Any]) -> None:
        """As the page makes one."""
        of = self.api.get(f"/block_types/slug/{kind}").raise_for_status().json()["id"]
        (schema, *_) = self.filtered("block_schemas", block_schemas={"block_type_id": {"any_": [of]}})
        document = {"name": name, "block_type_id": of, "block_schema_id": schema["id"], "data": data}
        self.ask("/block_documents/", document)

    def ask(self, path: str, body: dict[str, Any], method: str = "POST") -> httpx.Response:
        """Again while the database is busy, as Prefect's own client does."""
        end = time.monotonic() + 30
        while (answer := self.api.request(method, path, json=body)).status_code == 503 and time.monotonic() < end:
            time.sleep(0.3)
        return answer.raise_for_status()

    def set_state(self, name: str, state: dict[str, Any]) -> None:
        self.ask(f"/flow_runs/{name}/set_state", {"state": state, "force": True})

    def flow_run(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.api.get(f"/flow_runs/{name}").raise_for_status().json()
        return found

    def ended(self, name: str, seconds: float = 150) -> dict[str, Any]:
        self.until(lambda: self.flow_run(name)["state_type"] in ENDED, seconds)
        return self.flow_run(name)

    def filtered(self, kind: str, **query: Any) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.ask(f"/{kind}/filter", query).json()
        return found

    @staticmethod
    def until(true: Callable[[], Any], seconds: float) -> None:
        end = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < end, f"not so after {seconds} seconds"
            time.sleep(0.3)


def kill(process: subprocess.Popen[bytes], number: int = signal.SIGKILL) -> None:
    """The whole session: a worker with the flow runs that it started."""
    if process.poll() is None:
        os.killpg(process.pid, number)
        process.wait(60)


class Ear:
    """An endpoint that hears what it is told, and answers that it knows no such key."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, str]] = []
        ear = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                ear.heard.append((self.headers.get("Authorization", ""), body))
                self.send_response(401 if "Authorization" in self.headers else 200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture(scope="module")
def ear() -> Iterator[Ear]:
    with closing(Ear()) as ear:
        yield ear


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, ear: Ear) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("prefect"))
    try:
        server.block("secret", "teacher", {"value": KEY})
        server.block(
            "custom-webhook", "ops", {"name": "ops", "url": ear.url, "json_data": {"told": "{{subject}} {{body}}"}}
        )
        server.call("deploy", *NAMED)
        yield server
    finally:
        server.api.close()
        kill(server.process)


NAMED = ("--notify", "custom-webhook/ops", "--secret", "TEACHER_KEY=teacher")


@pytest.fixture
def worker(server: Server) -> Iterator[subprocess.Popen[bytes]]:
    process = server.worker()
    yield process
    kill(process)


def the_run(runs: Path) -> RunDir:
    (found,) = runs.glob("*/manifest.json")
    return RunDir(found.parent)


def test_what_is_deployed_has_a_form_and_the_commit(server: Server) -> None:
    there = {one["name"]: one for one in server.filtered("deployments")}
    assert set(there) == {"nightly", "weekly", "on-release", "once"}
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=PROJECT, text=True, capture_output=True, check=False
    )
    for one in there.values():
        assert one["version"] == commit.stdout.strip()
        for key, told in one["parameter_openapi_schema"]["properties"].items():
            assert told["description"], key
    assert there["nightly"]["schedules"][0]["schedule"]["cron"] == "0 2 * * *"
    assert there["nightly"]["concurrency_options"]["collision_strategy"] == "CANCEL_NEW"
    before = {one["name"]: one["enabled"] for one in server.filtered("automations")}
    assert sum(name.startswith("stillhouse: ") for name in before) == 4
    server.call("deploy", *NAMED)
    assert len(server.filtered("deployments")) == 4, "deploying again changes them in place"
    assert {one["name"]: one["enabled"] for one in server.filtered("automations")} == before
    assert "no such block" in server.call("deploy", "--notify", "slack-webhook/ops", code=2)
    assert "no Secret block 'other'" in server.call("deploy", "--secret", "TEACHER_KEY=other", code=2)


def test_a_deployments_run_is_named_told_and_leaves_what_the_command_leaves(
    server: Server, worker: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    wrong = server.call("run", "smoke", "--set", "samples=0", "--deployment", "once", code=2)
    assert "samples: input should be greater than or equal to 1, not 0" in wrong
    assert "stillhouse-run/twice: " in server.call("run", "smoke", "--deployment", "twice", code=2)
    name = server.begin(tmp_path / "runs", *SMALL)
    found = server.ended(name)
    assert (found["state_type"], found["name"]) == ("COMPLETED", "smoke")
    run = the_run(tmp_path / "runs")
    assert run.read_manifest().state is RunState.done

    def named() -> bool:
        tasks = server.filtered("task_runs", flow_runs={"id": {"any_": [name]}})
        return {"shard 0", "shard 1", "shard 2"} <= {one["name"] for one in tasks}

    server.until(named, 60)  # task runs are told by events
    of_run = {"artifacts": {"flow_run_id": {"any_": [name]}}}
    shown = {one["key"]: one["data"] for one in server.filtered("artifacts", **of_run) if one["key"]}
    assert f"run {run.name}  done" in shown["smoke-card"]
    assert "hapax_mass" in shown["smoke-collapse"]

    def told() -> bool:
        logs = server.filtered("logs", logs={"flow_run_id": {"any_": [name]}}, limit=200)
        return any("produce: shard" in log["message"] and "8 of 8 samples made" in log["message"] for log in logs)

    server.until(told, 30)  # logs are sent in batches


def test_a_cancelled_run_stops_asking_and_goes_on_where_it_was_when_retried(
    server: Server, worker: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    runs = tmp_path / "runs"
    name = server.begin(runs, *SLOW)
    server.until(lambda: list(runs.glob("*/wip/*.calls.jsonl")), 60)
    time.sleep(2)
    server.set_state(name, {"type": "CANCELLING"})
    assert server.ended(name, 60)["state_type"] == "CANCELLED"
    (journal,) = runs.glob("*/wip/spend.jsonl")
    asked = journal.stat().st_size
    time.sleep(3)
    assert journal.stat().st_size == asked, "nobody asks any more"
    server.set_state(name, {"type": "SCHEDULED", "name": "AwaitingRetry"})  # as Retry on the page
    assert server.ended(name)["state_type"] == "COMPLETED"
    run = the_run(runs)
    assert run.read_manifest().state is RunState.done
    assert len({sample.id for sample in made_samples(run)}) == run.read_manifest().counts.candidates == 24


def test_a_run_is_paused_by_the_page_and_taken_over_when_its_process_dies(
    server: Server, worker: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    (patient,) = (one for one in server.filtered("automations") if one["name"].endswith("is taken over"))
    sooner = {key: patient[key] for key in ("name", "description", "enabled", "trigger", "actions")}
    sooner["trigger"]["within"] = 10  # seconds, the least that Prefect takes
    server.ask(f"/automations/{patient['id']}", sooner, "PUT")
    runs = tmp_path / "runs"
    asked = {"recipe": "smoke", "overrides": list(SLOW[1::2]), "runs_dir": str(runs), "resume": False}
    name = server.create("stillhouse-run/once", **asked)
    server.until(lambda: list(runs.glob("*/wip/*.calls.jsonl")), 60)
    until = (datetime.now(UTC) + timedelta(minutes=5)).isoformat()
    details = {"pause_timeout": until, "pause_reschedule": True}
    server.set_state(name, {"type": "PAUSED", "name": "Suspended", "state_details": details})
    server.until(lambda: the_run(runs).read_manifest().state is RunState.interrupted, 20)
    assert server.flow_run(name)["state_name"] == "Suspended"
    server.ask(f"/flow_runs/{name}/resume", {})
    (journal,) = runs.glob("*/wip/spend.jsonl")
    asked_before = journal.stat().st_size
    server.until(lambda: journal.stat().st_size > asked_before, 60)
    os.kill(int(server.flow_run(name)["infrastructure_pid"].rpartition(":")[2]), signal.SIGKILL)
    server.until(lambda: server.flow_run(name)["run_count"] == 2, 90)
    found = server.ended(name)
    assert found["state_type"] == "COMPLETED", found["state"]["message"]
    run = the_run(runs)
    made = [sample.id for sample in made_samples(run)]
    assert len(made) == len(set(made)) == run.read_manifest().counts.candidates == 24
    shown = server.filtered("artifacts", artifacts={"flow_run_id": {"any_": [name]}, "type": {"any_": ["progress"]}})
    assert any("produce: " in one["description"] and one["data"] for one in shown)


def test_a_secret_reaches_the_run_and_nothing_that_is_kept(
    server: Server, worker: subprocess.Popen[bytes], ear: Ear, tmp_path: Path
) -> None:
    teacher = f'teachers.main={{model="openai/any", base_url="{ear.url}", api_key_env="TEACHER_KEY"}}'
    asked = {"recipe": "smoke", "overrides": [teacher], "runs_dir": str(tmp_path / "runs")}
    name = server.create("stillhouse-run/once", **asked)
    found = server.ended(name)
    assert (found["state_type"], f"Bearer {KEY}" in dict(ear.heard)) == ("FAILED", True), found["state"]["message"]
    server.until(lambda: server.filtered("logs", logs={"flow_run_id": {"any_": [name]}}), 30)
    kept = [*server.home.rglob("*"), *(tmp_path / "runs").rglob("*")]
    assert sum(KEY.encode() in file.read_bytes() for file in kept if file.is_file()) == 0
    for kind in ("flow_runs", "logs", "artifacts", "work_pools", "deployments", "block_documents"):
        assert KEY not in json.dumps(server.filtered(kind)), kind
    assert (server.home / "prefect.db").is_file()


def test_a_refused_release_is_a_state_of_its_own_and_a_made_one_begins_a_student(
    server: Server, worker: subprocess.Popen[bytes], ear: Ear, tmp_path: Path
) -> None:
    runs = tmp_path / "runs"
    assert server.ended(server.begin(runs, *SMALL))["state_type"] == "COMPLETED"
    refused = server.ended(server.create("stillhouse-release/weekly", recipe="smoke", runs_dir=str(runs)))
    assert (refused["state_type"], refused["state_name"]) == ("FAILED", "GateNotMet")
    assert "is not released:" in refused["state"]["message"]
    server.until(lambda: any("smoke is not released" in body for _, body in ear.heard), 30)
    assert server.ended(server.begin(runs, *SMALL, "--set", "collapse.gate=false"))["state_type"] == "COMPLETED"
    made = server.ended(server.create("stillhouse-release/weekly", recipe="smoke", runs_dir=str(runs)))
    assert made["state_type"] == "COMPLETED"
    assert Lineage(releases_of(runs) / "smoke").generations() == [0]

    def begun() -> list[dict[str, Any]]:
        return server.filtered("flow_runs", flows={"name": {"any_": ["stillhouse-distill"]}})

    server.until(begun, 60)
    (student,) = begun()
    assert student["parameters"]["release"] == "smoke/0"
    assert student["parameters"]["runs_dir"] == str(runs)
