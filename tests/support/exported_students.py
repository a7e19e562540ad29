"""A tiny student as llama.cpp's file, and the processes that serve one. Imports torch only where a student is made."""

import os
import subprocess
from pathlib import Path


def export_student(folder: Path, template: str | None = None) -> Path:
    """A random student of `tests.students.conftest`, with this chat template or its own."""
    from students.output.gguf_export import export_gguf
    from tests.students.conftest import saved, tiny_llama, tiny_tokenizer

    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = template or tokenizer.chat_template
    return export_gguf(saved(tiny_llama(len(tokenizer)), tokenizer, folder), "q8_0").path


def find_guards(program: str) -> list[int]:
    """Guards that this process started, and that run."""
    lines = subprocess.run(["ps", "-ewwo", "pid=,ppid=,stat=,args="], capture_output=True, text=True, check=True).stdout
    rows = [line.split(maxsplit=3) for line in lines.splitlines()]
    return [int(row[0]) for row in rows if row[1] == str(os.getpid()) and row[2][0] != "Z" and program in row[3]]
