"""The start of a student: layers of the embedded teacher, a small random Llama, or an existing model; and low-rank adapters
(LoRA, arXiv 2106.09685), which are trained instead of its matrices and merged into them afterwards.

Knows weights and tokenizers; knows nothing of training data.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import httpx
import torch
from huggingface_hub import constants, try_to_load_from_cache
from safetensors.torch import save_file
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)
from transformers.initialization import no_init_weights
from transformers.utils import logging

from core.config.student_steps import EMBEDDED_STARTS, ROW_MULTIPLE
from core.config.students import LoraConfig, StudentConfig, find_start_settings_fault
from core.errors import UsageError
from students.embedded_teacher import (
    TEACHER_LICENCE,
    TEACHER_MODEL,
    build_teacher_tokenizer,
    find_teacher_file,
    open_teacher_file,
    read_teacher_config,
    read_teacher_weights,
)
from students.known_architectures import choose_attention, find_configuration_fault
from students.vocabularies import find_tokenizer_fault

if TYPE_CHECKING:
    import peft


HUB_SECONDS = 5.0
"""How long to wait for the hub, unless HF_HUB_ETAG_TIMEOUT is set."""
TEACHER_LAYERS = 30
REMOVAL_ORDER = (
    17, 6, 5, 4, 25, 7, 26, 16, 18, 14, 15, 12, 13, 19, 3, 20, 9, 2, 10, 23, 22, 28, 8, 11, 27, 21, 1, 24, 29,
)  # fmt: skip
"""The teacher's layers, least important first: each is the layer whose removal, after all earlier ones, raises the loss
least (SLEB, arXiv 2402.09025). `python -m benchmarks.layer_pruning` measures this on 32 of the teacher's answers. In nats
per assistant token, before any training, on those answers: 24 layers 2.37, 20 3.11, 16 4.06, 12 5.60, 8 7.08. On 40 other
answers, greedy removal (in slightly different orders above 12 layers) compared with even spacing (arXiv 2010.13002): 2.5 and
4.6 with 24 layers, 4.1 and 12.4 with 16, 7.1 and 17.9 with 8.
The first layer always stays."""


class StartModel(NamedTuple):
    """A student before training."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    made_from: str
    """The origin of its weights, in words."""
    base: str | None
    """The model that the weights come from; None if they are random."""
    licence: str
    """Of `base` or, for random weights, of the tokenizer; `other` if unknown."""


def load_start_model(config: StudentConfig) -> StartModel:
    """The student of `config.start` in float32; before any step. Random weights use torch's global generator.

    Raises:
        UsageError: if the teacher's package is not installed, or the named model cannot be loaded or is of a form that no
            student can have.
    """
    match config.start:
        case "layers":
            return start_from_layers(config.layers)
        case "random" if step := next((step for step in config.steps if step.makes_start), None):
            made: StartModel = step.load().build_start(config)
            return made
        case "random":
            multiple = max([ROW_MULTIPLE, *(step.row_multiple for step in config.steps)])
            return start_from_random(config.hidden_size, config.layers, multiple)
        case name:
            return start_from_pretrained(name, student=config)


def start_from_layers(count: int) -> StartModel:
    """The teacher with `count` of its layers; embedding (tied to the output) and last norm are copied."""
    teacher = open_teacher_file(find_teacher_file())
    config = read_teacher_config(teacher)
    chosen = select_best_layers(count)
    made_from = f"{len(chosen)} of the {config.num_hidden_layers} layers of {TEACHER_MODEL}"
    config.num_hidden_layers = len(chosen)
    with no_init_weights():
        model = LlamaForCausalLM(config)
    model.tie_weights()
    model.load_state_dict(dict(read_teacher_weights(teacher, chosen)))
    return StartModel(model, build_teacher_tokenizer(teacher), made_from, TEACHER_MODEL, TEACHER_LICENCE)


def start_from_random(hidden_size: int, layers: int, multiple: int = ROW_MULTIPLE) -> StartModel:
    """A new Llama in the teacher's proportions: heads of 64 where they fit, feed-forward 8/3 of the width, rounded down to a
    `multiple`.
    """
    made_from = f"a random Llama of {layers} layers, {hidden_size} wide, with the tokenizer of {TEACHER_MODEL}"
    model = LlamaForCausalLM(choose_proportions(hidden_size, layers, multiple))
    return StartModel(model, build_own_tokenizer(), made_from, None, TEACHER_LICENCE)


def build_own_tokenizer() -> PreTrainedTokenizerFast:
    """The embedded teacher's, which random starts have."""
    return build_teacher_tokenizer(open_teacher_file(find_teacher_file()))


def choose_proportions(hidden_size: int, layers: int, multiple: int = ROW_MULTIPLE) -> LlamaConfig:
    """The settings of a random start."""
    config = read_teacher_config(open_teacher_file(find_teacher_file()))
    head = next(size for size in (64, 32, 16) if hidden_size % size == 0)
    config.update(
        {
            "hidden_size": hidden_size,
            "intermediate_size": max(multiple, hidden_size * 8 // 3 // multiple * multiple),
            "num_hidden_layers": layers,
            "num_attention_heads": hidden_size // head,
            "num_key_value_heads": hidden_size // head,
            "head_dim": head,
        }
    )
    return config


def start_from_pretrained(name: str, *, student: StudentConfig | None = None) -> StartModel:
    """A folder, or a name on the hub; from the hub's cache if the hub does not answer or HF_HUB_OFFLINE=1.

    What becomes a `student` must have the form that its settings need, and an architecture and a tokenizer that llama.cpp knows;
    a teacher may have any.
    """
    with _find_pretrained(name) as source:
        tokenizer = AutoTokenizer.from_pretrained(name, **source)
        if student:
            config = AutoConfig.from_pretrained(name, **source)
            _check_student_form(config, tokenizer, student)
        model = AutoModelForCausalLM.from_pretrained(name, dtype=torch.float32, **source)
    choose_attention(model)
    _forget_mtp_block(model.config)
    return StartModel(model, tokenizer, f"{name}, all of its layers", name, "other")


def load_start_tokenizer(config: StudentConfig) -> PreTrainedTokenizerBase:
    """The tokenizer of `load_start_model`, without any weight."""
    if config.start in EMBEDDED_STARTS:
        return build_own_tokenizer()
    with _find_pretrained(config.start) as source:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(config.start, **source)
    return tokenizer


@contextmanager
def _find_pretrained(name: str) -> Iterator[dict[str, Any]]:
    """Where transformers may load `name` from, as arguments. Raises UsageError for what it raises meanwhile."""
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    in_folder = Path(name).is_dir()
    if (Path(name) / "adapter_config.json").exists():
        raise UsageError(f"student.start: {name!r} is an adapter of peft; merge it into its base model first")
    fault = None if in_folder else hub_fault()
    try:
        # The files of a folder may name another model, of which nothing is fetched.
        yield {"local_files_only": in_folder or fault is not None, "trust_remote_code": False}
    except (OSError, ValueError) as error:
        reason = str(error).split("\n", 1)[0].rstrip(".")
        raise UsageError(
            f"student.start: {name!r} is neither a folder nor in the hub's cache, and {fault}"
            if fault and _must_be_downloaded(name)
            else f"student.start: transformers cannot load {name!r}: {reason}; use layers, random, a folder or a hub name"
        ) from None


def _forget_mtp_block(config: Any) -> None:
    """Remove the block from the configuration of a model that was loaded without it."""
    for name in ("num_mtp_layers", "mtp_layer_types"):
        vars(config).pop(name, None)  # other families have a property of the name, or keep the number under another one


def _check_student_form(config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase, student: StudentConfig) -> None:
    """Raises UsageError, before any weight is loaded, if llama.cpp would not compute what the student of this start does."""
    name = student.start
    if fault := find_start_settings_fault(config.to_dict(), student):
        raise UsageError(f"student.start: {name!r} {fault}")
    if fault := find_configuration_fault(config):
        raise UsageError(f"student.start: {name!r} has {fault}, which cannot be exported")
    if fault := find_tokenizer_fault(tokenizer):
        raise UsageError(f"student.start: {name!r}: {fault}")


def hub_fault() -> str | None:
    """Why the hub cannot be used, known within seconds: its own client retries for over a minute."""
    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE forbids downloads; name the folder of a model, or unset HF_HUB_OFFLINE"
    seconds = float(os.environ.get("HF_HUB_ETAG_TIMEOUT", HUB_SECONDS))
    try:
        httpx.head(constants.ENDPOINT, timeout=seconds)
    except httpx.TimeoutException:
        fault = f"does not answer within {seconds:g} s (HF_HUB_ETAG_TIMEOUT)"
    except httpx.TransportError as error:
        fault = f"cannot be reached ({error})"
    else:
        return None
    return (
        f"the hub {constants.ENDPOINT} {fault}; name the folder of a model, or download it where there is a network and set "
        "HF_HUB_OFFLINE=1 here"
    )


def _must_be_downloaded(name: str) -> bool:
    """Whether `name` is a valid hub name and not in the hub's cache."""
    with suppress(ValueError):
        return not isinstance(try_to_load_from_cache(name, "config.json"), str)
    return False


def select_best_layers(count: int) -> list[int]:
    """The `count` layers of the teacher that remain after removals in `REMOVAL_ORDER`, in their order."""
    removed = REMOVAL_ORDER[: max(0, TEACHER_LAYERS - count)]
    return [layer for layer in range(TEACHER_LAYERS) if layer not in removed]


ADAPTER_FOLDER = "adapter"
"""In a student's folder, readable by peft: `PeftModel.from_pretrained(start, DIR)`."""
ADAPTER_NAME = "default"
"""The adapter name that peft loads by default."""
ADAPTER_WEIGHTS = "adapter_model.safetensors"


class LoraAdapter(NamedTuple):
    """A trained adapter without its base model."""

    settings: "peft.PeftConfig"
    weights: dict[str, torch.Tensor]

    def write_folder(self, folder: Path) -> None:
        folder.mkdir()
        self.settings.save_pretrained(str(folder))
        save_file(self.weights, folder / ADAPTER_WEIGHTS, {"format": "pt"})


def add_adapters(model: PreTrainedModel, config: LoraConfig) -> "peft.LoraModel":
    """Freeze `model` and add adapters, in place. Their initial weights come from torch's global generator and change nothing.

    Raises:
        UsageError: if a target is not a matrix of the model, or the rank is not below the sides of all targets.
    """
    import peft

    targets = _resolve_targets(model, config)
    settings = peft.LoraConfig(r=config.rank, lora_alpha=config.alpha, target_modules=targets, task_type="CAUSAL_LM")
    return peft.LoraModel(model, settings, ADAPTER_NAME)


def _resolve_targets(model: PreTrainedModel, config: LoraConfig) -> list[str]:
    """The names of the matrices to adapt, without their path."""
    output = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    matrices = {
        name.rsplit(".", 1)[-1]: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module is not output
    }
    targets = config.targets or sorted(matrices)
    if unknown := [name for name in targets if name not in matrices]:
        raise UsageError(
            f"student.lora.targets: {', '.join(unknown)}: no such matrix in a {type(model).__name__}; "
            f"there are {', '.join(sorted(matrices)) or 'none'}"
        )
    for name in targets:
        sides = (matrices[name].in_features, matrices[name].out_features)
        if config.rank >= min(sides):
            raise UsageError(
                f"student.lora.rank = {config.rank}: is not a low rank for {name}, a matrix of {sides[0]} x {sides[1]}; "
                "lower it, choose other targets or leave lora out"
            )
    return list(targets)


def merge_adapters(adapted: "peft.LoraModel") -> LoraAdapter:
    """Add the adapters to their matrices, in place, and remove them from the model."""
    import peft

    state = peft.get_peft_model_state_dict(adapted, adapter_name=ADAPTER_NAME)
    weights = {f"base_model.{name}": tensor.detach().cpu().clone() for name, tensor in state.items()}
    settings = adapted.peft_config[ADAPTER_NAME]
    settings.inference_mode = True
    adapted.merge_and_unload()
    return LoraAdapter(settings, weights)
