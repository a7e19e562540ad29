"""How much a teacher thinks, as keys of a chat request in each dialect of the OpenAI protocol; and the thinking in a completion.
Sends nothing.

An effort is a hint to the model. A number of tokens is a limit where the server has one.
"""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from core.config.agents import ReasoningEffort, find_effort, reasoning_tokens
from core.config.teachers import OPENAI_REASONING_MODELS

Reasoning = ReasoningEffort | int

LOWEST_EFFORTS = (
    (re.compile(r"(?:ft:)?o\d|.*codex"), "low"),
    (re.compile(r"gpt-5(?:-mini|-nano)?(?:-\d{4}-\d\d-\d\d)?$"), "minimal"),
)
"""The lowest effort of the models that cannot stop thinking; all later ones take `none`
(https://platform.openai.com/docs/guides/reasoning)."""
EFFORT_ONLY_MODELS = re.compile(r"gpt-oss", re.IGNORECASE)
"""Open models that only have efforts: `off` is their lowest."""


def build_thinking_keys(reasoning: Reasoning | None, dialect: str, model: str) -> dict[str, Any]:
    """The request keys for this much thinking; none for None, the model's own default.

    `off` is the lowest effort for models that always think.

    Args:
        reasoning: an effort, or tokens.
        dialect: whose keys the endpoint accepts, as `TeacherConfig.chat_dialect`.
        model: the endpoint's name for the model.
    """
    if reasoning is None:
        return {}
    return DIALECT_KEYS.get(dialect, _build_effort_key)(reasoning, model)


def _build_effort_key(reasoning: Reasoning, _model: str) -> dict[str, Any]:
    return {"reasoning_effort": "none" if reasoning == "off" else find_effort(reasoning)}


def _build_openai_keys(reasoning: Reasoning, model: str) -> dict[str, Any]:
    name = model.rpartition("/")[2]
    if reasoning != "off":
        return _build_effort_key(reasoning, model)
    if not OPENAI_REASONING_MODELS.match(name):
        return {}  # it does not think, and rejects the key
    return {"reasoning_effort": next((effort for names, effort in LOWEST_EFFORTS if names.match(name)), "none")}


def _build_openrouter_keys(reasoning: Reasoning, _model: str) -> dict[str, Any]:
    if isinstance(reasoning, int):
        return {"reasoning": {"max_tokens": reasoning}}
    return {"reasoning": {"effort": "none" if reasoning == "off" else reasoning}}


def _build_deepseek_keys(reasoning: Reasoning, model: str) -> dict[str, Any]:
    """Also of GLM's and Moonshot's own endpoints (https://api-docs.deepseek.com/guides/thinking_mode)."""
    if reasoning == "off":
        return {"thinking": {"type": "disabled"}}
    return {"thinking": {"type": "enabled"}, **_build_effort_key(reasoning, model)}


def _build_template_keys(reasoning: Reasoning, model: str) -> dict[str, Any]:
    """Chat templates have different names for the switch (Qwen and GLM; DeepSeek and Granite), and ignore unknown ones."""
    thinks = reasoning != "off"
    keys: dict[str, Any] = {"chat_template_kwargs": {"enable_thinking": thinks, "thinking": thinks}}
    if thinks or EFFORT_ONLY_MODELS.search(model):
        effort = find_effort(reasoning) if thinks else "low"
        keys["chat_template_kwargs"]["reasoning_effort"] = effort
        keys["reasoning_effort"] = effort  # of the servers' own prompts, as for gpt-oss
    return keys


def _build_vllm_keys(reasoning: Reasoning, model: str) -> dict[str, Any]:
    keys = _build_template_keys(reasoning, model)
    # vLLM rejects a limit if it was started without --reasoning-parser, so an effort sends none.
    return keys | ({"thinking_token_budget": reasoning} if isinstance(reasoning, int) else {})


def _build_sglang_keys(reasoning: Reasoning, model: str) -> dict[str, Any]:
    keys = _build_template_keys(reasoning, model)
    if isinstance(reasoning, int):
        keys["chat_template_kwargs"]["thinking_budget"] = reasoning
        keys["custom_params"] = {"thinking_budget": reasoning}  # enforced with --enable-strict-thinking
    return keys


def _build_llama_keys(reasoning: Reasoning, model: str) -> dict[str, Any]:
    """llama.cpp ends the thinking at its limit, so that the answer has its own tokens."""
    keys = _build_template_keys(reasoning, model)
    keys.pop("reasoning_effort", None)
    return keys | {"thinking_budget_tokens": reasoning_tokens(reasoning)}


DIALECT_KEYS: dict[str, Callable[[Reasoning, str], dict[str, Any]]] = {
    "openai": _build_openai_keys,
    "openrouter": _build_openrouter_keys,
    "deepseek": _build_deepseek_keys,
    "vllm": _build_vllm_keys,
    "sglang": _build_sglang_keys,
    "llama.cpp": _build_llama_keys,
}


def read_message_text(message: Mapping[str, Any]) -> str:
    """The content of a completion's message, or its refusal."""
    content = message.get("content") or message.get("refusal") or ""
    if isinstance(content, list):  # Mistral's thinking models
        return "".join(part["text"] for part in content if part.get("type") == "text")
    return str(content)


def read_message_reasoning(message: Mapping[str, Any]) -> str:
    """The thinking that a server returns outside of the content; each server has its own field for it."""
    for field in ("reasoning_content", "reasoning"):
        if message.get(field):
            return str(message[field]).strip()
    details = message.get("reasoning_details") or []
    texts = [detail.get("text") or detail.get("summary") or "" for detail in details]
    content = message.get("content")
    for part in content if isinstance(content, list) else []:
        if part.get("type") == "thinking":
            texts += [piece["text"] for piece in part["thinking"]]
    return "".join(texts).strip()


def is_json_object(text: str) -> bool:
    if not text.startswith("{"):
        return False
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False
