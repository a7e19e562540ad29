"""What commands share: the parts of the help, arguments and options, and where they print."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from agents.plan import Plan

LOOK, RUN, RESULTS, RELEASE = "Look before you run", "Run", "Look at results", "Release"
PREFECT = "Have a Prefect server do it"

RecipeArgument = Annotated[str, typer.Argument(metavar="RECIPE", help="A built-in name or a path to a .toml file.")]
InputArgument = Annotated[
    Path,
    typer.Argument(
        metavar="INPUT", help="A run, a release, a folder, or a .jsonl (also .gz, .bz2, .xz, .zst) or .parquet file."
    ),
]
StudentArgument = Annotated[
    Path, typer.Argument(metavar="STUDENT", help="The folder of a student, or a run that has one.")
]
ServedArgument = Annotated[
    Path, typer.Argument(metavar="STUDENT", help="The folder of a student, a run that has one, or a .gguf file.")
]
HeldToOption = Annotated[
    str | None,
    typer.Option("--recipe", metavar="RECIPE", help="Whose seeds and checks; those of the student's run if left out."),
]
RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="The name of a run, or its directory.")]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a key of the recipe; repeatable.")
]
RunsOption = Annotated[
    str,
    typer.Option(
        "--runs-dir", metavar="DIR", envvar="STILLHOUSE_RUNS", show_default=True,
        help="Where runs are kept: a folder, or s3://BUCKET/FOLDER.",
    ),
]  # fmt: skip
ResumeOption = Annotated[bool, typer.Option("--resume", help="Go on with the run if it is there.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Tell no progress.")]
TypeOption = Annotated[
    Literal["f32", "f16", "q8_0", "q4_0"], typer.Option("--type", help="How the weights are stored.")
]
ReferenceOption = Annotated[Path, typer.Option("--reference", help="A JSONL file of real text, one `text` a line.")]
OutOption = Annotated[Path, typer.Option("--out", help="The folder to write.")]


def say(text: str) -> None:
    print(text)


def say_json(value: Any) -> None:
    say(json.dumps(value, ensure_ascii=False))


def plan_of(recipe: str, overrides: list[str] | None) -> "Plan":
    """The recipe of this name or path with what `--set` overrides, ready to be produced."""
    from flows.recipes import load

    return load(recipe, overrides or [])
