"""What the number formats of a student's GGUF file cost: bits per weight, and loss and divergence from the student on rows that
it was not trained on.

Both are torch's, in float32, with the weights that the file has: they leave out llama.cpp's rounding of activations.

    python -m benchmarks.gguf_types RUN ROWS [TYPE...] [-n NUMBER]
"""

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import gguf
import numpy as np
import torch
from torch.nn import functional
from transformers import PreTrainedModel

from benchmarks.machine import describe_measurement
from flows.data.student_files import find_student_folder
from flows.evaluate.dataset_evaluation import select_held_out_rows
from flows.rows.row_forms import read_row_conversation
from plugins.export.mixtures import MixedForm
from students.chat_encoding import EncodedConversation, encode_conversation, find_pad_id
from students.gguf_export import GGUF_FORMS, GgufForm, read_student
from students.known_architectures import ARCHITECTURES
from students.predictions import build_batch, predict_tokens

FORMS = ("q8_0", "q6_k", "q5_k_m", "q4_k_m", "iq4_nl", "q4_0")
MAX_TOKENS = 256


class FormLoss(NamedTuple):
    form: str
    bits: float
    """Per weight of all tensors."""
    loss: float
    """Nats per token of the assistant."""
    divergence: float
    """Mean KL divergence from the student, in nats per token of the assistant."""


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
    """The student's own weights first, then each form."""
    student = find_student_folder(run)
    model, tokenizer = read_student(student)
    held_out = [row.conversation for row in select_held_out_rows(student, rows, number, read_row_conversation).rows]
    encoded = [encode_conversation(row, tokenizer, MAX_TOKENS) for row in held_out]
    used = [row for row in encoded if isinstance(row, EncodedConversation)]
    weights = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}

    @torch.no_grad()
    def predict() -> tuple[torch.Tensor, float]:
        """Log probabilities of shape (tokens, vocabulary), and the loss."""
        found = [predict_tokens(model, build_batch([row], find_pad_id(tokenizer))) for row in used]
        predicted = torch.cat([one.logits for one in found]).log_softmax(1)
        return predicted, float(functional.nll_loss(predicted, torch.cat([one.targets for one in found])))

    own, loss = predict()
    yield FormLoss("bf16", 16.0, loss, 0.0)
    for kind in kinds:
        bits = round_to_form(model, weights, GGUF_FORMS.get(kind) or MixedForm(kind, model))
        predicted, loss = predict()
        divergence = functional.kl_div(predicted, own, reduction="batchmean", log_target=True)
        yield FormLoss(kind, bits, loss, float(divergence))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("rows", type=Path)
    parser.add_argument("types", nargs="*", default=FORMS)
    parser.add_argument("-n", type=int, default=64, help="held-out rows")
    options = parser.parse_args()
    sys.stdout.write(
        f"{describe_measurement()}. `python -m benchmarks.gguf_types RUN ROWS -n {options.n}`\n\n"
        "| `--type` | bits per weight | held-out loss | KL divergence |\n|---|---:|---:|---:|\n"
    )
    for found in measure_forms(options.run, options.rows, options.n, options.types):
        sys.stdout.write(f"| `{found.form}` | {found.bits:.2f} | {found.loss:.4f} | {found.divergence:.4f} |\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
