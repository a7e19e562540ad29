"""The command blocks of README and docs run as they are written, in a scratch folder; a block that cannot says why here."""

import gzip
import json
import os
import re
import shlex
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import polars as pl
import pytest

from core.project_files import PROJECT
from core.runs.records import RunState
from core.runs.run_dir import RunDir
from core.sample import SampleStatus
from flows.data.curated_run import read_finished_samples
from flows.rows.row_forms import build_row_document, read_row_conversation, read_row_pair
from tests.support.forked import COMMAND_FORKS
from tests.support.forked_shell import FORKED_PYTHON, forked, run_shell
from tests.support.scripted_endpoint import Endpoint, serve_scripted_endpoint
from tests.support.waiting import wait_until
from tests.support.whole_runs import check_whole

with_runs = pytest.mark.xdist_group("docs of runs")
with_students = pytest.mark.xdist_group("docs of students")
"""Two groups, so that two workers share the work."""

PAGES = [
    PROJECT / "README.md",
    *sorted((PROJECT / "docs").glob("*.md")),
    *sorted(page for page in (PROJECT / "plugins").glob("*/*.md") if page.name not in ("reference.md", "SKILL.md")),
]
COMMANDS = ("stillhouse", "pipx", "make", "docker", "kubectl", "prefect", "export", "curl", "python", "torchrun", "vllm", "dask",
            "ray", "cp", "mkdir", "pipx", "pg_dump", "pg_restore", ".", "DIGEST=")  # fmt: skip


class Block(NamedTuple):
    """A fenced block of a page."""

    page: str
    language: str
    text: str
    before: str
    """The last line of prose before it."""

    @property
    def key(self) -> str:
        return f"{self.page}: {self.text.splitlines()[0]}"

    @property
    def commands(self) -> bool:
        """Whether it is for a shell."""
        first = self.text.replace(".venv/bin/", "").split()[0]
        return (
            self.language in ("", "sh", "shell", "bash", "console")
            and first.startswith(COMMANDS)
            and "/\n" not in self.text
        )


def blocks() -> list[Block]:
    listed = []
    for page in PAGES:
        text = page.read_text()
        for match in re.finditer(r"^(`{3,})(\w*)\n(.*?)\n\1$", text, re.MULTILINE | re.DOTALL):
            before = text[: match.start()].strip().rpartition("\n")[2]
            listed.append(Block(str(page.relative_to(PROJECT)), match[2], match[3], before))
    return listed


NOT_RUN = {
    "plugins/publish/README.md: export HF_TOKEN": "needs the Hub; plugins/publish/tests/test_publication.py has one",
    "plugins/interop/README.md: stillhouse mcp": "plugins/interop/tests/test_protocol_server.py is a client of servers",
    "plugins/interop/README.md: stillhouse import": "plugins/interop/tests/test_chat_log_import.py imports logs",
    "docs/containers.md: docker": "needs Docker",
    "docs/containers.md: DIGEST=": "needs Docker",
    "docs/containers.md: . deploy/.env": "needs Docker",
    "docs/containers.md: export STILLHOUSE_": "needs Docker",
    "docs/containers.md: kubectl": "needs a Kubernetes cluster",
    "docs/containers.md: prefect deployment run": "needs a Kubernetes cluster",
    "plugins/serving/decisions.md: stillhouse run decisions": "plugins/serving/tests/test_decisions.py labels some texts",
    "plugins/serving/decisions.md: stillhouse decisions": "plugins/serving/tests/test_decision_student.py makes a student",
    "plugins/serving/decisions.md: stillhouse serve": "plugins/serving/tests/test_decision_student.py serves one",
    "plugins/serving/decisions.md: curl": "plugins/serving/tests/test_decision_student.py asks the same",
    "docs/local-models.md: stillhouse serve": "plugins/serving/tests/test_chat_server.py serves with a draft",
    "docs/distillation.md: vllm": "needs vLLM; tests/students/signals/test_prompt_logprobs.py asks a stand-in",
    "docs/releases.md: stillhouse filter": "plugins/publish/tests/test_publication.py releases and publishes folders",
    "plugins/review/README.md: stillhouse review": "waits for a person; plugins/review/tests/test_reviews.py serves pages",
    "plugins/serving/README.md: stillhouse route SMALL": "plugins/serving/tests/test_cascade_calibration.py has two students",
    "plugins/serving/README.md: stillhouse serve STUDENT --teacher vllm": "needs vLLM",
    "plugins/scale/README.md: ray": "needs Ray, which `make install-all` leaves out",
    "docs/install.md: make install": "`make test` calls both first",
    "docs/gpu-training.md: stillhouse distill": "needs a GPU and a model of the Hub",
    "docs/architecture.md: python": "prints a line per module of the checkout",
    "docs/costs.md: stillhouse preview": "tests/agents/studies/test_run_estimation.py previews",
    "docs/choosing-a-teacher.md: stillhouse preview": "tests/agents/studies/test_run_estimation.py previews",
    "docs/install.md: pipx": "needs a package index; tests/test_package.py installs the wheel",
    "plugins/features/README.md: stillhouse": "minutes of training; plugins/features/tests/ runs them on a small model",
    "docs/plugins.md: stillhouse": "tests/test_extensions.py runs them with the package of the page",
    "docs/operations.md: export PREFECT_API_DATABASE": "needs PostgreSQL",
    "plugins/tracing/README.md: export OTEL_": "needs a collector; plugins/tracing/tests/test_tracing.py has one",
    "docs/operations.md: pg_dump": "needs PostgreSQL",
    "plugins/pictures/README.md: stillhouse": "hundreds of pictures; plugins/pictures/tests/test_pictures.py draws a few",
    "docs/releases.md: stillhouse run mine.toml --release": "two trainings; tests/flows/release/test_promotion.py has them",
    "plugins/ablation/README.md: stillhouse ablate": (
        "it trains a student for each arm; plugins/ablation/tests/test_ablation.py runs a smaller one"
    ),
    "plugins/references/README.md: stillhouse reference": (
        "the self-test takes minutes; plugins/references/tests/test_reference_preparation.py runs smaller ones"
    ),
}  # fmt: skip
"""By the beginning of page and first line, the reason why a block of commands is not run here."""
FAMILIES = (
    "plugins/code/README.md: ", "docs/constrained-instructions.md: stillhouse run conversations",
    "docs/extraction.md: stillhouse", "docs/grounded-qa.md: ", "docs/instructions.md: ", "plugins/math/README.md: ",
    "plugins/tools/README.md: ",
)  # fmt: skip
DATASETS = (
    "README.md: stillhouse filter",
    "plugins/interop/README.md: stillhouse skill", "plugins/interop/README.md: stillhouse export-env",
    "docs/extraction.md: python", "docs/filters.md: stillhouse filter", "docs/filters.md: stillhouse index",
    "plugins/study/README.md: stillhouse study topology-study",
)  # fmt: skip
TRAINING = (
    "README.md: stillhouse distill",
    "docs/gpu-training.md: torchrun", "docs/students.md: stillhouse distill", "docs/evaluate.md: stillhouse distill",
    "docs/distillation.md: stillhouse distill",
    "plugins/forms/README.md: stillhouse distill",
)  # fmt: skip
STUDENT = (
    "README.md: stillhouse new mine", "README.md: stillhouse validate mine",
    "docs/students.md: stillhouse export", "docs/evaluate.md: stillhouse evaluate",
    "docs/students.md: stillhouse chat", "plugins/serving/README.md: stillhouse route data",
    "plugins/serving/README.md: stillhouse serve STUDENT  ",
    "plugins/serving/README.md: stillhouse serve STUDENT --teacher-url",
)  # fmt: skip
"""On the student of a run."""
ASK = ("plugins/serving/README.md: curl",)
"""A question to each server of a student."""
OWN_RECIPE = (
    "docs/teachers.md: stillhouse validate",
    "README.md: stillhouse run mine ", "docs/runs.md: stillhouse generate mine", "plugins/scale/README.md: stillhouse run",
    "docs/releases.md: stillhouse run mine.toml  ",
    "docs/collapse.md: stillhouse assess",
    "docs/operations.md: cp -a", "docs/operations.md: python -c", "docs/operations.md: export PREFECT_SERVER_SERVICES",
)  # fmt: skip
WITHOUT_EARLIER_RUNS = ("plugins/scale/README.md", "docs/releases.md")
"""Pages that begin before the first run of their recipe."""
CLUSTER = ("plugins/scale/README.md: dask", "plugins/scale/README.md: export DASK_")
OBJECT_STORE = ("plugins/scale/README.md: export AWS_",)
SERVER = (
    "plugins/schedules/README.md: mkdir", "plugins/schedules/README.md: export", "plugins/schedules/README.md: stillhouse",
)  # fmt: skip
EMBEDDED = {
    "docs/preference-pairs.md: ": "--set samples=2 --set topology.max_revisions=0",
    "plugins/study/README.md: stillhouse study constrained": "--samples 1 --topologies single,centralized",
}
"""Pages on the embedded model, with what makes less of it."""
DEFAULT_RECIPE = ("README.md: stillhouse recipes", "docs/constrained-instructions.md: stillhouse run constrained")
TUTORIAL = ("docs/your-own.md: ",)
YOUR_DATA = ("docs/your-data.md: stillhouse filter", "docs/your-data.md: python")
RUN = (
    *FAMILIES, *DATASETS, *TRAINING, *STUDENT, *ASK, *OWN_RECIPE, *CLUSTER, *OBJECT_STORE, *SERVER, *EMBEDDED,
    *DEFAULT_RECIPE, *TUTORIAL, *YOUR_DATA,
)  # fmt: skip
"""Blocks that a test here runs, by the same beginnings."""


def matching_entries(block: Block, known: Iterable[str]) -> list[str]:
    return [entry for entry in known if block.key.startswith(entry)]


def select_blocks(known: Sequence[str]) -> list[Block]:
    """Their blocks, in the order of `known`."""
    return [block for entry in known for block in blocks() if block.commands and block.key.startswith(entry)]


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


UNTIL_STOPPED = {
    "stillhouse serve": r"^serving \S+ at (http://\S+)$",
    "prefect server start": "",
    "prefect worker start": r"Worker .* started!",
    "dask scheduler": r"Scheduler at:",
    "dask worker": r"Start worker at:",
}
"""Commands that run until they are stopped, with what they print when they are ready."""


class Server:
    """A command that runs until it is stopped; its output is a file."""

    def __init__(self, command: str, ready: str, folder: Path, environment: Mapping[str, str]) -> None:
        self.command = command
        self._log = folder / f"{time.monotonic_ns()}.log"
        *before, last = command.splitlines()
        first, _, arguments = last.partition(" ")
        last = f"{forked(first)} {arguments}"
        shell = "\n".join(["set -e", *before, f"exec {last}"])
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                ["bash", "-c", shell], cwd=folder, env={**environment, "PYTHONUNBUFFERED": "1"},
                pass_fds=[COMMAND_FORKS.requests.fileno()], start_new_session=True, stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip
        wait_until(lambda: self._process.poll() is not None or re.search(ready, self.output, re.MULTILINE))
        assert self._process.poll() is None, f"{command}\n{self.output}"
        match = re.search(ready, self.output, re.MULTILINE)
        self.address = match[1] if match and match.groups() else ""

    @property
    def output(self) -> str:
        return self._log.read_text()

    def stop(self) -> int:
        """As a service manager does; the exit code."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGTERM)
        return self._process.wait()


class Workspace(NamedTuple):
    """A folder of files that the pages speak of, and a shell in it."""

    folder: Path
    prefect_home: Path
    endpoint: Endpoint
    """What `localhost:8000` is."""
    servers: list[Server]
    """What was started and runs until the workspace is left."""
    variables: dict[str, str]
    """More of the environment."""

    def environment(self) -> dict[str, str]:
        tools = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        keys = {"OPENAI_API_KEY": "none", "MY_KEY": "none", "OMP_NUM_THREADS": "1", "HOME": str(self.folder)}
        paths = {"PREFECT_HOME": str(self.prefect_home), "PYTHONPATH": str(PROJECT), "PATH": tools}
        return {**os.environ, **keys, **paths, **self.variables}

    def shell(self, text: str) -> subprocess.CompletedProcess[str]:
        return run_shell(text, self.folder, self.environment())

    def run_block(
        self, block: Block, words: Mapping[str, str] = {}, more: Mapping[str, str] = {}, codes: Sequence[int] = (0,)
    ) -> str:
        """Each line of the block, with what `words` has for the user's own names; `more` is added to lines that begin so,
        to make less than a user would. An `export` holds for the lines after it. A server runs until the workspace is left,
        and is not started twice. Returns what was printed."""
        output = exported = ""
        for line in re.sub(r"\\\n\s*", "", block.text).splitlines():
            text = line
            for word, replacement in {**words, "localhost:8000": self.endpoint.address}.items():
                text = text.replace(word, replacement)
            for name in re.findall(r"\bmine-[0-9a-f]{8}\b", text):
                text = text.replace(name, self.newest_name(output))
            command = text.partition("  # ")[0].rstrip().removesuffix(" &")
            command += "".join(f" {extra}" for start, extra in more.items() if command.startswith(start))
            ready = next((ready for start, ready in UNTIL_STOPPED.items() if command.startswith(start)), None)
            if ready is not None:
                if all(server.command != exported + command for server in self.servers):
                    self.servers.append(Server(exported + command, ready, self.folder, self.environment()))
                continue
            done = self.shell(exported + command)
            allowed = (0, 3) if command.startswith("stillhouse assess mine") else codes
            assert done.returncode in allowed, f"{block.page}: {command}\n{done.stdout}{done.stderr}"
            assert "Traceback" not in done.stderr
            exported += f"{command}\n" if command.startswith("export ") else ""
            output += done.stdout
        return output

    def newest_name(self, output: str) -> str:
        """The run that was named last, or the newest run."""
        names = re.findall(r"^run (mine-\w+)", output, re.MULTILINE)
        return names[-1] if names else self.newest().name

    def newest(self, recipe: str = "mine") -> Path:
        runs = sorted((self.folder / "data" / "runs").glob(f"{recipe}-*"), key=lambda run: run.stat().st_ctime_ns)
        return runs[-1].relative_to(self.folder)

    def write(self, name: str, *rows: Mapping[str, Any]) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@contextmanager
def open_workspace(folder: Path, prefect_home: Path) -> Iterator[Workspace]:
    folder.mkdir(exist_ok=True)
    with serve_scripted_endpoint() as endpoint:
        workspace = Workspace(folder, prefect_home, endpoint, [], {})
        try:
            yield workspace
        finally:
            for server in reversed(workspace.servers):
                server.stop()


def make_conversation(number: int) -> dict[str, Any]:
    question, answer = f"Name {number} things.", f"{number} birds and {number + 1} bells."
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


SMALLEST = (
    'start = "random"', "vocabulary = 400", "hidden_size = 64", "layers = 2", "epochs = 1", "max_tokens = 256",
)  # fmt: skip
"""Of a student."""


@pytest.fixture(scope="module")
def tutorial(tmp_path_factory: pytest.TempPathFactory, prefect_home: Path) -> "Tutorial":
    return Tutorial(tmp_path_factory.mktemp("tutorial"), str(prefect_home))


class Tutorial(NamedTuple):
    """The files of docs/your-own.md in a folder, and the command to run there."""

    folder: Path
    prefect_home: str

    def write(self, block: Block) -> bool:
        """Whether the block is a file: it names itself in its first line, or the prose before it does."""
        first = block.text.splitlines()[0]
        named = re.fullmatch(r"(?:#|<!--) (at the end of )?(plain/\S+)(?: -->)?", first) or re.fullmatch(
            r"()`(plain/\S+)`:", block.before
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
        if not tutorial.write(block) and ("fake/" in block.text or "stillhouse new" in block.text) and block.commands:
            done = tutorial.run(block.text)
            assert done.returncode == 0, done.stdout + done.stderr
            output += done.stdout
    assert 0 < kept(output) < 20
    assert re.search(r"pass +plain +The answer must use short words only", output), (
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
    for block in page[: page.index(next(block for block in page if block.text == "stillhouse run plain"))]:
        tutorial.write(block)
    two_at_once = """--set 'teachers.main={model="local/smollm2-135m",max_concurrent=2}'"""
    done = tutorial.run(f"stillhouse run plain --set keep=1 {two_at_once} --runs-dir embedded")
    assert done.returncode in (0, 1), done.stdout + done.stderr
    (manifest,) = (tutorial.folder / "embedded").glob("*/manifest.json")
    state = RunDir(manifest.parent).read_manifest().state
    assert state == (RunState.partial if done.returncode else RunState.done), done.stderr
    assert kept(done.stdout) > 0


@pytest.mark.slow
@with_runs
def test_the_pages_of_the_families_run_as_written(tmp_path: Path, prefect_home: Path) -> None:
    """Of a run, a few samples; of a script's nonsense, nothing need be kept."""
    few = {"stillhouse run": "--set samples=3 --set max_failed=1.0", "stillhouse run code": "--set samples=1"}

    def page(block: Block) -> None:
        with open_workspace(tmp_path / Path(block.page).stem, prefect_home) as workspace:
            family = Path(block.page).stem.replace("-", "_")
            workspace.endpoint.script = "writer" if family == "constrained_instructions" else family
            workspace.write("mine.jsonl", *({"question": f"What is {n} + 1?", "answer": str(n + 1)} for n in range(20)))
            words = {"=PATH": f"={PROJECT / 'data' / 'documents'}"}
            rest = block.text.splitlines()[0].partition(" --set ")
            first, *others = block.text.splitlines()
            workspace.run_block(
                block._replace(text=first) if others and "…" in block.text else block, words, few, (0, 1)
            )
            if "…" in block.text:
                words = {
                    "data/runs/…": str(workspace.newest(family)) if family == "instructions" else "",
                    " …": "".join(rest[1:]),
                }
                workspace.run_block(block._replace(text="\n".join(others)), words, few, (0, 1))

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(page, select_blocks(FAMILIES)))


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
@with_students
def test_the_pages_on_training_run_as_written_with_the_smallest_student(tmp_path: Path, prefect_home: Path) -> None:
    more = " ".join(f"--set {shlex.quote(key.replace(' ', ''))}" for key in SMALLEST)

    pages = select_blocks(TRAINING)
    on_rows = [block for block in pages if "distill rows.jsonl" in block.text]
    lines = (line.partition("  # ")[0].rstrip() for block in on_rows for line in block.text.splitlines())
    together = on_rows[0]._replace(text="\n".join(dict.fromkeys(lines)))  # what two pages have runs once

    def train(block: Block) -> None:
        with open_workspace(tmp_path / str(abs(hash(block))), prefect_home) as workspace:
            for name in ("data", "rows", "more"):
                workspace.write(f"{name}.jsonl", *map(make_conversation, range(24 if name == "more" else 12)))
            workspace.write("pairs/rows.jsonl", *(
                {"prompt": turns[:1], "chosen": turns[1:], "rejected": [{"role": "assistant", "content": "No."}]}
                for turns in (make_conversation(number)["messages"] for number in range(12))
            ))  # fmt: skip
            (workspace.folder / "checks.py").write_text(OWN_CHECK)
            numbers = iter(range(9))
            text = block.text
            if block.text.count("--out small") > 1:
                text = re.sub("--out small", lambda m: f"{m[0]}{next(numbers)}", text)
            workspace.variables["PYTHON_EXEC"] = str(workspace.folder / "python")
            (workspace.folder / "python").write_text(FORKED_PYTHON)
            (workspace.folder / "python").chmod(0o755)
            workspace.run_block(block._replace(text=text), {"data/runs/…/dataset/preference": "pairs"}, {
                "stillhouse distill": f"{more} --set distillation.max_new_tokens=8", "torchrun": more,
                "stillhouse distill data.jsonl --out small1": "--set distillation.teacher=small0",  # is read in no time
                "stillhouse distill rows.jsonl --out hybrid": "--set layers=4",  # the fewest
                "stillhouse chat": "<<< Hello", "stillhouse serve": "--port 0",
            })  # fmt: skip

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(train, [together, *(block for block in pages if block not in on_rows)]))


OWN_CHECK = '''
from agents.checks import Options, Subject, check


class Limit(Options):
    limit: int


@check("mine", Limit)
def mine(subject: Subject, options: Limit) -> str | None:
    """The answer must be short."""
    return None if len(subject.candidate.answer.split()) <= options.limit else "too long"
'''


def own_recipe(*tables: str, samples: int = 48) -> str:
    """The whole recipe of docs/teachers.md, of fewer samples."""
    [text] = [block.text for block in blocks() if block.text.startswith("# mine.toml")]
    assert "samples = 500" in text
    return "\n\n".join((text.replace("samples = 500", f"samples = {samples}"), *tables)) + "\n"


def write_own_recipe(workspace: Workspace, samples: int = 48) -> None:
    """`mine.toml` with the teacher at the workspace's endpoint, which needs no look at what it writes."""
    text = own_recipe("[collapse]\ngate = false", samples=samples)
    (workspace.folder / "mine.toml").write_text(text.replace("localhost:8000", workspace.endpoint.address))


def add_endpoint(workspace: Workspace) -> None:
    """README's tables at the end of what `new` wrote, with the workspace's endpoint and the smallest student."""
    [text] = [block.text for block in blocks() if block.page == "README.md" and block.language == "toml"]
    path = workspace.folder / "mine/recipe.toml"
    fewer = path.read_text().replace("keep = 10", "keep = false")
    student = "\n".join(("[student]", *SMALLEST, "evaluation = false", "replay = false", "average = false"))
    path.write_text(f"{fewer}\n{text}\n{student}\n".replace("localhost:8000", workspace.endpoint.address))


@pytest.mark.slow
@with_students
def test_the_pages_on_the_student_of_a_run_run_as_written_and_its_servers_answer(
    tmp_path: Path, prefect_home: Path
) -> None:
    """Calibrated with a teacher at an address, so the student needs the option that names it."""
    few = {
        "stillhouse evaluate": "-n 4 --panel 4",
        "stillhouse route": "-n 20 --draws 1",
        "stillhouse serve": "--port 0 --slots 1",
    }
    [question] = select_blocks(ASK)
    with open_workspace(tmp_path / "workspace", prefect_home) as workspace:
        for block in select_blocks(STUDENT):
            for line in block.text.splitlines():
                words = {"--recipe RECIPE": "--recipe mine", "localhost:8001": workspace.endpoint.address}
                if block.page != "README.md":
                    student = workspace.newest() / "student"
                    words |= {"data/runs/NAME": str(student.parent), " DIR ": f" {student} ", "STUDENT": str(student)}
                if "FILE.gguf" in line:
                    alone = Path(line.split()[1]) / "alone.gguf"
                    (workspace.folder / alone).parent.mkdir(exist_ok=True)
                    shutil.copy(workspace.folder / student / "student-q8_0.gguf", workspace.folder / alone)
                    words["FILE.gguf"] = str(alone)
                calibrated = not {"--teacher", "--teacher-url", "--recipe", "FILE.gguf"} & {*line.split()}
                teacher = f"--teacher-url http://{workspace.endpoint.address}/v1" if calibrated else ""
                more = {**few, "stillhouse serve": f"{few['stillhouse serve']} {teacher}"}
                workspace.run_block(block._replace(text=line), words, more)
                if line.startswith("stillhouse new mine "):
                    add_endpoint(workspace)
                if workspace.servers:
                    server = workspace.servers.pop()
                    answer = json.loads(workspace.run_block(question, {"http://127.0.0.1:8000/v1": server.address}))
                    assert answer["choices"][0]["message"]["role"] == "assistant", server.command
                    assert server.stop() == 0


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
    """`keep` ends the run of 500 samples after a few. Two runs of one recipe at once would cancel the second."""
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
        blocks_there = False
        typed: set[str] = set()
        for block in rest:
            if block.text.startswith("stillhouse deploy") and not blocks_there:
                (folder / "own_blocks.py").write_text(BLOCKS)
                result = workspace.shell(forked("own_blocks"))
                assert result.returncode == 0, result.stderr
                blocks_there = True
            lines = {line.partition("  # ")[0].strip().removeprefix(".venv/bin/") for line in block.text.splitlines()}
            if lines <= typed:  # README's one line is on the page too
                continue
            typed |= lines
            for line in [block.text] if block.text.startswith("export") else block.text.splitlines():
                workspace.run_block(block._replace(text=line), words)
                if "samples=500" in line:
                    wait_until(lambda: {state(run) for run in runs_of(api)} <= ENDED, every=1)  # the server pays for it
                    assert {state(run) for run in runs_of(api)} == {"COMPLETED"}
            workspace.variables.update(PREFECT_API_URL=str(api.base_url).rstrip("/"), PREFECT_API_AUTH_STRING=password)
        assert len(runs_of(api)) == 2


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


def state(flow_run: Mapping[str, Any]) -> str:
    return str(flow_run["state_type"])


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.mark.slow
@with_students
@pytest.mark.parametrize("start", EMBEDDED)
def test_a_page_on_the_embedded_model_runs_as_written(start: str, tmp_path: Path, prefect_home: Path) -> None:
    """Of a few samples it may keep none: the command prints that, and its exit code is 0 or 1."""
    with open_workspace(tmp_path / "workspace", prefect_home) as workspace:
        for block in select_blocks([start]):
            workspace.run_block(block, more={"stillhouse": EMBEDDED[start]}, codes=(0, 1))


@pytest.mark.slow
@with_students
def test_the_default_recipe_runs_as_written_with_the_embedded_teacher_and_a_student(
    tmp_path: Path, prefect_home: Path
) -> None:
    """Small, but nothing about it is fake: llama.cpp writes, the checks decide, and a student learns and answers."""
    student = "--set student.layers=2 --set student.epochs=4 --set student.evaluation.requests=1 --set student.evaluation.panel=2"
    student += " --set student.replay.most=8 --set student.replay.share=0.1"
    sizes = f"--set keep=3 --set samples=60 --set teachers.main.max_concurrent=2 {student} --json"
    less = " || { [ $? = 1 ] && echo less; }"
    output = ""
    with open_workspace(tmp_path / "workspace", prefect_home) as workspace:
        first, second = select_blocks(DEFAULT_RECIPE)
        for line in first.text.splitlines():
            name = str(workspace.newest("constrained-instructions")) if "data/runs/NAME" in line else ""
            few = {"stillhouse preview": "-n 1", "stillhouse chat": "--max-tokens 32 <<< 'Write about bees.'"}
            block = first._replace(text=line)
            printed = workspace.run_block(
                block, {"data/runs/NAME": name}, {"stillhouse run": sizes + less, **few}, codes=(0, 1)
            )
            assert printed, line
            output = printed.strip() if line.startswith("stillhouse run") else output
        run = RunDir(workspace.folder / workspace.newest("constrained-instructions"))
        again = workspace.run_block(second, more={"stillhouse run": f"{sizes} --resume{less}"}).strip()
    manifest = run.read_manifest()
    summary, resumed = (json.loads(printed.removesuffix("less")) for printed in (output, again))
    assert [resumed[key] for key in ("run", "counts", "student")] == [
        summary[key] for key in ("run", "counts", "student")
    ]
    check_whole(run, RunState.partial if output.endswith("less") else RunState.done)
    assert summary["state"] == manifest.state
    assert manifest.counts.kept == 3, "fewer than 3 of 60 would leave none to learn from"
    passed = [sample for sample in read_finished_samples(run) if sample.state == SampleStatus.kept]
    assert all(verdict.passed for one in passed for verdict in one.verdicts if verdict.revision == one.revisions)
    assert summary["student"]["loss_after"] < summary["student"]["loss_before"]

    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(run.student)
    model = AutoModelForCausalLM.from_pretrained(run.student)
    asked = [{"role": "user", "content": "Write about bees."}]
    ids = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    answer = model.generate(**ids, max_new_tokens=5)
    assert answer.shape[1] > ids["input_ids"].shape[1]
