"""Exports a student with what belongs to its file: a Modelfile, the types of its tensors, and the comparison with the student."""

from collections import Counter
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from transformers import AutoTokenizer

from core.shared_options import EMBEDDER_FILE
from core.storage.atomic_files import write_text
from flows.data.student_files import find_student_run, read_run_rows
from flows.rows.dataset_rows import read_all_rows
from flows.rows.row_forms import read_row_conversation
from plugins.export.file_check import MOST_ROWS, FileCheck, check_file
from plugins.export.modelfile import build_modelfile
from students.embedded_teacher import QuickGgufReader
from students.gguf_export import ExportedStudent, export_gguf
from students.known_architectures import FROM_FOLDER
from teachers.local_weights import find_llama_problem

MODELFILE = "Modelfile"


@dataclass(frozen=True)
class CheckedExport:
    exported: ExportedStudent
    bits: float
    """Per weight, of the tensors alone."""
    types: dict[str, float]
    """The share of the weights that each type stores, most first."""
    check: FileCheck | None
    """None where llama.cpp is not installed."""
    notes: list[str]
    """What is missing, a sentence each."""


async def export_checked(student: Path, kind: str, data: Path | None) -> CheckedExport:
    """Export the student in this folder, and check the file on the first rows of `data`, or of the student's run.

    Raises:
        UsageError: as `export_gguf`, and if the rows cannot be read; ProviderError if llama.cpp cannot load the file.
    """
    if data:
        rows = list(islice(read_all_rows(data, read_row_conversation), MOST_ROWS))
    else:
        rows = read_run_rows(find_student_run(student), "train")
    exported = export_gguf(student, kind)
    notes = []
    reader = QuickGgufReader(exported.path)
    if modelfile := _build_student_modelfile(student, exported.path, reader):
        write_text(student / MODELFILE, modelfile)
    else:
        notes.append(f"no {MODELFILE}: Ollama's language cannot express this student's chat template, or its images")
    if problem := find_llama_problem():
        notes.append(f"not checked: {problem}")
    check = None if problem else await check_file(student, exported.path, rows)
    sizes: Counter[str] = Counter()
    for tensor in reader.tensors:
        sizes[tensor.tensor_type.name] += int(tensor.n_elements)
    total = sizes.total()
    bits = 8 * sum(int(tensor.n_bytes) for tensor in reader.tensors) / total
    return CheckedExport(exported, bits, {name: count / total for name, count in sizes.most_common()}, check, notes)


def _build_student_modelfile(student: Path, file: Path, reader: QuickGgufReader) -> str | None:
    if (student / EMBEDDER_FILE).is_file():
        return None
    architecture = reader.fields["general.architecture"].contents()
    context = reader.fields[f"{architecture}.context_length"].contents()
    return build_modelfile(file.name, AutoTokenizer.from_pretrained(student, **FROM_FOLDER), context)
