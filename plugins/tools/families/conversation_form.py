"""What both engines of `tool_calls` share: the system message, the folder of prompts and the defaults of their recipes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

TOOL_PROMPTS = Path(__file__).parents[1] / "prompts"
HERMES = """{intro}

You are provided with function signatures within <tools></tools> XML tags:
<tools>
{tools}
</tools>

For each function call, return a JSON object with the function's name and its arguments within <tool_call></tool_call> XML tags:
<tool_call>
{{"name": <function-name>, "arguments": <arguments-as-json-object>}}
</tool_call>"""
"""The form of NousResearch's Hermes models, which Qwen's chat template writes too."""
INTROS = (
    "You are a helpful assistant that can call functions. Call one only where it is needed, and never make up arguments.",
    "You are an assistant with tools. Use them where they help; ask when something that they need is missing.",
    "Answer the user's requests. You may call functions, and you answer in words from what they return.",
    "You help people with everyday matters and may call the functions below. If none fits, say so.",
)
# Calls are JSON whose names repeat, and a plain no is a right answer, so no filter for prose. One question back can answer
# many requests.
TOOL_DEFAULTS: Mapping[str, Any] = {
    "collapse": {"kind": "json"},
    "agents": {"generator": {"max_tokens": 1200, "examples": 3}},
    "verifiers": [
        {"type": "tool_schema"},
        {"type": "tool_use"},
        {"type": "tool_arguments"},
        {"type": "tool_result"},
    ],
    "filters": [{"type": "exact"}, {"type": "minhash"}],
}
