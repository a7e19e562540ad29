"""Arguments, options and help panels that commands share, and the functions that print results."""

import json
from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from core.plugins import list_offered_names
from core.shared_options import DataKind, GgufType

TRY_PANEL = "Try it"
MAKE_PANEL = "Make a dataset"
CLEAN_PANEL = "Clean and assess"
STUDENT_PANEL = "Train and use a student"
RELEASE_PANEL = "Release and schedule"

RecipeArgument = Annotated[
    str, typer.Argument(metavar="RECIPE", help="A built-in name, a .toml file, or a folder with a recipe.toml.")
]
INPUT_HELP = (
    "A run, a release, a folder, or a .jsonl, .json, .csv or .tsv (also .gz, .bz2, .xz, .zst), .parquet or .arrow file."
)
InputArgument = Annotated[Path, typer.Argument(metavar="INPUT", help=INPUT_HELP)]
StudentArgument = Annotated[
    Path, typer.Argument(metavar="STUDENT", help="The folder of a student, or a run that has one.")
]
ServedStudentArgument = Annotated[
    Path, typer.Argument(metavar="STUDENT", help="The folder of a student, a run that has one, or a .gguf file.")
]
RecipeOption = Annotated[
    str | None,
    typer.Option(
        "--recipe",
        metavar="RECIPE",
        help="The recipe whose seeds and checks are used; default: that of the student's run. Its checks are executed.",
    ),
]
RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="The name of a run, or its directory.")]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a key of the recipe; repeatable.")
]
RunsOption = Annotated[
    str,
    typer.Option(
        "--runs-dir", metavar="DIR", envvar="STILLHOUSE_RUNS", show_default=True,
        help="Where runs are stored: a folder, or s3://BUCKET/FOLDER.",
    ),
]  # fmt: skip
ResumeOption = Annotated[bool, typer.Option("--resume", help="Resume the run if it exists.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Print no progress.")]
GGUF_TYPES = ", ".join([*get_args(GgufType), *list_offered_names("gguf")])
TypeOption = Annotated[
    str, typer.Option("--type", metavar="TYPE", help=f"The number format of the weights: {GGUF_TYPES}.")
]
ReferenceOption = Annotated[
    str,
    typer.Option(
        "--reference", metavar="REF", help="Real text: a file of `reference`, a dataset, or the name `python`."
    ),
]
OptionalReferenceOption = Annotated[
    str | None,
    typer.Option(
        "--reference",
        metavar="REF",
        help="Real text of the same kind: a file of `reference`, a dataset, or the name `python`. Without it, only repetition is "
        "measured.",
        show_default=False,
    ),
]
KindOption = Annotated[
    DataKind | None,
    typer.Option("--kind", help="What the texts are; default: found from them.", show_default=False),
]
ColumnsOption = Annotated[
    str | None,
    typer.Option(
        "--columns", metavar="WHAT=COLUMN,...",
        help="Which columns hold what, as in user=question,assistant=answer; default: known names.", show_default=False,
    ),
]  # fmt: skip
OutOption = Annotated[Path, typer.Option("--out", help="The folder to write.")]
OptionalOutOption = Annotated[Path | None, typer.Option("--out", help="The folder to write.")]


def print_text(text: str) -> None:
    print(text)


def print_json(value: Any) -> None:
    print_text(json.dumps(value, ensure_ascii=False))
