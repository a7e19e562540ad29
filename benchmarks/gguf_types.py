"""What the number formats of a student's GGUF file cost: bits per weight, and the loss on rows that it was not trained on, with
and without an importance matrix from rows that it was trained on.

The loss is torch's, in float32, with the weights that the file has: it leaves out llama.cpp's rounding of activations. A run's
student has the rows for its matrix.

    python -m benchmarks.gguf_types RUN ROWS [TYPE...] [-n NUMBER]
"""

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import gguf
import numpy as np
import torch
from transformers import PreTrainedModel

from benchmarks.machine import describe_measurement
from flows.data.student_files import find_student_folder, find_student_run, read_run_rows
from flows.evaluate.dataset_evaluation import select_held_out_rows
from flows.rows.row_forms import read_row_conversation
from plugins.export.importance import measure_importance
from plugins.export.mixtures import MIXTURES, MixedForm
from students.comparison import measure_text_loss
from students.gguf_export import GGUF_FORMS, GgufForm, read_student
from students.known_architectures import ARCHITECTURES

FORMS = ("q8_0", "q6_k", "q5_k_m", "q4_k_m", "iq4_nl", "q4_0")
MAX_TOKENS = 256


class FormLoss(NamedTuple):
    form: str
    fitted: bool
    bits: float
    """Per weight of all tensors."""
    loss: float
    """Nats per token of the assistant."""


def round_to_form(model: PreTrainedModel, weights: Mapping[str, torch.Tensor], form: GgufForm | MixedForm) -> float:
    """Give the model the values that `weights` have in a file of this form, in place; returns its bits per weight."""
    names = gguf.get_tensor_name_map(ARCHITECTURES[model.config.model_type].gguf, model.config.num_hidden_layers)
    size = number = 0
    for name, parameter in model.named_parameters():
        stored, kind = form.encode(names.get_name(name, (".weight",)) or name, weights[name].numpy())
        size, number = size + stored.nbytes, number + parameter.numel()
        with torch.no_grad():
            parameter.copy_(torch.from_numpy(np.array(gguf.dequantize(stored, kind))).view_as(parameter))
    return 8 * size / number


def measure_forms(run: Path, rows: Path, number: int, kinds: Sequence[str] = FORMS) -> Iterator[FormLoss]:
    """The student's own weights first, then each form, without and with a matrix."""
    student = find_student_folder(run)
    model, tokenizer = read_student(student)
    held_out = [row.conversation for row in select_held_out_rows(student, rows, number, read_row_conversation).rows]
    weights = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}

    def measure() -> float:
        return measure_text_loss(model, tokenizer, held_out, MAX_TOKENS).nats_per_token or 0.0

    yield FormLoss("bf16", False, 16.0, measure())
    importance, _ = measure_importance(model, tokenizer, read_run_rows(find_student_run(student), "train"))
    for kind in kinds:
        forms: dict[bool, Any] = {False: GGUF_FORMS.get(kind) or MixedForm(kind, model, {})}
        if kind in MIXTURES:
            forms[True] = MixedForm(kind, model, importance)
        for fitted, form in forms.items():
            bits = round_to_form(model, weights, form)
            yield FormLoss(kind, fitted, bits, measure())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("rows", type=Path)
    parser.add_argument("types", nargs="*", default=FORMS)
    parser.add_argument("-n", type=int, default=64, help="held-out rows")
    options = parser.parse_args()
    sys.stdout.write(
        f"{describe_measurement()}. `python -m benchmarks.gguf_types RUN ROWS -n {options.n}`\n\n"
        "| `--type` | importance matrix | bits per weight | held-out loss | change |\n|---|---|---:|---:|---:|\n"
    )
    own = 0.0
    for found in measure_forms(options.run, options.rows, options.n, options.types):
        own = own or found.loss
        fitted = "yes" if found.fitted else "no"
        sys.stdout.write(
            f"| `{found.form}` | {fitted} | {found.bits:.2f} | {found.loss:.4f} | {found.loss / own - 1:+.2%} |\n"
        )
        sys.stdout.flush()


if __name__ == "__main__":
    main()
