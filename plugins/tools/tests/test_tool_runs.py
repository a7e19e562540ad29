"""Runs with the user's own tools: a module in the sandbox, and MCP servers that act, fail and kill the run."""

import asyncio
import json
import signal
import sys
import threading
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from agents.studies.preview import preview_samples
from core.errors import RecipeError
from core.project_files import PROJECT
from core.sample import RejectionReason, Sample, SampleStatus
from core.storage.sample_files import read_samples
from flows.recipes.recipe_catalog import load_recipe_plan
from teachers.base import TeacherQuestion
from teachers.fake.fake_teacher import FakeTeacher
from tests.support.forked import FORKS, Program
from tests.support.scripted_teacher import ScriptedTeacher, produce_scripted

LIBRARY = Path(__file__).parent / "tool_servers" / "library_server.py"
FAKE = ["teachers.main={model='fake/tool_calls'}", "agents.critic=false", "topology.max_revisions=0"]
SERVED = """
name = "served"
family = "tool_calls"
samples = 24
max_failed = 1.0
shard_size = 8
[seeds]
[task]
none = 0
[topology]
max_revisions = 0
[agents]
critic = false
[teachers.main]
model = "fake/tool_calls"
max_concurrent = 4
extra = {{ seconds = 0.05 }}
[[tools]]
command = ["{python}", "{server}"]
env = ["CALL_LOG", "KILL_CALLS"]
seconds = 20
"""


def write_served_recipe(folder: Path) -> Path:
    recipe = folder / "served.toml"
    recipe.write_text(SERVED.format(python=sys.executable, server=LIBRARY))
    return recipe


def produce(folder: Path, name: str, kill_at: str = "") -> tuple[int, list[str], str]:
    """Make or resume the run of a folder; the exit code, the executed calls so far, and the output in one line."""
    log = folder / f"{name}.log"
    words = ["tests.support.produce_run", str(folder / name), str(folder / "served.toml")]
    run = FORKS.start(*words, CALL_LOG=str(log), KILL_CALLS=kill_at)
    output, _ = run.communicate()
    return run.wait(), log.read_text().splitlines() if log.exists() else [], " ".join(output.split())


def read_run(folder: Path) -> list[Sample]:
    return [sample for file in sorted(folder.glob("*/shards/*.parquet")) for sample in read_samples(file)]


def count_calls(sample: Sample) -> int:
    """The calls of a sample that reached the server: its schema refuses the others."""
    tools = [message for message in sample.candidate.messages if message.role == "tool"]
    return sum("there is no tool" not in message.content and "do not fit" not in message.content for message in tools)


@pytest.mark.attack(
    "a run killed in the middle of a server's call",
    "the call is not sent again, the server never outlives the run",
)
@pytest.mark.slow
def test_a_killed_run_sends_no_call_twice_and_makes_the_same_samples(tmp_path: Path) -> None:
    """The server kills the run in the middle of a call, three times. An undisturbed run is the control."""
    write_served_recipe(tmp_path)
    code, calls, errors = produce(tmp_path, "quiet")
    assert code == 0, errors
    quiet = {sample.id: sample for sample in read_run(tmp_path / "quiet")}
    assert len(quiet) == 24
    assert len(calls) == sum(map(count_calls, quiet.values())) > 24

    for _ in range(3):
        code, _, errors = produce(tmp_path, "killed", kill_at="3,11,19")
        assert code == -signal.SIGKILL, errors
    code, calls, errors = produce(tmp_path, "killed")
    assert code == 1, errors
    assert "samples could not be judged" in errors
    killed = {sample.id: sample for sample in read_run(tmp_path / "killed")}
    assert killed.keys() == quiet.keys()
    lost = {name for name, sample in killed.items() if "is not sent twice" in sample.detail}
    assert 3 <= len(lost) <= 3 * 8, "a call in flight at each kill"
    assert {killed[name].reason for name in lost} == {RejectionReason.contract}
    for name in killed.keys() - lost:
        assert killed[name].candidate == quiet[name].candidate
    executed = sum(count_calls(killed[name]) for name in killed.keys() - lost)
    assert executed <= len(calls) - 3, "each killing call was executed, and its sample is lost"
    most = executed + sum(count_calls(quiet[name]) for name in lost)
    assert len(calls) <= most, "a call that is sent twice would be one more"


@pytest.mark.slow
def test_a_killed_run_with_a_module_makes_the_same_samples(tmp_path: Path) -> None:
    """Killed twice while it writes its ledgers. An undisturbed run is the control."""
    teacher = "teachers.main={model='fake/tool_calls', max_concurrent=4, extra={seconds=0.1}}"
    settings = [teacher, *FAKE[1:], "samples=16", "shard_size=8"]

    def start(name: str) -> Program:
        return FORKS.start("tests.support.produce_run", str(tmp_path / name), "library-tools", *settings)

    def wait_for(run: Program, code: int) -> None:
        output, _ = run.communicate()
        assert run.returncode == code, output

    def count_notes() -> int:
        ledgers = (tmp_path / "killed").glob("*/wip/*.jsonl")
        return sum(b'"note"' in line for file in ledgers for line in file.read_bytes().splitlines())

    wait_for(start("quiet"), 0)
    for notes in (4, 10):  # early, since a run that ends first cannot be killed
        run = start("killed")
        while count_notes() < notes and run.poll() is None:
            time.sleep(0.02)
        run.send_signal(signal.SIGKILL)
        wait_for(run, -signal.SIGKILL)
    wait_for(start("killed"), 0)
    quiet, killed = read_run(tmp_path / "quiet"), read_run(tmp_path / "killed")
    assert len(quiet) == 16
    assert killed == quiet


def test_a_run_with_a_module_keeps_true_conversations_and_says_why_others_are_dropped(tmp_path: Path) -> None:
    plan = load_recipe_plan("library-tools", [*FAKE, "samples=14"])
    samples = produce_scripted(plan, FakeTeacher(plan.recipe.teachers["main"], "tool_calls"), tmp_path)
    states = Counter(sample.state for sample in samples)
    assert states[SampleStatus.kept] >= 5
    assert states[SampleStatus.dropped] >= 2
    for sample in samples:
        if sample.state is not SampleStatus.kept:
            assert sample.detail, sample.id
            continue
        messages = sample.candidate.messages
        for before, message in pairwise(messages):
            assert (message.role == "tool") <= (before.role in ("tool", "assistant"))
        offered = [tool["function"]["name"] for tool in sample.candidate.fields["tools"]]
        assert 2 <= len(offered) <= 4
        assert all(call.name in offered for message in messages for call in message.tool_calls)
        assert sample.usage.calls <= plan.max_calls_per_sample()
    again = produce_scripted(plan, FakeTeacher(plan.recipe.teachers["main"], "tool_calls"), tmp_path)
    assert again == samples, "from the ledger"
    (tmp_path / "anew").mkdir()
    first = load_recipe_plan("library-tools", [*FAKE, "samples=4"])
    anew = produce_scripted(first, FakeTeacher(plan.recipe.teachers["main"], "tool_calls"), tmp_path / "anew")
    assert anew == samples[:4], "a world is a function of its seed"


@pytest.mark.attack(
    "a recipe that `extends` one with tool modules or server commands",
    "never inherited, nothing runs",
)
def test_a_program_of_tools_is_never_inherited(tmp_path: Path) -> None:
    """One that names the file itself is the control."""
    (tmp_path / "mine.py").write_text("def hello() -> str:\n    'Greet.'\n    return 'hello'\n")
    base = 'name = "base"\nfamily = "tool_calls"\n[seeds]\n[[tools]]\n{source}\n'
    for source in ('module = "mine.py"', 'command = ["python", "mine.py"]'):
        (tmp_path / "base.toml").write_text(base.format(source=source))
        (tmp_path / "own.toml").write_text('name = "own"\nextends = "base.toml"\n')
        with pytest.raises(RecipeError, match=r"has the tools .*mine\.py.*, and a recipe never inherits a program"):
            load_recipe_plan(str(tmp_path / "own.toml"))
    (tmp_path / "own.toml").write_text('name = "own"\nextends = "base.toml"\n[[tools]]\nmodule = "mine.py"\n')
    plan = load_recipe_plan(str(tmp_path / "own.toml"))
    assert plan.named_files == ["mine.py"]
    before = plan.sources
    (tmp_path / "mine.py").write_text("def hello() -> str:\n    'Greet.'\n    return 'good day'\n")
    assert load_recipe_plan(str(tmp_path / "own.toml")).sources["mine.py"] != before["mine.py"]


def test_the_files_of_a_command_with_relative_paths_are_part_of_the_identity(tmp_path: Path) -> None:
    """A text that is too long for a path, as after `-c`, is no file."""
    (tmp_path / "server.py").write_text("serve = 1\n")
    command = [sys.executable, "-c", "x" * 5000, "server.py", str(tmp_path / "server.py")]
    recipe = f'name = "own"\nfamily = "tool_calls"\n[seeds]\n[[tools]]\ncommand = {json.dumps(command)}\n'
    (tmp_path / "own.toml").write_text(recipe)
    assert load_recipe_plan(str(tmp_path / "own.toml")).named_files == ["server.py"]


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        (["family='extraction'", "task={}"], "tools: only the family tool_calls takes tools, and this is extraction"),
        (["topology.kind='decentralized'"], "debaters write whole drafts and execute no tools"),
        (["scale={runner='dask', workers=1}"], "tools are executed by the run's own process"),
        (["tools=[{module='a.py', url='http://x/mcp'}]"], "needs one of `module`, `command` and `url`"),
        (["tools=[{url='http://user:secret@x/mcp'}]"], "has a user name or password"),
        (["tools=[{module='data/tools/library.py', env=['A']}]"], "`env` belongs to `command`"),
        (["tools=[{module='data/tools/library.py', only=['find']}]"], "has no tool 'find', which `only` names"),
    ],
)
def test_a_recipe_whose_tools_cannot_be_used_says_why(settings: list[str], problem: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe_plan("library-tools", [*FAKE, *settings])
    assert problem in str(caught.value)
    assert "secret" not in str(caught.value)


SHELVES = '''
def find_book(title: str) -> dict:
    """Find a book."""
    if title != "Dune":
        raise LookupError(f"there is no book {title}")
    return {"title": title, "shelf": "D4"}
'''


def make_scripted_sample(folder: Path, steps: list[dict[str, Any]], *settings: str) -> tuple[Sample, ScriptedTeacher]:
    """One sample of a teacher that asks for two books, and takes these steps, the last one again and again."""
    (folder / "shelves.py").write_text(SHELVES)
    left = list(steps)

    def answer(question: TeacherQuestion) -> str:
        if question.contract == "UserRequest":
            return json.dumps({"request": "Where are Emma and Dune?"})
        if question.contract == "FinalReply":
            return json.dumps({"reply": "Emma could not be found."})
        return json.dumps({"step": left.pop(0) if len(left) > 1 else left[0]})

    tools = f"tools=[{{module='{folder / 'shelves.py'}'}}]"
    plan = load_recipe_plan(
        "library-tools", [*FAKE, "seeds={}", "samples=1", "task.turns=[1]", "task.none=0", tools, *settings]
    )
    teacher = ScriptedTeacher(answer)
    [sample] = produce_scripted(plan, teacher, folder)
    return sample, teacher


def find(*titles: str) -> dict[str, Any]:
    return {"calls": [{"name": "find_book", "arguments": {"title": title}} for title in titles]}


def test_a_conversation_of_errors_is_dropped_and_its_rounds_are_bounded(tmp_path: Path) -> None:
    unknown = {"calls": [{"name": "lend_book", "arguments": {}}]}
    sample, teacher = make_scripted_sample(tmp_path, [unknown, find("Emma")], "task.rounds=3")
    assert [question.contract for question in teacher.asked] == ["UserRequest", *["AssistantStep"] * 3, "FinalReply"]
    results = [message.content for message in sample.candidate.messages if message.role == "tool"]
    assert results == [
        "error: there is no tool 'lend_book'; there are find_book",
        *["error: there is no book Emma"] * 2,
    ]
    assert (sample.state, sample.detail) == (SampleStatus.dropped, "tool_schema")
    (tmp_path / "other").mkdir()
    sample, _ = make_scripted_sample(tmp_path / "other", [find("Emma")], "task.rounds=1")
    assert (sample.state, sample.detail) == (SampleStatus.dropped, "tool_use")
    assert "each call failed" in sample.verdicts[-1].evidence


def test_recorded_conversations_of_a_capable_teacher_replay_with_executed_calls(tmp_path: Path) -> None:
    """With a user's own tools. Control: other worlds, in which few of the recorded flats and reports exist."""
    office = PROJECT / "benchmarks/recordings/office"
    recorded = f"seeds={{recording='{office}.jsonl'}}"

    def replay(*settings: str) -> list[Sample]:
        plan = load_recipe_plan(f"{office}.toml", ["samples=12", *settings])
        return list(asyncio.run(preview_samples(plan, 12, threading.Event())).samples)

    def keep_with_calls(samples: list[Sample]) -> list[Sample]:
        kept = [one for one in samples if one.state is SampleStatus.kept]
        return [one for one in kept if any(message.tool_calls for message in one.candidate.messages)]

    same, other = replay(), replay(recorded, "seed=50")
    assert Counter(sample.state for sample in same) == {SampleStatus.kept: 11, SampleStatus.dropped: 1}
    assert len(keep_with_calls(same)) == 9
    assert not keep_with_calls(other)
