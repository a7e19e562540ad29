"""The package of docs/plugins.md, built, installed and used through the command line; and plugins that are wrong."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import polars as pl
import pytest

from core.project_files import PROJECT
from tests.support.forked import FORKS
from tests.support.installed_plugins import install_plugin

PAGE = (PROJECT / "docs" / "plugins.md").read_text()
NAME = re.compile(r"# ([\w./]+\.(?:py|toml))$")


def test_the_page_shows_the_files_of_the_package() -> None:
    shown = [block.partition("\n") for block in re.findall(r"^```\w*\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)]
    files = {name[1]: text for head, _, text in shown if (name := NAME.match(head))}
    assert len(files) > 4
    for name, text in files.items():
        assert text in (PROJECT / "docs" / "extras" / name).read_text(), name


@pytest.fixture(scope="module")
def extras(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the page's package, and the installed package in `site`."""
    folder = tmp_path_factory.mktemp("extras")
    shutil.copytree(PROJECT / "docs" / "extras", folder, dirs_exist_ok=True)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--target", str(folder / "site"), str(folder)], check=True)
    return folder


@pytest.fixture(scope="module")
def prefect_home(prefect_home: Path) -> Iterator[Path]:
    """Of all commands here."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("PREFECT_HOME", str(prefect_home))
        yield prefect_home


def run_command(folder: Path, *words: str, code: int = 0, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    """`stillhouse` in `folder`, with the packages in `path`."""
    places = [str(PROJECT), *([str(path)] if path else [])]
    done = FORKS.run("stillhouse", *words, folder=folder, PYTHONPATH=os.pathsep.join(places))
    assert done.returncode == code, done.stdout + done.stderr
    return done


ROWS = [
    {"text": "Bees make honey from the nectar of flowers. Let me know if you need more!"},
    {"text": "Bees make honey from the nectar of flowers."},
]


def write_rows(folder: Path, rows: list[dict[str, Any]] = ROWS) -> None:
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_an_installed_filter_drops_rows_and_its_settings_are_validated(extras: Path, tmp_path: Path) -> None:
    write_rows(tmp_path)
    [command] = re.findall(r"^stillhouse (filter .+)$", PAGE, re.MULTILINE)
    run_command(tmp_path, *command.split(), path=extras / "site")
    dropped = pl.read_parquet(tmp_path / "clean" / "dropped.parquet")
    assert dropped.select("reason", "detail").rows() == [("boilerplate", "ends with 'Let me know if'")]
    lenient = 'filters=[{type="sign_off",last_words=2}]'
    done = run_command(
        tmp_path, "filter", "rows.jsonl", "--out", "all", "--set", lenient, "--json", path=extras / "site"
    )
    assert json.loads(done.stdout)["counts"]["kept"] == 2
    wrong = ["filter", "rows.jsonl", "--out", "wrong", "--set", 'filters=[{type="sign_off",last_word=2}]']
    fault = run_command(tmp_path, *wrong, code=2, path=extras / "site").stderr
    assert "filters.0.last_word: unknown key, did you mean `last_words`?" in fault
    text = run_command(
        tmp_path, *wrong[:-1], 'filters=[{type="sign_off",last_words="x"}]', code=2, path=extras / "site"
    )
    assert "filters.0.last_words: input should be a valid integer" in text.stderr


def test_without_its_package_a_name_is_unknown(tmp_path: Path) -> None:
    write_rows(tmp_path)
    done = run_command(tmp_path, "filter", "rows.jsonl", "--out", "clean", "--filters", "sign_of", code=2)
    assert "filters.0.type: unknown filter 'sign_of'; known are length, refusal," in done.stderr
    assert not (tmp_path / "clean").exists()


class Ollama(BaseHTTPRequestHandler):
    """The part of Ollama's API that the page uses, with a definition that ends with an exclamation mark for `storm`."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert self.path == "/api/chat"
        assert body["format"]["required"] == ["definition"]
        term = re.findall(r"Define (\w+)", body["messages"][-1]["content"])[0]
        mark = "!" if term == "storm" else "."
        answer = {"definition": f"A {term} is a thing that people call {term}{mark}"}
        reply = json.dumps(
            {
                "message": {"role": "assistant", "content": json.dumps(answer)},
                "done_reason": "stop",
                "prompt_eval_count": 12,
                "eval_count": 9,
            }
        ).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(reply)))
        self.end_headers()
        self.wfile.write(reply)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def ollama() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Ollama) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@pytest.mark.slow
@pytest.mark.waits
def test_a_run_uses_an_installed_family_check_filter_and_protocol(
    extras: Path, ollama: str, tmp_path: Path, prefect_home: Path
) -> None:
    """The page's recipe. Of four answers, the check refuses the one with an exclamation mark, with every revision."""
    shutil.copy(extras / "words.toml", tmp_path)
    shutil.copy(extras / "words.jsonl", tmp_path)
    here = ["--set", f"teachers.main.base_url={ollama}"]
    commands = re.findall(r"^stillhouse (.+ words\.toml)$", PAGE, re.MULTILINE)
    assert [command.split()[0] for command in commands] == ["validate", "run"]
    run_command(tmp_path, *commands[0].split(), *here, path=extras / "site")
    run_command(tmp_path, *commands[0].split(), *here, "--set", "verifiers.0.most=1", path=extras / "site")
    wrong = run_command(
        tmp_path, *commands[0].split(), "--set", "verifiers.0.mots=1", code=2, path=extras / "site"
    ).stdout
    assert "verifiers.0.mots: unknown key, did you mean `most`?" in wrong
    run_command(tmp_path, *commands[1].split(), *here, "--runs-dir", "runs", path=extras / "site")
    [recipe_file] = (tmp_path / "runs").glob("*/recipe.json")
    sources = json.loads(recipe_file.read_text())["identity"]["sources"]
    extensions = {name: text.rpartition(" ")[0] for name, text in sources.items() if text.startswith("extras ")}
    assert extensions == dict.fromkeys(
        ["family definitions", "check calm", "filter sign_off", "protocol ollama"], "extras 1.0"
    )
    assert {"prompts/definitions/generator.md", "prompts/definitions/revise.md"} <= sources.keys()
    rows = pl.read_parquet(next(recipe_file.parent.glob("dataset/**/*train*.parquet")))
    manifest = json.loads((recipe_file.parent / "manifest.json").read_text())
    assert manifest["counts"]["kept"] == 3
    assert "storm" not in str(rows.to_dicts())
    history = run_command(tmp_path, "show", str(recipe_file.parent), "3", path=extras / "site").stdout
    assert "has 1 exclamation marks, over 0" in history
    # The workers of a cluster make the same samples, in processes that find the package by themselves.
    cluster = ["--set", "scale={runner='dask',workers=1}", "--runs-dir", "elsewhere"]
    run_command(tmp_path, *commands[1].split(), *here, *cluster, path=extras / "site")
    [other] = (tmp_path / "elsewhere").glob("*/manifest.json")
    assert json.loads(other.read_text())["counts"] == manifest["counts"]
    assert other.parent.name == recipe_file.parent.name
    # Control: without the package the same commands say what is missing, and run nothing.
    gone = run_command(tmp_path, "validate", "words.toml", code=2).stdout
    assert "filters.0.type: unknown filter 'sign_off'" in gone
    again = run_command(tmp_path, "report", str(recipe_file.parent), code=2).stderr
    assert "unknown filter 'sign_off'" in again
    assert "install the package that has it" in again


FILTER = """from typing import Literal
from stillhouse import Filter


class Mine(Filter):
    about = "removes everything"
    type: Literal["mine"]

    def apply(self, documents, folder):
        return [self.drop(document, "all") for document in documents]


class Bare(Filter):
    about = "removes nothing"
    type: Literal["bare"]


class Loud(Mine):
    type: Literal["loud"]

    def apply(self, documents, folder):
        return [self.drop(document, "all") for document in documents] * 2


class Torn(Mine):
    type: Literal["torn"]

    def apply(self, documents, folder):
        return 1 / 0
"""


@pytest.mark.parametrize(
    ("name", "fault", "code"),
    [
        ("mine", "", 0),
        ("other", "the filter 'other' of odd 1.0 calls itself 'mine'", 2),
        ("exact", "odd 1.0 offers a filter 'exact', which is the name of a built-in filter", 2),
        ("bare", "has no method apply, which a class derived from stillhouse.Filter needs", 2),
        ("number", "the filter 'number' of odd 1.0 is no class derived from stillhouse.Filter", 2),
        ("lost", "the filter 'lost' of odd 1.0 cannot be imported: ModuleNotFoundError: No module named", 2),
        ("loud", "the filter 'loud' of odd 1.0 returned a document twice", 1),
        ("torn", "the filter 'torn' of odd 1.0 broke (odd.py, line 29): ZeroDivisionError: division by zero", 1),
        ("twice", "odd 1.0 and odder 2.0 both offer a filter 'twice'", 2),
    ],
)
def test_an_extension_that_cannot_be_used_costs_one_sentence(name: str, fault: str, code: int, tmp_path: Path) -> None:
    """The first is a control: the same package with a filter that is right."""
    objects = {"other": "Mine", "exact": "Mine", "number": "__name__", "twice": "Mine"}
    value = "nowhere:Lost" if name == "lost" else f"odd:{objects.get(name, name.title())}"
    install_plugin(tmp_path / "site", "odd", FILTER, ("filter", name, value))
    if name == "twice":
        install_plugin(tmp_path / "site", "odder", FILTER, ("filter", name, value), "2.0")
    write_rows(tmp_path)
    words = ["filter", "rows.jsonl", "--out", "clean", "--filters", name, "--min-kept", "0"]
    done = run_command(tmp_path, *words, code=code, path=tmp_path / "site")
    assert fault in done.stderr
    assert "Traceback" not in done.stderr
    if code:
        assert done.stderr.count("\n") <= 3
    else:
        assert json.loads((tmp_path / "clean" / "report.json").read_text())["counts"]["kept"] == 0


PAIRS = """from typing import Literal
import numpy as np
from stillhouse import DuplicateMatches, PairFilter, RaggedArray


class Initials(PairFilter):
    type: Literal["initials"]
    broken: bool = False

    def sketch(self, documents):
        letters = np.array([ord(document.text[0]) for document in documents], dtype=np.uint64)
        return RaggedArray(letters, np.arange(len(documents) + 1 - self.broken))

    def find_repeats(self, sketches, folder):
        _, first, which = np.unique(sketches.values, return_index=True, return_inverse=True)
        repeated = np.flatnonzero(first[which] != np.arange(which.size))
        return DuplicateMatches(repeated, first[which][repeated], np.ones(repeated.size))

    def explain(self, similarity, original):
        return f"begins as {original} does"
"""


def test_a_filter_of_a_plugin_compares_documents(tmp_path: Path) -> None:
    install_plugin(tmp_path / "site", "pairs", PAIRS, ("filter", "initials", "pairs:Initials"))
    rows = ["An apple.", "Bread.", "A whole pear.", "Beans."]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in rows))
    words = ["filter", "rows.jsonl", "--out"]
    run_command(tmp_path, *words, "first", "--filters", "initials", path=tmp_path / "site")
    assert (tmp_path / "first" / "kept.jsonl").read_text() == "".join(
        json.dumps({"text": text}) + "\n" for text in rows[:2]
    )
    longest = ["--set", "filters=[{type='initials',keep='longest'}]"]
    run_command(tmp_path, *words, "longest", *longest, path=tmp_path / "site")
    kept = (tmp_path / "longest" / "kept.jsonl").read_text().splitlines()
    assert [json.loads(line)["text"] for line in kept] == ["Bread.", "A whole pear."]
    broken = ["--set", "filters=[{type='initials',broken=true}]"]
    fault = run_command(tmp_path, *words, "none", *broken, code=1, path=tmp_path / "site").stderr
    assert "the filter 'initials' of pairs 1.0 returned 3 sketches of 4 documents; leave it out" in fault


@pytest.mark.attack(
    "a recipe names an extension: another module or object, a built-in name, a module that writes when imported",
    "only the part of that name is imported, and the declarations of installed packages; built-in names cannot be "
    "replaced",
)
def test_only_the_part_that_is_named_is_imported(tmp_path: Path) -> None:
    """A module that writes a file when it is imported: another recipe, and a name that is not a part, leave it alone."""
    install_plugin(
        tmp_path / "site",
        "odd",
        f"open({str(tmp_path / 'imported')!r}, 'w').close()\n" + FILTER,
        ("filter", "mine", "odd:Mine"),
    )
    write_rows(tmp_path)
    command = ["filter", "rows.jsonl", "--out"]
    run_command(tmp_path, *command, "plain", "--filters", "exact", path=tmp_path / "site")
    run_command(tmp_path, *command, "none", "--filters", "odd:Mine", code=2, path=tmp_path / "site")
    run_command(tmp_path, *command, "none", "--filters", "odd", code=2, path=tmp_path / "site")
    assert not (tmp_path / "imported").exists()
    run_command(tmp_path, *command, "mine", "--filters", "mine", "--min-kept", "0", path=tmp_path / "site")
    assert (tmp_path / "imported").exists()


def test_a_declaration_that_cannot_be_used_leaves_its_plugin_out(tmp_path: Path) -> None:
    """Other names work as before; a message about an unknown name says why the plugin is missing."""
    write_rows(tmp_path)
    install_plugin(tmp_path / "site", "odd", FILTER, ("filter", "mine", "odd:Mine"), entry_point="strange")
    run_command(tmp_path, "filter", "rows.jsonl", "--out", "all", "--filters", "exact", path=tmp_path / "site")
    words = ["filter", "rows.jsonl", "--out", "clean", "--filters", "mine"]
    misnamed = run_command(tmp_path, *words, code=2, path=tmp_path / "site").stderr
    assert "unknown filter 'mine'" in misnamed
    assert "the plugin 'strange' of odd 1.0 calls itself 'odd'" in misnamed
    (tmp_path / "site" / "odd_plugin.py").write_text("import nowhere")
    broken = run_command(tmp_path, *words, code=2, path=tmp_path / "site").stderr
    assert "the plugin 'strange' of odd 1.0 cannot be imported: ModuleNotFoundError" in broken


def test_another_version_of_a_filter_does_not_continue_the_result_of_the_first(tmp_path: Path) -> None:
    write_rows(tmp_path)
    install_plugin(tmp_path / "site", "odd", FILTER, ("filter", "mine", "odd:Mine"))
    command = ["filter", "rows.jsonl", "--out", "clean", "--filters", "mine", "--min-kept", "0"]
    run_command(tmp_path, *command, path=tmp_path / "site")
    run_command(tmp_path, *command, path=tmp_path / "site")  # control: the same version does
    for number, (code, version) in enumerate([(FILTER + "\n", "1.0"), (FILTER, "1.1")]):
        install_plugin(tmp_path / f"site{number}", "odd", code, ("filter", "mine", "odd:Mine"), version)
        done = run_command(tmp_path, *command, code=2, path=tmp_path / f"site{number}")
        assert "contains the result of another input, other filters or other reviews" in done.stderr


def test_an_installed_filter_runs_in_several_processes(extras: Path, tmp_path: Path) -> None:
    write_rows(tmp_path, [{"text": f"{row['text']} {number} {'x' * 900}"} for number in range(5_000) for row in ROWS])
    run_command(
        tmp_path, "filter", "rows.jsonl", "--out", "clean", "--filters", "sign_off", "--workers", "2",
        "--set", 'filters.0.last_words=14', path=extras / "site",
    )  # fmt: skip
    report = json.loads((tmp_path / "clean" / "report.json").read_text())
    assert (report["workers"], report["counts"]["kept"]) == (2, 5_000)


PROGRAM = """
import json
from typing import Literal

import stillhouse


@stillhouse.register
class NoWord(stillhouse.Filter):
    about = "removes texts with a word"
    type: Literal["no_word"]
    word: str

    def apply(self, documents, folder):
        return [self.drop(document, f"has {self.word}") for document in documents if self.word in document.text]


@stillhouse.register
@stillhouse.check("tidy")
def tidy(subject, options):
    \"\"\"Passes.\"\"\"


kept = []
for word in ("zyxw", "e"):
    settings = {
        "samples": 6,
        "collapse.reference": False,
        "verifiers": [{"type": "tidy"}],
        "filters": [{"type": "no_word", "word": word}],
    }
    run = stillhouse.generate("smoke", settings=settings, runs_dir="runs")
    kept.append(run.manifest.counts.kept)
print(json.dumps(kept))
"""


@pytest.mark.slow
@pytest.mark.waits
def test_a_run_of_a_program_uses_what_it_registered(tmp_path: Path, prefect_home: Path) -> None:
    """The filter drops all samples of the second run, and none of the first, a control."""
    (tmp_path / "program.py").write_text(PROGRAM)
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    done = subprocess.run([sys.executable, "program.py"], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    first, second = json.loads(done.stdout)
    assert first > 0
    assert second == 0
