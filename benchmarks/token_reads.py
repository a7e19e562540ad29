"""The bytes of a GGUF file that decoding reads for each token. Knows GGUF's names of tensors; runs no model."""

import re
from pathlib import Path

from core.weights.gguf_files import list_part_names
from students.embedded_teacher import QuickGgufReader

LOOKUP_TABLES = {"token_embd.weight", "per_layer_token_embd.weight"}
"""One row per token is read. Without `output.weight`, the first is also the output layer, which is read whole."""
EXPERTS = re.compile(r"blk\.\d+\.ffn_(gate|up|down|gate_up)_exps\.")
LAYER = re.compile(r"blk\.(\d+)\.")


def count_weight_reads(file: Path) -> int:
    """Bytes of the weights that one token reads in plain decoding, which uses no drafting layers (`nextn`).

    Of a mixture of experts, only the experts that a token uses are read.
    """
    parts = [QuickGgufReader(file.with_name(name)) for name in list_part_names(file.name)]
    fields = parts[0].fields
    architecture = fields["general.architecture"].contents()

    def read_number(key: str) -> int:
        field = fields.get(f"{architecture}.{key}")
        return int(field.contents()) if field else 0

    experts, used = read_number("expert_count"), read_number("expert_used_count")
    layers = read_number("block_count") - read_number("nextn_predict_layers")
    tensors = [tensor for part in parts for tensor in part.tensors]
    tied = all(tensor.name != "output.weight" for tensor in tensors)
    total = 0
    for tensor in tensors:
        size = int(tensor.n_bytes)
        layer = LAYER.match(tensor.name)
        if layer and int(layer[1]) >= layers:
            continue
        if tensor.name in LOOKUP_TABLES and not (tied and tensor.name == "token_embd.weight"):
            total += size // int(tensor.shape[-1])
        elif experts and EXPERTS.match(tensor.name):
            total += size * used // experts
        else:
            total += size
    return total
