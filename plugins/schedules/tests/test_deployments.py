"""Deployments on a real Prefect server with a real worker: deployed, run, watched, paused, killed, cancelled, released."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from benchmarks.endpoint import Behaviour, serve_in_child
from core.config.recipe import list_recipe_plugins
from core.plugins import find_part
from core.project_files import PROJECT
from core.runs.lineage import Lineage
from core.runs.records import CollapseVerdict, RunState
from core.runs.releases import locate_releases
from core.runs.run_dir import RunDir
from flows.data.curated_run import read_finished_samples
from tests.support.forked import FORKS
from tests.support.waiting import wait_until
from tests.support.whole_runs import the_run

pytestmark = [pytest.mark.slow, pytest.mark.waits, pytest.mark.xdist_group("deployments")]  # they share a server

ENDED = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}
SMALL = ("--set", "samples=24", "--set", "shard_size=8")
KEY = "sk-nobody-may-read-this"
USER, PASSWORD = "admin", "a-secret-that-nobody-guesses"
EVIL = "http://evil.example"
SLOW = (*SMALL, "--set", "teachers.main.extra={seconds=0.8}", "--set", "teachers.main.max_concurrent=2")


class Server:
    """A Prefect server of its own, with a secret as plugins/schedules/README.md says, asked through its API."""

    def __init__(self, home: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}/api"
        self.environment = {
            **os.environ, "PREFECT_HOME": str(home), "PREFECT_API_URL": self.url, "DO_NOT_TRACK": "1",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false", "PREFECT_WORKER_QUERY_SECONDS": "1",
            "PREFECT_WORKER_PREFETCH_SECONDS": "1", "PREFECT_SERVER_SERVICES_SCHEDULER_ENABLED": "false",
            "PREFECT_SERVER_EVENTS_PROACTIVE_GRANULARITY": "PT1S", "PREFECT_API_AUTH_STRING": f"{USER}:{PASSWORD}",
            "PREFECT_SERVER_API_AUTH_STRING": f"{USER}:{PASSWORD}",
            "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": f"http://127.0.0.1:{port}",
        }  # fmt: skip
        self.process = self.start("prefect", "server", "start", "--port", str(port), "--no-ui")
        self.home = home
        self.api = httpx.Client(base_url=self.url, auth=(USER, PASSWORD), timeout=300)
        self.until(lambda: self._answers())

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

    def call(self, *words: str, code: int = 0, folder: Path = PROJECT) -> str:
        done = FORKS.run("stillhouse", *words, folder=folder, **self.environment)
        assert done.returncode == code, done.stderr
        return done.stdout if code == 0 else done.stderr

    def begin(self, runs: Path, *words: str) -> str:
        """A run of the deployment `once`; its id."""
        started = self.call("start", "smoke", *words, "--runs-dir", str(runs), "--json")
        return str(json.loads(started)["flow_run"])

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
        answers: list[httpx.Response] = []

        def answered() -> bool:
            answers.append(self.api.request(method, path, json=body))
            return answers[-1].status_code != 503

        self.until(answered)
        return answers[-1].raise_for_status()

    def set_state(self, name: str, state: dict[str, Any]) -> None:
        self.ask(f"/flow_runs/{name}/set_state", {"state": state, "force": True})

    def flow_run(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.api.get(f"/flow_runs/{name}").raise_for_status().json()
        return found

    def ended(self, name: str) -> dict[str, Any]:
        self.until(lambda: self.flow_run(name)["state_type"] in ENDED)
        return self.flow_run(name)

    def filtered(self, kind: str, **query: Any) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.ask(f"/{kind}/filter", query).json()
        return found

    def logs(self, name: str) -> list[str]:
        return [log["message"] for log in self.filtered("logs", logs={"flow_run_id": {"any_": [name]}}, limit=200)]

    @staticmethod
    def until(true: Callable[[], Any]) -> None:
        wait_until(true, every=0.3)


def kill(process: subprocess.Popen[bytes], number: int = signal.SIGKILL) -> None:
    """The whole session: a worker with the flow runs that it started."""
    if process.poll() is None:
        os.killpg(process.pid, number)
        process.wait()


class RecordingEndpoint:
    """An endpoint that records requests, and answers that the key is unknown."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str]] = []
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                endpoint.requests.append((self.headers.get("Authorization", ""), body))
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
def endpoint() -> Iterator[RecordingEndpoint]:
    with closing(RecordingEndpoint()) as endpoint:
        yield endpoint


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, endpoint: RecordingEndpoint) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("prefect"))
    try:
        server.block("secret", "teacher", {"value": KEY})
        server.block(
            "custom-webhook", "ops", {"name": "ops", "url": endpoint.url, "json_data": {"text": "{{subject}} {{body}}"}}
        )
        server.call("deploy", *NAMED)
        yield server
    finally:
        server.api.close()
        kill(server.process)


NAMED = ("--notify", "custom-webhook/ops", "--secret", "TEACHER_KEY=teacher")


@pytest.fixture(scope="module")
def worker(server: Server) -> Iterator[subprocess.Popen[bytes]]:
    process = server.worker()
    yield process
    kill(process)


def test_deployments_have_a_form_and_the_commit(server: Server) -> None:
    there = {one["name"]: one for one in server.filtered("deployments")}
    assert set(there) == {"nightly", "weekly", "on-release", "promoting", "once"}
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=PROJECT, text=True, capture_output=True, check=False
    )
    for one in there.values():
        assert one["version"] == commit.stdout.strip()
        for key, schema in one["parameter_openapi_schema"]["properties"].items():
            assert schema["description"], key
    assert there["nightly"]["schedules"][0]["schedule"]["cron"] == "0 2 * * *"
    assert there["nightly"]["concurrency_options"]["collision_strategy"] == "CANCEL_NEW"
    before = {one["name"]: one["enabled"] for one in server.filtered("automations")}
    assert sum(name.startswith("stillhouse: ") for name in before) == 5
    server.call("deploy", *NAMED)
    assert len(server.filtered("deployments")) == 5, "deploying again changes them in place"
    assert {one["name"]: one["enabled"] for one in server.filtered("automations")} == before
    assert "no such block" in server.call("deploy", "--notify", "slack-webhook/ops", code=2)
    assert "no Secret block 'other'" in server.call("deploy", "--secret", "TEACHER_KEY=other", code=2)


@pytest.mark.attack(
    "a local user or web page submits a run with a shell command as job variable",
    "401, no CORS header, preflight refused; no flow run",
)
def test_neither_another_user_nor_a_web_page_starts_a_run(server: Server) -> None:
    once = server.api.get("/deployments/name/stillhouse-run/once").raise_for_status().json()["id"]
    begin, shell = f"{server.url}/deployments/{once}/create_flow_run", {"job_variables": {"command": "sh -c id"}}
    before = server.api.post("/flow_runs/count", json={}).json()
    neighbor = httpx.post(begin, json=shell, timeout=300)
    page = httpx.post(begin, json=shell, headers={"Origin": EVIL}, timeout=300)
    preflight = {
        "Origin": EVIL,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "content-type",
    }
    asked_first = httpx.options(begin, headers=preflight, timeout=300)
    assert [answer.status_code for answer in (neighbor, page, asked_first)] == [401, 401, 400]
    assert all("access-control-allow-origin" not in answer.headers for answer in (page, asked_first))
    assert server.api.post("/flow_runs/count", json={}).json() == before


def test_a_deployments_run_of_a_relative_recipe_is_named_and_leaves_the_files_of_the_command(
    server: Server, worker: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    wrong = server.call("start", "smoke", "--set", "samples=0", code=2)
    assert "samples: input should be greater than or equal to 1, not 0" in wrong
    assert "stillhouse-run/twice: " in server.call("start", "smoke", "--deployment", "twice", code=2)
    (tmp_path / "bike").mkdir()
    recipe = (PROJECT / "flows/recipes/smoke.toml").read_text().replace('name = "smoke"', 'name = "cycle"')
    (tmp_path / "bike/recipe.toml").write_text(recipe)
    named = ("--set", "name='tricycle'")
    started = json.loads(server.call("start", "bike", *SMALL, *named, "--json", "--runs-dir", "runs", folder=tmp_path))
    assert started["recipe"] == str(tmp_path / "bike/recipe.toml")
    name = started["flow_run"]
    found = server.ended(name)
    assert (found["state_type"], found["name"]) == ("COMPLETED", started["name"])
    assert started["name"] == "tricycle"
    run = the_run(tmp_path / "runs")
    assert run.name.startswith("tricycle-")
    assert run.read_manifest().state is RunState.done
    watches = "drift" in list_recipe_plugins(run.read_recipe())
    assert watches == (find_part("section", "drift") is not None), (
        "a deployment's run asks whether hosted teachers changed"
    )

    def tasks_named() -> bool:
        tasks = server.filtered("task_runs", flow_runs={"id": {"any_": [name]}})
        return {"shard 0", "shard 1", "shard 2"} <= {one["name"] for one in tasks}

    server.until(tasks_named)  # events report task runs
    of_run = {"artifacts": {"flow_run_id": {"any_": [name]}}}
    shown = {one["key"]: one["data"] for one in server.filtered("artifacts", **of_run) if one["key"]}
    assert f"run {run.name}  done" in shown["tricycle-card"]
    assert "repeated_4grams" in shown["tricycle-collapse"]

    stages = (
        "produce: shard 0:",
        "produce: shard 1:",
        "produce: shard 2:",
        "curate:",
        "assess:",
        "package:",
        "report:",
    )

    def missing() -> list[str]:
        lines = server.logs(name)
        return [stage for stage in stages if not any(line.startswith(stage) for line in lines)]

    server.until(lambda: missing() == [])  # logs are sent in batches


@pytest.fixture
def held(tmp_path: Path) -> Iterator[tuple[tuple[str, ...], Path]]:
    """Settings with a teacher that answers 30 questions, then none until a file exists, and that file: no run ends earlier."""
    back = tmp_path / "back"
    with serve_in_child(Behaviour(held_after=30, back=str(back)), tmp_path / "calls.jsonl") as url:
        teacher = f"teachers.main={{model='openai/m',base_url='{url}',max_concurrent=4,api_key_env='TEST_API_KEY'}}"
        yield (*SMALL, "--set", teacher, "--set", "drift.on_drift=off"), back


def test_a_cancelled_run_stops_asking_and_resumes_when_retried(
    server: Server, worker: subprocess.Popen[bytes], held: tuple[tuple[str, ...], Path], tmp_path: Path
) -> None:
    runs, (settings, back) = tmp_path / "runs", held
    name = server.begin(runs, *settings)
    server.until(lambda: list(runs.glob("*/wip/*.calls.jsonl")))
    second = server.begin(runs, *settings)
    found = server.ended(second)
    assert (found["state_type"], "another process is working on this run" in found["state"]["message"]) == (
        "CANCELLED",
        True,
    )
    assert found["name"] == "smoke"
    server.set_state(name, {"type": "CANCELLING"})
    assert server.ended(name)["state_type"] == "CANCELLED"
    server.until(lambda: the_run(runs).read_manifest().state is RunState.interrupted)

    def lines_with(flow_run: str, *words: str) -> list[str]:
        return [line for line in server.logs(flow_run) if any(word in line for word in words)]

    unwanted = ("Crash detected", "in state Crashed", "in state Running", "Traceback")
    for flow_run in (name, second):
        server.until(lambda flow_run=flow_run: lines_with(flow_run, "in state Cancelled", *unwanted))
        assert lines_with(flow_run, *unwanted) == []
    (journal,) = runs.glob("*/wip/spend.jsonl")
    asked = journal.stat().st_size
    back.touch()
    time.sleep(3)
    assert journal.stat().st_size == asked, "nobody asks any more"
    server.set_state(name, {"type": "SCHEDULED", "name": "AwaitingRetry"})  # as Retry on the page
    assert server.ended(name)["state_type"] == "COMPLETED"
    run = the_run(runs)
    assert run.read_manifest().state is RunState.done
    assert len({sample.id for sample in read_finished_samples(run)}) == run.read_manifest().counts.candidates == 24


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
    server.until(lambda: list(runs.glob("*/wip/*.calls.jsonl")))
    until = (datetime.now(UTC) + timedelta(minutes=5)).isoformat()
    details = {"pause_timeout": until, "pause_reschedule": True}
    server.set_state(name, {"type": "PAUSED", "name": "Suspended", "state_details": details})
    server.until(lambda: the_run(runs).read_manifest().state is RunState.interrupted)
    assert server.flow_run(name)["state_name"] == "Suspended"
    server.ask(f"/flow_runs/{name}/resume", {})
    (journal,) = runs.glob("*/wip/spend.jsonl")
    asked_before = journal.stat().st_size
    server.until(lambda: journal.stat().st_size > asked_before)
    os.kill(int(server.flow_run(name)["infrastructure_pid"].rpartition(":")[2]), signal.SIGKILL)
    server.until(lambda: server.flow_run(name)["run_count"] == 2)
    found = server.ended(name)
    assert found["state_type"] == "COMPLETED", found["state"]["message"]
    run = the_run(runs)
    made = [sample.id for sample in read_finished_samples(run)]
    assert len(made) == len(set(made)) == run.read_manifest().counts.candidates == 24
    shown = server.filtered("artifacts", artifacts={"flow_run_id": {"any_": [name]}, "type": {"any_": ["progress"]}})
    assert any("produce: " in one["description"] and one["data"] for one in shown)
    states = Counter(one["state_type"] for one in server.filtered("task_runs", flow_runs={"id": {"any_": [name]}}))
    assert states.keys() <= ENDED, "no task of the dead process runs for ever"
    assert states["CRASHED"] > 0


def test_a_secret_reaches_the_run_and_nothing_that_is_kept(
    server: Server, worker: subprocess.Popen[bytes], endpoint: RecordingEndpoint, tmp_path: Path
) -> None:
    teacher = f'teachers.main={{model="openai/any", base_url="{endpoint.url}", api_key_env="TEACHER_KEY"}}'
    asked = {"recipe": "smoke", "overrides": [teacher], "runs_dir": str(tmp_path / "runs")}
    name = server.create("stillhouse-run/once", **asked)
    found = server.ended(name)
    assert (found["state_type"], f"Bearer {KEY}" in dict(endpoint.requests)) == ("FAILED", True), found["state"][
        "message"
    ]
    server.until(lambda: server.filtered("logs", logs={"flow_run_id": {"any_": [name]}}))
    kept = [*server.home.rglob("*"), *(tmp_path / "runs").rglob("*")]
    assert sum(KEY.encode() in file.read_bytes() for file in kept if file.is_file()) == 0
    for kind in ("flow_runs", "logs", "artifacts", "work_pools", "deployments", "block_documents"):
        assert KEY not in json.dumps(server.filtered(kind)), kind
    assert (server.home / "prefect.db").is_file()


def test_a_refused_release_has_its_own_state_and_the_shipped_schedules_make_one_that_the_next_night_builds_on(
    server: Server, worker: subprocess.Popen[bytes], endpoint: RecordingEndpoint, tmp_path: Path
) -> None:
    runs = tmp_path / "runs"
    small = ["samples=24", "shard_size=8"]
    night = {"recipe": "smoke", "overrides": small, "distill": False, "runs_dir": str(runs)}
    strict = {**night, "overrides": [*small, 'collapse.gate="strict"']}
    weekly = {"recipe": "smoke", "runs_dir": str(runs)}
    assert server.ended(server.create("stillhouse-run/nightly", **strict))["state_type"] == "COMPLETED"
    refused = server.ended(server.create("stillhouse-release/weekly", **weekly))
    assert (refused["state_type"], refused["state_name"]) == ("FAILED", "GateNotMet")
    assert "is not released:" in refused["state"]["message"]
    server.until(lambda: any("smoke is not released" in body for _, body in endpoint.requests))
    assert server.ended(server.create("stillhouse-run/nightly", **night))["state_type"] == "COMPLETED"
    made = server.create("stillhouse-release/weekly", **weekly)
    server.until(lambda: server.flow_run(made)["state_type"] in {"RUNNING", *ENDED})
    server.ask("/work_pools/stillhouse", {"is_paused": True}, "PATCH")  # the student is started, and not trained
    assert server.ended(made)["state_type"] == "COMPLETED"
    (release,) = Lineage(locate_releases(runs) / "smoke").read_verified()
    assert release.manifest.verdict is CollapseVerdict.inconclusive
    assert Lineage(locate_releases(runs) / "smoke").list_generations() == [0]

    def begun() -> list[dict[str, Any]]:
        return server.filtered("flow_runs", flows={"name": {"any_": ["stillhouse-distill"]}})

    server.until(begun)
    (student,) = begun()
    assert student["parameters"]["release"] == "smoke/0"
    assert student["parameters"]["runs_dir"] == str(runs)
    server.set_state(student["id"], {"type": "CANCELLED"})
    server.ask("/work_pools/stillhouse", {"is_paused": False}, "PATCH")
    assert server.ended(server.create("stillhouse-run/nightly", **night))["state_type"] == "COMPLETED"
    parents = [RunDir(file.parent).read_parent() for file in runs.glob("smoke-*/recipe.json")]
    assert sorted(parent.release for parent in parents if parent) == ["smoke/0"]
    assert len(parents) == 2, "the gate is no part of what a run makes"
