"""`stillhouse export`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from core.errors import RunFailed
from core.plugins import find_part
from core.shared_options import DEFAULT_GGUF_TYPE
from flows.commands.command_options import (
    STUDENT_PANEL,
    ColumnsOption,
    JsonOption,
    StudentArgument,
    TypeOption,
    print_json,
    print_text,
)
from flows.rows.column_names import name_columns
from flows.terminal.console import SESSION

app = typer.Typer()
SMALLEST_SHARE = 0.005
"""Of the weights, for a type to be printed: norms are less."""


@app.command("export", rich_help_panel=STUDENT_PANEL)
def export_command(
    student: StudentArgument,
    *,
    form: Annotated[
        Literal["gguf"], typer.Option("--format", help="The file format; llama.cpp and similar runtimes load gguf.")
    ] = "gguf",
    kind: TypeOption = DEFAULT_GGUF_TYPE,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="INPUT",
            help="Rows on which the file is compared with the student; default: those of its run.",
        ),
    ] = None,
    columns: ColumnsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Export a student as one file for other runtimes, next to the student: weights, tokenizer and chat template.

    The file is compared with the student: the same prompts by torch and by llama.cpp.
    """
    from flows.data.student_files import find_student_folder
    from flows.terminal.suggested_commands import format_next_line
    from plugins.export.checked_export import export_checked

    folder, source = find_student_folder(student), data and name_columns(data, columns)
    found = SESSION.run_interruptibly(export_checked(folder, kind, source))
    exported, check = found.exported, found.check
    if as_json:
        projector = {"projector": str(exported.projector)} if exported.projector else {}
        result = {"state": "done", "format": form, "type": kind, "path": str(exported.path), "bytes": exported.bytes}
        measured = {"bits": found.bits, "types": found.types, "check": check and check._asdict(), "notes": found.notes}
        print_json({**result, **projector, **measured})
    else:
        types = ", ".join(f"{name} {share:.0%}" for name, share in found.types.items() if share >= SMALLEST_SHARE)
        print_text(
            f"{exported.path}  {exported.bytes / 1e6:.1f} MB, {exported.parameters / 1e6:.1f}M parameters, "
            f"{found.bits:.2f} bits per weight ({types})"
        )
        if exported.projector:
            print_text(f"{exported.projector}  its embedder of images, which belongs next to it")
        print_text("\n".join([*([check.format()] if check else []), *found.notes]))
    if check and check.faults:
        raise RunFailed(f"{exported.path}: differs from the student: {'; '.join(check.faults)}")
    if as_json:
        return
    print_text(f'hint: as a teacher in a recipe: model = "local/{exported.path}"')
    if find_part("command", "serve"):
        print_text(format_next_line("serve", str(exported.path)))
