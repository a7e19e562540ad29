"""Every command that takes a run, a student or data of others: their folders run nothing, change nothing outside, ask nobody.

The list of commands is the program's own: a new argument, or a new option that takes a value, fails here until it has a line.
"""

import io
import json
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer

from core.plugins import find_part
from flows.commands.app import app
from flows.terminal.console import SESSION
from tests.flows.commands.test_commands import called
from tests.support.lineages import OFF, make_run
from tests.support.local_hub import LocalHub, serve_local_hub

pytestmark = [pytest.mark.whole, pytest.mark.filterwarnings("ignore")]

LINES: dict[str, list[str]] = {
    "ablate": ["{given} -n 20 --arms a,h --seeds 1", "{given} -n 20 --dry-run"],
    "assess": ["{given} --out {out}", "{data} --reference {given} --out {out}"],
    "chat": ["{given}", "{given}/student", "{given}/adapted"],
    "curate": ["{given}"],
    "decisions": [
        "{given} --questions {data}/questions.toml --out {out}",
        "{data}/rows.jsonl --questions {data}/questions.toml --encoder {given}/student --out {out}",
    ],
    "disclosure": ["{given}"],
    "distill": [
        "{given} --out {out} --set epochs=1 --set start={given}/student",
        "{given} --out {given}/filled --set epochs=1 --set start={given}/adapted",
    ],
    "evaluate": ["{given} -n 20", "{given}/student -n 20", "{given}/student --data {given} -n 2"],
    "export": ["{given}", "{given}/student --data {given}", "{given}/adapted"],
    "export-env": ["{given} --out {out}"],
    "features": ["{data}/rows.jsonl --out {out} --set model={given}/adapted --set tokens=2000 --set latents=32 --set k=2"],
    "feature-gaps": ["{given} --reference {given} --features {given}/dictionary --out {out}"],
    "filter": ["{given} --out {out}", "{data} --out {out} --recipe {given}/recipe.toml", "{data} --out {given}/filled"],
    "focus": ["{given} -n 50 --out {out}.json", "{given} --by loss --out {out}.json"],
    "forecast": ["{given} -n 20 --seeds 1", "{given} -n 20 --dry-run"],
    "gaps": ["{given} --reference {given} --out {out}"],
    "import": ["{given}/log.jsonl --out {out}/log.jsonl"],
    "index": ["{given}/index --add {given}", "{given}/index"],
    "preview": ["{given}/recipe.toml -n 1"],
    "publish": ["{given} --to hf:some/where --dry-run"],
    "rebuild": ["{given}"],
    "reference": ["{given} --out {out}.parquet"],
    "release": ["{given}", "{given}/filled"],
    "report": ["{given}"],
    "review": ["{given} --no-browser", "{given}/log.jsonl --no-browser"],
    "route": ["{given} -n 20", "{given}/student -n 20", "{given}/student --recipe smoke --teacher {given}/student -n 20"],
    "selection": ["{given}"],
    "self-test": ["{given}"],
    "select": ["{given} --rows 5 --out {out} --features {given}/dictionary"],
    "serve": [f"{{given}}{folder} --port 0" for folder in ("", "/student", "/adapted", "/decisions", "/exported")],
    "show": ["{given}"],
    "validate": ["{given}/recipe.toml"],
}  # fmt: skip
"""Command lines: `given` is the folder of a run of others, `data` one of their datasets. Recipes are there as text that extends
nothing: a recipe that the user names is trusted."""

OWN_ARGUMENTS = {
    "generate": "RECIPE", "graph": "TOPOLOGY", "improve": "RECIPE", "lineage": "RECIPE", "new": "NAME",
    "plugins": "[NAME]", "rollback": "RECIPE", "run": "RECIPE", "start": "RECIPE",
    "study": "RECIPE", "pull": "hf:OWNER/NAME[@REVISION]",
}  # fmt: skip
"""Arguments that name the user's own, or what `test_publication.py` attacks: a repository of the Hub."""
STRANGERS_OPTIONS = {
    "--data",
    "--encoder",
    "--features",
    "--from",
    "--order-test",
    "--questions",
    "--reference",
    "--recipe",
    "--teacher",
    "--test",
}
"""Options that may name others' files; a line above, or a test of their own, gives them one."""
OWN_OPTIONS = set(
    """
    --add --allow-key --allow-url --arms --as --audit --budget --by --calibration --calls --check --cluster --columns
    --confidence --deployment --documents --draft --draws --eval --filters --format --from-datasketch
    --held-out --host --host-name --index --inputs --kind --labels --language --license --max-requests --max-tokens --max-usd
    --min-kept --name --ngram --notify --of --out --page --panel --parent --port --random --record --reviewer --requests --role
    --root --rows --runs-dir --samples --search --secret --seed --seeds --set --share --show-row --sign --signal --slot-tokens
    --slots --source --split --student-to --system --target --task-rows --tasks --teacher-key-env --teacher-url --temperature
    --threshold --to --to-datasketch --topologies --train --type --verify --without-teacher --workers -n
    """.split()
)
SECONDS = 1000
"""After them a command is taken to hang."""
SERVING_SECONDS = 6
SERVERS = ("review", "serve")
PROGRAM = "from pathlib import Path\nPath({mark!r}).write_text('ran')\n"
LINKED_FOLDERS = (".filters", "wip", "filled/work", "filled/.checkpoint", "student/.checkpoint", ".report.html.partial")
LINKED_FILES = (
    "lock", "reviews.jsonl", "report.html", "index/lock", "log.jsonl.reviews.jsonl", "filled/rows.jsonl",
    "student/evaluation.json", "student/student-f16.gguf",
)  # fmt: skip
KINDS = ("programs", "links", "damaged")
DAMAGED_FILES = (
    "student/evaluation.json",
    "student/routing.json",
    "plugins/features/gaps.json",
    "plugins/ablation/ablation.json",
    "index/index.json",
)


@cache
def list_parameters() -> dict[str, list[Any]]:
    """The parameters of every command, those of plugins too."""
    group = typer.main.get_command(app)
    context = typer.Context(group)
    return {name: group.get_command(context, name).params for name in group.list_commands(context)}  # type: ignore[attr-defined]


def test_every_argument_and_option_of_every_command_is_known_here() -> None:
    parameters = list_parameters()
    taking = {name for name, params in parameters.items() if any(p.param_type_name == "argument" for p in params)}
    assert taking <= LINES.keys() | OWN_ARGUMENTS.keys(), "give the new command a line above"
    for name, metavar in ((name, OWN_ARGUMENTS[name]) for name in OWN_ARGUMENTS if name in taking):
        assert metavar in [p.metavar for p in parameters[name] if p.param_type_name == "argument"]
    options = {
        p.opts[0]
        for params in parameters.values()
        for p in params
        if p.param_type_name == "option" and not p.is_flag and p.opts[0].startswith("-")
    }
    assert options <= STRANGERS_OPTIONS | OWN_OPTIONS, "say whether the new option may name files of others"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with everything that a command may look for, as its maker packs it. Made once, and copied."""
    from tests.students.conftest import opinionated, saved, tiny_llama, tiny_tokenizer

    folder = tmp_path_factory.mktemp("strangers")
    run = make_run(folder / "runs", OFF).path.rename(folder / "run")
    tokenizer = tiny_tokenizer()
    saved(opinionated(tiny_llama(len(tokenizer)), 5), tokenizer, run / "student")
    config = json.loads((run / "student/config.json").read_text())
    config["auto_map"] = {"AutoConfig": "evil.Evil", "AutoModelForCausalLM": "evil.Evil", "AutoModel": "evil.Evil"}
    (run / "student/config.json").write_text(json.dumps(config))
    shutil.copytree(run / "student", run / "adapted")
    adapter = {"base_model_name_or_path": "evil/base", "peft_type": "LORA", "r": 2, "target_modules": ["q_proj"]}
    (run / "adapted/adapter_config.json").write_text(json.dumps(adapter))
    shutil.copy(run / "student/model.safetensors", run / "adapted/adapter_model.safetensors")
    (run / "dictionary/random").mkdir(parents=True)
    (run / "index").mkdir()
    write_decision_students(run)
    if find_part("command", "features"):
        write_dictionary_files(run / "dictionary")
    (run / "recipe.toml").write_text('name = "theirs"\nextends = "smoke"\n')
    turns = [{"role": role, "content": f"Where do bees {role}?"} for role in ("user", "assistant")]
    (run / "log.jsonl").write_text((json.dumps({"messages": turns}) + "\n") * 3)
    shutil.rmtree(folder / "runs")
    return run


def write_decision_students(run: Path) -> None:
    question = {"name": "label", "ask": "Which?", "labels": ["a", "b"], "type": "one_of"}
    for name, encoder in {"decisions": "evil/encoder", "exported": "evil/exported"}.items():
        (run / name).mkdir()
        student = {"encoder": encoder, "exported": name == "exported", "questions": [question], "heads": []}
        (run / name / "decisions.json").write_text(json.dumps(student))
    write_external_graph(run / "exported/student.onnx")
    (run / "exported/tokenizer.json").write_text(
        '{"version":"1.0","model":{"type":"WordLevel","vocab":{"a":0},"unk_token":"a"}}'
    )


def write_external_graph(file: Path) -> None:
    """A graph whose weights are in `weights.bin` of the working directory."""
    from onnx import TensorProto, helper

    weights = helper.make_tensor("weights", TensorProto.FLOAT, [1, 400], bytes(1600), raw=True)
    weights.ClearField("raw_data")
    weights.data_location = TensorProto.EXTERNAL
    for key, value in {"location": "weights.bin", "offset": "0", "length": "1600"}.items():
        weights.external_data.add(key=key, value=value)
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.INT64, [1, "tokens"])
        for name in ("input_ids", "attention_mask")
    ]
    output = helper.make_tensor_value_info("text_vector", TensorProto.FLOAT, [1, 400])
    graph = helper.make_graph(
        [helper.make_node("Identity", ["weights"], ["text_vector"])], "g", inputs, [output], [weights]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    file.write_bytes(model.SerializeToString())


def write_dictionary_files(folder: Path) -> None:
    """A dictionary that reads a model of the Hub."""
    import torch

    from plugins.features.dictionaries.dictionary_files import ReaderRecord, TrainingRecord, write_dictionary
    from plugins.features.dictionaries.topk_autoencoder import TopKAutoencoder

    shutil.rmtree(folder)
    part = TopKAutoencoder(torch.ones(8, 4), torch.zeros(8), torch.ones(8, 4), torch.zeros(4), 2)
    reader = ReaderRecord(model="evil/reader", digest="0", layer=0, context=64, norm_limit=9.0)
    training = TrainingRecord(
        explained_variance=0.5, random_explained_variance=0.1, dead_share=0, documents=1, tokens=1, held_out_tokens=1,
        left_out_tokens=0, latents=8, k=2, made_from="trained", settings={},
    )  # fmt: skip
    write_dictionary(folder, part, part, reader, training)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalHub]:
    """A Hub that this process would reach."""
    import huggingface_hub.constants

    with serve_local_hub() as served:
        for name, value in served.environment(tmp_path / "hf").items():
            monkeypatch.setenv(name, value)
        constants = {"HF_HUB_OFFLINE": False, "ENDPOINT": served.url, "HF_HUB_CACHE": str(tmp_path / "hf")}
        for name, fixed in constants.items():
            monkeypatch.setattr(huggingface_hub.constants, name, fixed)
        yield served


def prepare(made: Path, folder: Path, kind: str, hub: LocalHub) -> Path:
    """The stranger's run: with programs and addresses in its recipe and next to it, or with links to what is outside, or with
    records of another form.
    """
    run = shutil.copytree(made, folder / "theirs")
    mark = folder / "outside/mark"
    for name in ("checks.py", "tools.py", "sitecustomize.py", "conftest.py", "student/evil.py"):
        (run / name).write_text(PROGRAM.format(mark=str(mark)))
    if kind == "programs":
        stored = json.loads((run / "recipe.json").read_text())
        stored["folder"] = str(run)
        stored["recipe"]["verifiers"] = [{"type": "mine", "path": "checks.py"}]
        stored["recipe"]["teachers"]["main"] |= {
            "model": "openai/m",
            "base_url": f"{hub.url}/v1",
            "api_key_env": "CANARY",
        }
        (run / "recipe.json").write_text(json.dumps(stored))
    elif kind == "damaged":
        for name in DAMAGED_FILES:
            (run / name).parent.mkdir(parents=True, exist_ok=True)
            (run / name).write_text('{"recipe": {"name": [1]}, "identity": {"sources": [1]}}')
    else:
        for name in (*LINKED_FOLDERS, *LINKED_FILES):
            path = run / name
            if path.is_dir():
                shutil.rmtree(path)
            path.unlink(missing_ok=True)
            path.parent.mkdir(exist_ok=True)
            path.symlink_to(folder / "outside" / ("file" if name in LINKED_FILES else "folder"))
    return run


def read_tree(folder: Path) -> dict[str, bytes | None]:
    return {str(path): path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"))}


def interrupt_after(seconds: float) -> None:
    """Press Ctrl-C then, as a user who ends a server."""
    signal.signal(signal.SIGALRM, lambda _number, _frame: os.kill(os.getpid(), signal.SIGINT))
    signal.setitimer(signal.ITIMER_REAL, seconds)


asked: list[str] = []
"""The hosts that this process looked up or connected to."""
watching: list[bool] = []
HERE = {"127.0.0.1", "::1", "localhost", "None", "0.0.0.0", ""}


def watch_connections(event: str, arguments: tuple[Any, ...]) -> None:
    """Record hosts, and let nothing leave this machine."""
    host = None
    if event == "socket.getaddrinfo":
        host = str(arguments[0])
    elif event == "socket.connect" and isinstance(arguments[1], tuple):
        host = str(arguments[1][0])
    if host is not None and watching:
        asked.append(host)
        if host not in HERE:
            raise ConnectionRefusedError(host)


sys.addaudithook(watch_connections)


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a dataset and weights; next to it, the folder that nothing may change."""
    (tmp_path / "outside/folder").mkdir(parents=True)
    for name in ("file", "folder/keep.txt", "folder/train.jsonl"):
        (tmp_path / "outside" / name).write_text('{"text": "keep"}\n')
    desk = tmp_path / "desk"
    (desk / "data").mkdir(parents=True)
    (desk / "data/checks.py").write_text(PROGRAM.format(mark=str(tmp_path / "outside/mark")))
    rows = [
        {"text": f"The {n}. bee left its hive early and flew over fields.", "label": "ab"[n % 2]} for n in range(60)
    ]
    (desk / "data/rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    question = '[[questions]]\nname = "label"\nask = "Which?"\nlabels = ["a", "b"]\n'
    (desk / "data/questions.toml").write_text(question)
    (desk / "weights.bin").write_bytes(bytes(1600))
    monkeypatch.chdir(desk)
    monkeypatch.setenv("CANARY", "canary-key-of-the-user")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO()))
    return desk


def call(
    line: str, given: Path, desk: Path, capsys: pytest.CaptureFixture[str], seconds: float
) -> tuple[int, str, str]:
    words = line.format(given=given, data="data", out=desk / "out").split()
    before = signal.getsignal(signal.SIGALRM)
    interrupt_after(seconds)
    watching.append(True)
    try:
        return called(capsys, *words)
    finally:
        watching.clear()
        SESSION.stop.clear()
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def list_requests(hub: LocalHub) -> list[str]:
    return [path for _method, path, _range in hub.served if "agent-harnesses" not in path]


@pytest.mark.attack(
    "any command that takes a run, a student or data gets a folder of others: own checks, a teacher's address, "
    "links in place of files and folders, code of a model, an adapter, an encoder of the Hub",
    "nothing is run, changed outside or fetched; a new command fails the test until it is listed",
)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("command", "line"),
    [
        pytest.param(name, line, id=f"{name}{i}")
        for name, lines in LINES.items()
        for i, line in enumerate(lines)
        if name in list_parameters()  # a command of a plugin is there with it
    ],
)
def test_a_folder_of_others_runs_nothing_changes_nothing_outside_and_asks_nobody(
    command: str, line: str, kind: str, made: Path, desk: Path, hub: LocalHub, capsys: pytest.CaptureFixture[str]
) -> None:
    run = prepare(made, desk.parent, kind, hub)
    before = read_tree(desk.parent / "outside")
    asked.clear()
    code, _, err = call(f"{command} {line}", run, desk, capsys, SERVING_SECONDS if command in SERVERS else SECONDS)
    assert code in ((0, 1, 2, 3, 130) if command in SERVERS else (0, 1, 2, 3)), err  # 130: it had to be interrupted
    assert read_tree(desk.parent / "outside") == before
    assert list_requests(hub) == []
    assert set(asked) <= HERE


def test_what_the_user_names_does_run_and_ask(
    made: Path, desk: Path, hub: LocalHub, capsys: pytest.CaptureFixture[str]
) -> None:
    """The control: the marks and the Hub above are seen where the user names the recipe or the model."""
    run = prepare(made, desk.parent, "programs", hub)
    recipe = (run / "recipe.toml").read_text() + '[[verifiers]]\ntype = "mine"\npath = "checks.py"\n'
    (run / "named.toml").write_text(recipe)
    call("validate {given}/named.toml", run, desk, capsys, SECONDS)
    assert (desk.parent / "outside/mark").exists()
    assert call("pull hf:evil/encoder --out {out}", run, desk, capsys, SECONDS)[0] == 2
    assert list_requests(hub) != []
