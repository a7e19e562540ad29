"""A tiny student as llama.cpp's file, and the processes that serve one. Imports torch only where a student is made."""

import os
import subprocess
from pathlib import Path


def export_student(folder: Path, template: str | None = None) -> Path:
    """A random student of `tests.students.conftest`, with this chat template or its own."""
    from students.gguf_export import export_gguf
    from tests.students.conftest import saved, tiny_llama, tiny_tokenizer

    tokenizer = tiny_tokenizer()
    exported = export_gguf(saved(tiny_llama(len(tokenizer)), tokenizer, folder), "q8_0").path
    return exported if template is None else _write_with_template(exported, template)


def _write_with_template(exported: Path, template: str) -> Path:
    """A copy, since the export rejects a template that it cannot run."""
    import gguf
    from gguf.scripts.gguf_new_metadata import MetadataDetails, copy_with_new_metadata

    reader = gguf.GGUFReader(exported)
    architecture = reader.fields[gguf.Keys.General.ARCHITECTURE].contents()
    path = exported.with_name(f"template-{exported.name}")
    changed = {gguf.Keys.Tokenizer.CHAT_TEMPLATE: MetadataDetails(gguf.GGUFValueType.STRING, template)}
    copy_with_new_metadata(reader, gguf.GGUFWriter(path, architecture), changed, [])
    return path


def find_guards(program: str) -> list[int]:
    """Guards that this process started, and that run."""
    lines = subprocess.run(["ps", "-ewwo", "pid=,ppid=,stat=,args="], capture_output=True, text=True, check=True).stdout
    rows = [line.split(maxsplit=3) for line in lines.splitlines()]
    return [int(row[0]) for row in rows if row[1] == str(os.getpid()) and row[2][0] != "Z" and program in row[3]]
