"""Fenced blocks of README and docs, which of them run in tests, and a folder in which they run as they are written."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from core.project_files import PROJECT
from tests.support.forked import FORKS
from tests.support.forked_shell import forked, run_shell
from tests.support.scripted_endpoint import Endpoint, serve_scripted_endpoint
from tests.support.waiting import wait_until

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
    "plugins/reinforcement/README.md: stillhouse run": "plugins/reinforcement/tests/test_grpo_step.py runs a tiny student",
    "plugins/forms/README.md: vllm": "needs vLLM; plugins/forms/tests/test_prompt_logprobs.py asks a stand-in",
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
    "plugins/improve/README.md: stillhouse improve": (
        "hundreds of drafts; plugins/improve/tests/test_improve_command.py makes some"
    ),
    "plugins/rebuild/README.md: stillhouse run": "plugins/rebuild/tests/test_rebuild.py makes releases again",
    "plugins/rebuild/README.md: stillhouse rebuild": "plugins/rebuild/tests/test_held_out.py trains a student again",
    "plugins/focus/README.md: stillhouse focus": (
        "plugins/focus/tests/test_focus_command.py runs both, with a smaller student"
    ),
    "plugins/disclosure/README.md: stillhouse run": "plugins/disclosure/tests/ makes such runs",
    "plugins/ablation/README.md: stillhouse ablate": (
        "it trains a student for each arm; plugins/ablation/tests/test_ablation.py runs a smaller one"
    ),
    "plugins/references/README.md: stillhouse reference": (
        "the self-test takes minutes; plugins/references/tests/test_reference_preparation.py runs smaller ones"
    ),
}  # fmt: skip
"""By the beginning of page and first line, the reason why a block of commands is not run here."""
FAMILIES = (
    "plugins/code/README.md: ", "plugins/conversations/README.md: ",
    "docs/extraction.md: stillhouse", "docs/grounded-qa.md: ", "docs/instructions.md: ", "plugins/math/README.md: ",
    "plugins/tools/README.md: ",
)  # fmt: skip
DATASETS = (
    "README.md: stillhouse filter",
    "plugins/interop/README.md: stillhouse skill", "plugins/interop/README.md: stillhouse export-env",
    "docs/extraction.md: python", "docs/filters.md: stillhouse filter", "docs/filters.md: stillhouse index",
    "plugins/study/README.md: stillhouse study topology-study", "plugins/languages/README.md: stillhouse checks",
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
REAL_CASE = ("docs/real-case.md: ",)
RUN = (
    *FAMILIES, *DATASETS, *TRAINING, *STUDENT, *ASK, *OWN_RECIPE, *CLUSTER, *OBJECT_STORE, *SERVER, *EMBEDDED,
    *DEFAULT_RECIPE, *TUTORIAL, *YOUR_DATA, *REAL_CASE,
)  # fmt: skip
"""Blocks that a test here runs, by the same beginnings."""


def select_blocks(known: Sequence[str]) -> list[Block]:
    """Their blocks, in the order of `known`."""
    return [block for entry in known for block in blocks() if block.commands and block.key.startswith(entry)]


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
                pass_fds=[FORKS.requests.fileno()], start_new_session=True, stdout=log, stderr=subprocess.STDOUT,
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


def own_recipe(*tables: str, samples: int = 48) -> str:
    """The whole recipe of docs/teachers.md, of fewer samples."""
    [text] = [block.text for block in blocks() if block.text.startswith("# mine.toml")]
    assert "samples = 500" in text
    return "\n\n".join((text.replace("samples = 500", f"samples = {samples}"), *tables)) + "\n"


def write_own_recipe(workspace: Workspace, samples: int = 48) -> None:
    """`mine.toml` with the teacher at the workspace's endpoint, which needs no look at what it writes, and with rules that its
    nonsense can follow."""
    kinds = "[task.kinds]\nno_digits = 1\nno_commas = 1\nmax_words = 1\nno_exclamation = 1"
    text = own_recipe(kinds, "[collapse]\ngate = false", samples=samples)
    (workspace.folder / "mine.toml").write_text(text.replace("localhost:8000", workspace.endpoint.address))
