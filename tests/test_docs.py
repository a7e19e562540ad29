"""The command blocks of README and docs run as they are written, in a scratch folder; a block that cannot says why."""

import gzip
import json
import os
import re
import shutil
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import polars as pl
import pytest

from core.project_files import PROJECT
from core.runs.records import RunState
from core.runs.run_dir import RunDir
from flows.rows.row_forms import build_row_document, read_row_conversation, read_row_pair
from tests.support.doc_pages import (
    CLUSTER,
    DATASETS,
    FAMILIES,
    NOT_RUN,
    OBJECT_STORE,
    OWN_RECIPE,
    PAGES,
    REAL_CASE,
    RUN,
    SERVER,
    WITHOUT_EARLIER_RUNS,
    YOUR_DATA,
    Block,
    blocks,
    make_conversation,
    open_workspace,
    own_recipe,
    select_blocks,
    write_own_recipe,
)
from tests.support.forked_shell import forked, run_shell
from tests.support.waiting import wait_until

with_runs = pytest.mark.xdist_group("docs of runs")
"""Those of students are another group, so that two workers share the work."""


def matching_entries(block: Block, known: Iterable[str]) -> list[str]:
    return [entry for entry in known if block.key.startswith(entry)]


PLUGIN = r"(?:plugins/\w+/)"


def is_present(name: str) -> bool:
    """Whether it is of the core, or of a plugin whose folder is here."""
    return not (found := re.match(PLUGIN, name)) or (PROJECT / found[0]).is_dir()


def test_every_block_of_commands_is_run_or_says_why_not() -> None:
    commands = [block for block in blocks() if block.commands]
    assert [block.key for block in commands if len(matching_entries(block, (*NOT_RUN, *RUN))) != 1] == [], (
        "run it, or say why not"
    )
    used = {entry for block in commands for entry in matching_entries(block, (*NOT_RUN, *RUN))}
    present = {entry for entry in (*NOT_RUN, *RUN) if is_present(entry)}
    assert present - used == set(), "no such block any more"
    tests = {name for reason in NOT_RUN.values() for name in re.findall(rf"{PLUGIN}?tests/[\w/]+\.py", reason)}
    assert [name for name in tests if is_present(name) and not (PROJECT / name).is_file()] == []


def test_every_link_leads_to_a_file_and_its_heading() -> None:
    dead = []
    others = [page for pages in ("benchmarks/*.md", "plugins/*/reference.md") for page in sorted(PROJECT.glob(pages))]
    for page in (*PAGES, PROJECT / "CONTRIBUTING.md", *others):
        prose = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
        for link in re.findall(r"\]\(([^)\s]+)\)", prose):
            name, _, anchor = link.partition("#")
            target = (page.parent / name).resolve() if name else page
            if target.is_relative_to(PROJECT) and not is_present(target.relative_to(PROJECT).as_posix()):
                continue
            headings = (
                re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE) if target.suffix == ".md" and anchor else []
            )
            slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
            if not re.match(r"[a-z]+:", link) and (not target.exists() or (headings and anchor not in slugs)):
                dead.append(f"{page.name}: {link}")
    assert dead == []


REFERENCES = (PROJECT / "docs" / "recipe.md", *sorted((PROJECT / "plugins").glob("*/reference.md")))


def read_recipe_keys() -> list[set[str]]:
    """The keys of each table of a recipe, by the generated references; a table in a table is a key too."""
    tables = dict[str, set[str]]()
    for page in REFERENCES:
        for section in re.split(r"^##+ ", page.read_text(), flags=re.MULTILINE)[1:]:
            title, _, rows = section.partition("\n")
            tables.setdefault(f"{page} {title}", set()).update(
                re.findall(r"^\[?`(\w+)`(?: \||\]\()", rows, re.MULTILINE)
            )
            if found := re.fullmatch(r"`\[(?:(\w+)\.)?(\w+)(?:\.NAME)?\]`", title):
                tables.setdefault(f"{page} {f'`[{found[1]}]`' if found[1] else 'The recipe'}", set()).add(found[2])
    return list(tables.values())


def find_key_tables(page: str, tables: Sequence[set[str]]) -> list[str]:
    """The first rows of Markdown tables of which half, and two or more, describe keys of one table of a recipe."""
    found = []
    for rows in re.findall(r"(?:^\|.*\n?)+", page, re.MULTILINE):
        cells = [line.split("|")[1] for line in rows.splitlines()[2:]]
        names = [set(re.findall(r"`(?:\w+\.)*(\w+)(?: = [^`]*)?`", cell)) for cell in cells]
        if any(sum(bool(one & keys) for one in names) >= max(2, len(cells) / 2) for keys in tables):
            found.append(rows.splitlines()[2])
    return found


def test_no_page_describes_recipe_keys_by_hand() -> None:
    tables = read_recipe_keys()
    planted = "| key | effect |\n|---|---|\n| `epochs` | how often |\n| `student.replay` | less forgetting |\n"
    assert find_key_tables(planted, tables) == ["| `epochs` | how often |"]
    keyboard = "| key | effect |\n|---|---|\n| `g` | good |\n| `p` | poor |\n"
    assert find_key_tables(keyboard, tables) == []
    found = {str(page.relative_to(PROJECT)): find_key_tables(page.read_text(), tables) for page in PAGES}
    assert {page: rows for page, rows in found.items() if rows} == {}, "link to the generated reference instead"


def test_the_page_of_attacks_is_what_its_script_prints() -> None:
    script = [sys.executable, str(PROJECT / "docs" / "attacks.py")]
    printed = subprocess.run(script, capture_output=True, text=True, check=True).stdout.splitlines()
    page = (PROJECT / "tests" / "ATTACKS.md").read_text().splitlines()
    present = [line for line in page if not (test := re.search(rf"`({PLUGIN}[^`]+)` \|$", line)) or is_present(test[1])]
    assert present == printed, "python docs/attacks.py > tests/ATTACKS.md"


@pytest.fixture
def tutorial(tmp_path: Path, prefect_home: Path) -> "Tutorial":
    return Tutorial(tmp_path, str(prefect_home))


class Tutorial(NamedTuple):
    """The files of docs/your-own.md in a folder, and the command to run there."""

    folder: Path
    prefect_home: str

    def write(self, block: Block) -> bool:
        """Whether the block is a file: it names itself in its first line, or the prose before it does."""
        first = block.text.splitlines()[0]
        named = re.fullmatch(r"(?:#|<!--) (at the end of )?(shop/\S+)(?: -->)?", first) or re.fullmatch(
            r"()`(shop/\S+)`:", block.before
        )
        if not named:
            return False
        path = self.folder / named[2]
        path.parent.mkdir(parents=True, exist_ok=True)
        earlier = path.read_text() + "\n" if named[1] else ""
        path.write_text(earlier + block.text + "\n")
        return True

    def run(self, text: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PREFECT_HOME": self.prefect_home, "PYTHONPATH": str(PROJECT)}
        return run_shell(text, self.folder, environment)


def kept(output: str) -> int:
    (number,) = re.findall(r"-> kept (\d+)$", output, re.MULTILINE)
    return int(number)


@pytest.mark.slow
@with_runs
def test_the_tutorial_runs_as_written_with_the_scripted_teacher(tutorial: Tutorial) -> None:
    output = ""
    for block in (block for block in blocks() if block.page == "docs/your-own.md"):
        if not tutorial.write(block) and block.commands and re.search("fake/|stillhouse new|python", block.text):
            done = tutorial.run(block.text)
            assert done.returncode == 0, done.stdout + done.stderr
            output += done.stdout
    assert 0 < kept(output) < 20
    assert "$7 is no price of the shop\n" in output
    assert re.search(r"pass +shop_answers +Answers must be short and name only prices", output), (
        "preview shows the page's first check"
    )
    assert re.search(r"(pass|fail) +friendly ", output), (
        "and its second, whose question the script answers by its schema"
    )


@pytest.mark.slow
@with_runs
def test_the_tutorial_keeps_samples_of_the_embedded_teacher(tutorial: Tutorial) -> None:
    """Until one is kept: of what a small model writes on this machine, many are dropped and some may fail."""
    page = [block for block in blocks() if block.page == "docs/your-own.md"]
    for block in page[: page.index(next(block for block in page if block.text == "stillhouse run shop"))]:
        tutorial.write(block)
    two_at_once = """--set 'teachers.main={model="local/smollm2-135m",max_concurrent=2}'"""
    done = tutorial.run(f"stillhouse run shop --set keep=1 {two_at_once} --runs-dir embedded")
    assert done.returncode in (0, 1), done.stdout + done.stderr
    (manifest,) = (tutorial.folder / "embedded").glob("*/manifest.json")
    state = RunDir(manifest.parent).read_manifest().state
    assert state == (RunState.partial if done.returncode else RunState.done), done.stderr
    assert kept(done.stdout) > 0


SCRIPTS = {"library-tools": "tool_calls"}
"""What the endpoint answers to a recipe that has another name than its script."""


@pytest.mark.slow
@with_runs
def test_the_pages_of_the_families_run_as_written(tmp_path: Path, prefect_home: Path) -> None:
    """Of a run, a few samples; of a script's nonsense, nothing need be kept, but each request has its reply."""
    few = {
        "stillhouse run": "--set samples=3 --set max_failed=1.0",
        "stillhouse run code": "--set samples=1",
        "stillhouse run reasoning": "--set task.questions=50",
    }

    def page(number: int, block: Block) -> None:
        name = block.text.split()[2]
        with open_workspace(tmp_path / f"{number}-{name}", prefect_home) as workspace:
            workspace.endpoint.script = SCRIPTS.get(name, name).replace("-", "_")
            workspace.write("mine.jsonl", *({"question": f"What is {n} + 1?", "answer": str(n + 1)} for n in range(20)))
            words = {"=PATH": f"={PROJECT / 'data' / 'documents'}"}
            rest = block.text.splitlines()[0].partition(" --set ")
            first, *others = block.text.splitlines()
            workspace.run_block(
                block._replace(text=first) if others and "…" in block.text else block, words, few, (0, 1)
            )
            if "…" in block.text:
                words = {
                    "data/runs/…": str(workspace.newest(name)) if name == "instructions" else "",
                    " …": "".join(rest[1:]),
                }
                workspace.run_block(block._replace(text="\n".join(others)), words, few, (0, 1))
            for manifest in workspace.folder.glob("data/runs/*/manifest.json"):
                found = RunDir(manifest.parent).read_manifest()
                assert found.error is None, "the endpoint did not answer"
                assert found.counts.candidates, name

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(page, *zip(*enumerate(select_blocks(FAMILIES)), strict=True)))


@with_runs
def test_the_page_on_your_data_runs_as_written_and_its_rows_are_read(tmp_path: Path, prefect_home: Path) -> None:
    page = [block for block in blocks() if block.page == "docs/your-data.md"]
    forms, [pair] = (
        [json.loads(line) for line in block.text.splitlines()] for block in page if block.language == "json"
    )
    questions = [read_row_conversation(row)[-1] for row in forms[1:]]
    assert {(turn.role, turn.content) for turn in questions} == {("assistant", "Hello.")}
    assert build_row_document(forms[0]).text == forms[0]["text"]
    assert read_row_pair(pair).rejected[-1].content == "Go away."
    [sheet], [script] = ([block.text for block in page if block.language == kind] for kind in ("csv", "python"))
    with open_workspace(tmp_path / "workspace", prefect_home) as workspace:
        more = "".join(f"Warum {i}?,Weil {i} so ist.,\n" for i in range(30))
        (workspace.folder / "fragen.csv").write_text(f"{sheet}\n{more}")
        for block in select_blocks(YOUR_DATA):
            workspace.run_block(block)
        assert (workspace.folder / "clean/kept.jsonl").read_text().count("\n") == 32
        workspace.write("squad.jsonl", {"question": "Who?", "answers": {"text": ["Ann."]}, "context": "Ann sang."})
        done = subprocess.run(
            [sys.executable, "-c", script], cwd=workspace.folder, capture_output=True, text=True, check=True
        )
        assert [turn.content for turn in read_row_conversation(json.loads(done.stdout))] == [
            "Ann sang.",
            "Who?",
            "Ann.",
        ]


@pytest.mark.slow
@with_runs
def test_the_real_case_runs_as_written_with_its_recorded_replies(tmp_path: Path, prefect_home: Path) -> None:
    [recipe] = [block.text for block in blocks() if block.page == "docs/real-case.md" and block.language == "toml"]
    recording = PROJECT / "benchmarks/recordings/repairs.jsonl"
    with open_workspace(tmp_path / "workspace", prefect_home) as workspace:
        file, messages = workspace.folder / "repairs.toml", workspace.folder / "messages"
        messages.mkdir()
        for i, line in enumerate(recording.read_text().splitlines()):
            (messages / f"{i:03}.txt").write_text(json.loads(line)["seed"]["text"])
        file.write_text(recipe)
        assert "documents: 480 chunks of 480 files" in workspace.shell("stillhouse validate repairs.toml").stdout
        replayed = re.sub(r'documents = "messages".*', f'recording = "{recording}"', recipe)
        replayed = re.sub(r'model = "openai/.*\n.*\n', f'model = "fake/replay:{recording}"\n', replayed)
        file.write_text(replayed)
        less = "--set samples=24 --set student.layers=2 --set student.epochs=1 --set student.replay=false"
        for block in select_blocks(REAL_CASE):
            run = {} if "NAME" not in block.text else {"data/runs/NAME": str(workspace.newest("repairs"))}
            printed = workspace.run_block(block, run, more={"stillhouse run": less})
            assert "candidates 24 -> verified 24 -> kept 24" in printed or run
        assert list(workspace.folder.glob("data/runs/repairs-*/student/student-q8_0.gguf"))


@pytest.mark.slow
@with_runs
def test_the_pages_on_datasets_run_as_written(tmp_path: Path, prefect_home: Path) -> None:
    with open_workspace(tmp_path / "workspace", prefect_home) as workspace:
        workspace.write("week-47.jsonl", *map(make_conversation, range(5, 25)))
        workspace.write("folder/rows.jsonl", *map(make_conversation, range(20)))
        (workspace.folder / "rows.jsonl.gz").write_bytes(
            gzip.compress((workspace.folder / "folder/rows.jsonl").read_bytes())
        )
        pl.DataFrame(list(map(make_conversation, range(20)))).write_parquet(workspace.folder / "rows.parquet")
        (workspace.folder / "mine.toml").write_text(own_recipe())
        (workspace.folder / "my").mkdir()
        (workspace.folder / "my/models.py").write_text(
            "import pydantic\n\nclass Order(pydantic.BaseModel):\n    item: str\n"
        )
        for block in select_blocks(DATASETS):
            workspace.run_block(block, more={"stillhouse study": "--samples 20"})
        assert (workspace.folder / "clean-47/kept.jsonl").read_text().count("\n") == 5


@pytest.mark.slow
@with_runs
def test_the_pages_on_a_recipe_of_ones_own_run_as_written(tmp_path: Path, prefect_home: Path) -> None:
    with open_workspace(tmp_path / "workspace", prefect_home) as workspace:
        write_own_recipe(workspace, samples=120)  # fewer would be inconclusive for `assess`
        real = [json.loads(line) for line in (PROJECT / "data/reference/english.jsonl").read_text().splitlines()]
        workspace.write("REAL.jsonl", *real[:600])
        fewer = {"stillhouse run mine.toml --set scale.runner=dask": "--set scale.workers=1"}
        backup = workspace.folder / "backup"
        backup.mkdir()
        (workspace.folder / ".prefect").mkdir()
        sqlite3.connect(workspace.folder / ".prefect" / "prefect.db").close()
        for block in select_blocks(OWN_RECIPE):
            if block.page in WITHOUT_EARLIER_RUNS:
                shutil.move(workspace.folder / "data", workspace.folder / f"data before {Path(block.page).stem}")
            own = "data/runs/NAME" if "data/runs/NAME" in block.text else "INPUT"
            newest = str(workspace.newest()) if (workspace.folder / "data").is_dir() else ""
            words = {
                "run mine ": "run mine.toml ",
                "/backup/": f"{backup}/",
                "EARLIER": "REAL.jsonl",
                "--reference REF": "--reference REAL.jsonl",
                "--kind KIND": "--kind prose",
                own: newest,
                " [": " ",
                "] ": " ",
            }
            synopsis = "INPUT" in block.text
            if synopsis:
                block = block._replace(text=block.text.replace(" [--json]", " --json"))
            workspace.run_block(block, words, fewer, (3,) if synopsis else (0,))


@pytest.mark.slow
@with_runs
def test_the_pages_on_a_cluster_run_as_written(tmp_path: Path, prefect_home: Path) -> None:
    from distributed.security import Security  # a second, also of each worker that runs no test of a cluster

    security = Security.temporary()  # type: ignore[no-untyped-call]
    texts = (security.tls_ca_file, security.tls_client_cert, security.tls_client_key)
    here = "--host 127.0.0.1 --no-dashboard"
    plain, filtered, secured = select_blocks(CLUSTER)
    for name, pages in {"plain": (plain, filtered), "secured": (secured,)}.items():
        with open_workspace(tmp_path / name, prefect_home) as workspace:
            write_own_recipe(workspace)
            workspace.write("rows/rows.jsonl", *map(make_conversation, range(20)))
            for file, text in zip(("ca.pem", "me.pem", "me.key"), texts, strict=True):
                (workspace.folder / file).write_text(text)
            address = f"127.0.0.1:{free_port()}"
            more = {"dask scheduler": here, "dask worker": here}
            words = {
                "dask scheduler &": "dask scheduler --port 8786 &",
                "--port 8786": f"--port {address.rpartition(':')[2]}",
                "HOST:8786": address,
                "--nworkers 16": "--nworkers 1",
                "--nworkers 2": "--nworkers 1",
                "/etc/dask": str(workspace.folder),
                "/shared": str(workspace.folder),
            }
            if secured in pages:
                secret = "--protocol tls --tls-ca-file ca.pem --tls-cert me.pem --tls-key me.key"
                start = (
                    f"dask scheduler --port 8786 {secret}\ndask worker tls://HOST:8786 --nthreads 1 --no-nanny {secret}"
                )
                workspace.run_block(secured._replace(text=start), words, more)
            for block in pages:
                workspace.run_block(block, words, more)
            assert len(workspace.servers) == 2, "a scheduler and a worker, also for two pages"


@pytest.mark.slow
@with_runs
def test_the_page_on_an_object_store_runs_as_written(tmp_path: Path, prefect_home: Path, server: str, url: str) -> None:
    [block] = select_blocks(OBJECT_STORE)
    with open_workspace(tmp_path / "workspace", prefect_home) as workspace:
        write_own_recipe(workspace)
        output = workspace.run_block(block, {"http://127.0.0.1:5555": server, "s3://bucket/team": url})
    assert re.search(r"^mine  1 generation", output, re.MULTILINE)


@pytest.mark.slow
def test_the_page_on_a_server_and_a_worker_runs_as_written(tmp_path: Path) -> None:
    """`keep` ends the run of 500 samples after a few."""
    folder = tmp_path / "workspace"
    with open_workspace(folder, folder / ".prefect") as workspace, ExitStack() as stack:
        write_own_recipe(workspace)
        text = (folder / "mine.toml").read_text()
        (folder / "mine.toml").write_text(f"keep = 12\n{text}")
        port = free_port()
        workspace.variables.update(
            STILLHOUSE_RUNS=str(folder / "data" / "runs"), PREFECT_SERVER_ANALYTICS_ENABLED="false",
            PREFECT_SERVER_SERVICES_SCHEDULER_ENABLED="false", PREFECT_WORKER_QUERY_SECONDS="1",
        )  # fmt: skip
        words = {
            ".venv/bin/": "",
            "127.0.0.1:4200": f"127.0.0.1:{port}",
            "recipe=mine.toml": f"recipe={folder}/mine.toml",
        }
        more = {"prefect server start": f"--port {port} --no-ui"}
        secret, start, *rest = select_blocks(SERVER)
        workspace.run_block(secret, words)
        workspace.run_block(start, words, more)
        password = (folder / ".prefect/stillhouse-secret").read_text().strip()
        user, _, word = password.partition(":")
        api = stack.enter_context(httpx.Client(base_url=f"http://127.0.0.1:{port}/api", auth=(user, word), timeout=300))
        wait_until(lambda: answers(api))
        workspace.variables.update(PREFECT_API_URL=str(api.base_url).rstrip("/"), PREFECT_API_AUTH_STRING=password)
        (folder / "own_blocks.py").write_text(BLOCKS)
        result = workspace.shell(forked("own_blocks"))
        assert result.returncode == 0, result.stderr
        for block in rest:
            for line in [block.text] if block.text.startswith("export") else block.text.splitlines():
                workspace.run_block(block._replace(text=line), words)
                if "samples=500" in line:
                    wait_until(lambda: {run["state_type"] for run in runs_of(api)} <= ENDED, every=1)
                    assert {run["state_type"] for run in runs_of(api)} == {"COMPLETED"}
        assert len(runs_of(api)) == 1


ENDED = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}
BLOCKS = """
from prefect.blocks.notifications import SlackWebhook
from prefect.blocks.system import Secret
Secret(value="none").save("openai")
SlackWebhook(url="http://127.0.0.1:9/services").save("ops")
"""
"""The blocks that a reader creates on the server's pages."""


def answers(api: httpx.Client) -> bool:
    try:
        return api.get("/health").status_code == 200
    except httpx.HTTPError:
        return False


def runs_of(api: httpx.Client) -> list[dict[str, Any]]:
    runs: list[dict[str, Any]] = api.post("/flow_runs/filter", json={}).raise_for_status().json()
    return runs


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
