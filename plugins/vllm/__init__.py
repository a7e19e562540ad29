"""Teachers that a run serves with vLLM."""

from core.plugins import Part, Plugin, load_from

part = load_from(__name__)

PLUGIN = Plugin(
    name="vllm",
    about="Teachers that a run serves with vLLM, on GPUs",
    parts=(Part("protocol", "vllm", part("server:VLLM")),),
    extra="vllm",
)
