"""Teachers that a run serves with vLLM."""

from typing import Any

from core.plugins import Part, Plugin


def _load_protocol() -> Any:
    from plugins.vllm.server import VLLM

    return VLLM


PLUGIN = Plugin(
    name="vllm",
    about="Teachers that a run serves with vLLM, on GPUs",
    parts=(Part("protocol", "vllm", _load_protocol),),
    extra="vllm",
)
