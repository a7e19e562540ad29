"""`stillhouse export`: a student as a GGUF file that is compared with it, next to a Modelfile for Ollama; and K-quants."""

from collections.abc import Callable
from typing import Any

from core.plugins import Part, Plugin, load_from


def _load_form(kind: str) -> Callable[[], Any]:
    def load() -> Any:
        from plugins.export.mixtures import build_form

        return build_form(kind)

    return load


part = load_from(__name__)

PLUGIN = Plugin(
    name="export",
    about="A student as a GGUF file: K-quants, compared with the student, with a Modelfile",
    extra="export",
    parts=(
        Part("command", "export", part("commands:app")),
        *(Part("gguf", kind, _load_form(kind)) for kind in ("q4_k_m", "q5_k_m", "q6_k", "iq4_nl")),
    ),
)
