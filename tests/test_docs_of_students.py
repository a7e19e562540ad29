"""The command blocks of pages about students run as they are written."""

import json
import re
import shlex
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from core.runs.records import RunState
from core.runs.run_dir import RunDir
from core.sample import SampleStatus
from flows.data.curated_run import read_finished_samples
from tests.support.doc_pages import (
    ASK,
    DEFAULT_RECIPE,
    EMBEDDED,
    SMALLEST,
    STUDENT,
    TRAINING,
    Block,
    Workspace,
    blocks,
    make_conversation,
    open_workspace,
    select_blocks,
)
from tests.support.forked_shell import FORKED_PYTHON
from tests.support.whole_runs import check_whole

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("docs of students")]


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


def add_endpoint(workspace: Workspace) -> None:
    """README's tables at the end of what `new` wrote, with the workspace's endpoint and the smallest student."""
    [text] = [block.text for block in blocks() if block.page == "README.md" and block.language == "toml"]
    path = workspace.folder / "mine/recipe.toml"
    fewer = path.read_text().replace("keep = 10", "keep = false")
    student = "\n".join(("[student]", *SMALLEST, "evaluation = false", "replay = false", "average = false"))
    path.write_text(f"{fewer}\n{text}\n{student}\n".replace("localhost:8000", workspace.endpoint.address))


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


@pytest.mark.parametrize("start", EMBEDDED)
def test_a_page_on_the_embedded_model_runs_as_written(start: str, tmp_path: Path, prefect_home: Path) -> None:
    """Of a few samples it may keep none: the command prints that, and its exit code is 0 or 1."""
    with open_workspace(tmp_path / "workspace", prefect_home) as workspace:
        for block in select_blocks([start]):
            workspace.run_block(block, more={"stillhouse": EMBEDDED[start]}, codes=(0, 1))


def test_the_default_recipe_runs_as_written_with_the_embedded_teacher_and_a_student(
    tmp_path: Path, prefect_home: Path
) -> None:
    """Small, but nothing about it is fake: llama.cpp writes, the checks decide, and a student learns and answers."""
    student = "--set student.layers=2 --set student.epochs=4 --set 'student.evaluation={requests=1,panel=0}'"
    student += (
        " --set student.replay.most=8 --set student.replay.share=0.1 --set 'task.kinds={no_digits=1,no_exclamation=1}'"
    )
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
