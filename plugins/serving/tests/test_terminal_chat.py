"""`stillhouse chat` as a user starts it: a process of its own, fed by a pipe or a terminal, with a tiny student."""

import json
import os
import pty
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from core.config.students import StudentConfig
from core.project_files import PROJECT
from core.runs.run_dir import open_run
from core.storage.atomic_files import write_json
from core.thinking import find_thinking_tag, split_thinking
from flows.recipes.recipe_catalog import load_recipe_plan
from plugins.serving.cascade.terminal_chat import ChatSettings, choose_chat_settings, find_chat_student
from plugins.serving.torch_replies import StudentTextGenerator
from students.training.student_training import train_student
from tests.flows.commands.test_commands import called
from tests.students.conftest import conversations, one_thread, quiet, saved, tiny_llama, tiny_tokenizer
from tests.support.forked import FORKS

pytestmark = pytest.mark.usefixtures(one_thread.__name__)

ENTRY = [sys.executable, "-m", "stillhouse", "chat"]
ASKED = "Write about rivers."


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One that has learned to say what it likes."""
    folder, tokenizer = tmp_path_factory.mktemp("chat"), tiny_tokenizer()
    start = saved(tiny_llama(len(tokenizer)), tokenizer, folder / "start")
    config = StudentConfig(start=str(start), epochs=60, learning_rate=3e-3, batch_size=4, max_tokens=64)
    train_student(conversations()[:9], config, folder / "student", seed=7, progress=quiet, held_out=conversations()[9:])
    return folder / "student"


def talk(student: Path, *options: str, lines: str) -> tuple[int, str, str]:
    done = FORKS.run("stillhouse", "chat", str(student), *options, typed=lines)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.slow
def test_each_line_of_a_pipe_is_a_turn_and_replies_are_alone_on_stdout(student: Path) -> None:
    code, out, err = talk(student, "--temperature", "0", "--max-tokens", "12", lines=f"{ASKED}\n\n")
    assert code == 0, err
    assert out.startswith("I like "), "what it was trained to say"
    assert out.endswith("\n")
    assert "chat: loading" in err
    assert "Traceback" not in err
    code, again, err = talk(student, "--temperature", "0", "--max-tokens", "12", "-q", lines=ASKED)
    assert (code, again, err) == (0, out, ""), "a last line without its end is a turn too"
    code, found, _ = talk(
        student, "--json", "--system", "You are small.", "--temperature", "0", "--max-tokens", "12", lines=f"{ASKED}\nMore?\n"
    )  # fmt: skip
    turns = json.loads(found)["turns"]
    assert [turn["role"] for turn in turns] == ["system", "user", "assistant", "user", "assistant"]
    assert turns[2]["content"] == out.strip()


def press_until_ended(terminal: int, key: bytes, process: "subprocess.Popen[bytes]") -> None:
    """Python's readline misses a signal that arrives between its prompt and its wait for input; a user presses the key again."""
    while process.poll() is None:
        os.write(terminal, key)
        with suppress(subprocess.TimeoutExpired):
            process.wait(10)


@pytest.mark.slow
def test_a_terminal_has_a_prompt_and_ctrl_d_or_ctrl_c_end_it(student: Path) -> None:
    for key, code in ((b"\x04", 0), (b"\x03", 130)):
        main, side = pty.openpty()
        process = subprocess.Popen(
            [*ENTRY, str(student), "--max-tokens", "8", "-q"], cwd=PROJECT, stdin=side, stdout=side, stderr=subprocess.PIPE,
            start_new_session=True, preexec_fn=lambda: __import__("fcntl").ioctl(0, __import__("termios").TIOCSCTTY, 0),
            env={**os.environ, "TERM": "dumb"},
        )  # fmt: skip
        os.close(side)
        seen = b""
        while not seen.endswith(b"> "):
            seen += os.read(main, 1)
        os.write(main, ASKED.encode() + b"\n")
        seen = b""
        while not seen.endswith(b"\n> "):
            seen += os.read(main, 1)
        press_until_ended(main, key, process)
        _, err = process.communicate()
        os.close(main)
        assert process.returncode == code, err
        assert b"Traceback" not in err


@pytest.mark.slow
def test_ctrl_c_while_the_student_loads_ends_it(student: Path) -> None:
    process = subprocess.Popen(
        [*ENTRY, str(student)], cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )  # fmt: skip
    assert process.stderr is not None
    assert "chat: loading" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate()
    assert (process.returncode, out) == (130, ""), err
    assert "Traceback" not in err


INTERRUPTED_LOOP = """
import asyncio, os, signal, sys
from flows.cli import main
make_pipe = asyncio.SelectorEventLoop._make_self_pipe
def make_pipe_interrupted(loop):
    os.kill(os.getpid(), signal.SIGINT)
    make_pipe(loop)
asyncio.SelectorEventLoop._make_self_pipe = make_pipe_interrupted
sys.argv[0] = "stillhouse"
main()
"""


@pytest.mark.slow
def test_ctrl_c_while_the_event_loop_is_made_ends_it_without_a_traceback(student: Path) -> None:
    command = [sys.executable, "-c", INTERRUPTED_LOOP, "chat", str(student)]
    done = subprocess.run(command, cwd=PROJECT, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (130, ""), done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture(scope="module")
def thinking_student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One that has learned to think of its topic before it says what it likes."""
    folder, tokenizer = tmp_path_factory.mktemp("thinks"), tiny_tokenizer()
    start = saved(tiny_llama(len(tokenizer)), tokenizer, folder / "start")
    config = StudentConfig(start=str(start), epochs=80, learning_rate=3e-3, batch_size=4, max_tokens=96)
    rows = [
        [asked, answered.model_copy(update={"reasoning": f"I think of {answered.content.split()[2]}"})]
        for asked, answered in conversations()
    ]
    train_student(rows[:9], config, folder / "student", seed=7, progress=quiet, held_out=rows[9:])
    return folder / "student"


@pytest.mark.slow
def test_a_student_trained_on_thinking_thinks_and_only_its_answer_is_said(thinking_student: Path) -> None:
    torch = StudentTextGenerator(thinking_student).generate_reply([{"role": "user", "content": ASKED}], 0, 1.0, 60)
    assert torch.startswith("<think>\nI think of "), "it learned to"
    thinking, answer, _ = split_thinking(torch)
    assert answer.startswith("I like ")
    options = ("--temperature", "0", "--max-tokens", "60", "-q")
    code, out, err = talk(thinking_student, *options, lines=ASKED)
    assert code == 0, err
    assert find_thinking_tag(out) is None
    assert out.strip() == answer, "llama.cpp, from the exported file"
    _, shown, _ = talk(thinking_student, *options, "--thinking", lines=ASKED)
    assert shown.split() == [*f"<think> {thinking} </think>".split(), *answer.split()]
    code, out, err = talk(thinking_student, "--temperature", "0", "--max-tokens", "16", "-q", lines=ASKED)
    assert (code, out) == (1, "")
    assert "the student was still thinking after 16 tokens; raise --max-tokens" in err


def test_a_run_without_a_student_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = load_recipe_plan("smoke")
    run = open_run(tmp_path, plan.recipe, plan.sources, folder=plan.folder, resume=False)
    for name, more in ((str(run.path), []), (run.name, ["--runs-dir", str(tmp_path)])):
        code, out, err = called(capsys, "chat", name, *more)
        assert (code, out) == (2, "")
        assert err.startswith(f"error: {name}: this run has no student; train one with `stillhouse distill ")
    code, out, err = called(capsys, "chat", "nothing", "--runs-dir", str(tmp_path))
    assert (code, out) == (2, "")
    assert f"nothing: no run of this name; {tmp_path} has {run.name}" in err
    code, _, err = called(capsys, "chat", "none.gguf")
    assert (code, err) == (2, "error: none.gguf: there is no such file\n")


def test_a_runs_student_is_asked_as_in_its_evaluation(tmp_path: Path) -> None:
    plan = load_recipe_plan("smoke", ["agents.generator.temperature=0.25", "agents.generator.max_tokens=77"])
    run = open_run(tmp_path, plan.recipe, plan.sources, folder=plan.folder, resume=False)
    write_json(run.student / "config.json", {})
    found = find_chat_student(Path(run.name), str(tmp_path))
    assert found.folder == run.student
    assert choose_chat_settings(found, None, None, None) == ChatSettings(None, 0.25, 77)
    assert choose_chat_settings(found, "Be kind.", 0.0, 9) == ChatSettings("Be kind.", 0.0, 9)
