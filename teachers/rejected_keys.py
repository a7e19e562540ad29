"""Keys of a chat request that an endpoint rejects: which one a rejection names, and requests without it. Sends nothing.

Newer models behind a gateway reject keys that older ones take, and the gateway's name for a model does not tell which it is.
"""

import json
import logging
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from core.config.teachers import TeacherConfig
from core.errors import ProviderError
from core.storage.atomic_files import read_json, write_json
from teachers.base import TeacherQuestion

OPTIONAL_KEYS = {
    "top_logprobs": "logprobs = false",
    "logprobs": "logprobs = false",
    "temperature": 'drop = ["temperature"]',
    "top_p": 'drop = ["top_p"]',
    "seed": 'drop = ["seed"]',
}
"""Keys that a request can be without, with what a teacher's table says instead."""
LENGTH_KEYS = {
    "max_tokens": ("max_completion_tokens", 'dialect = "openai"'),
    "max_completion_tokens": ("max_tokens", 'dialect = "generic"'),
}
"""The two names of the length of a reply; with another name a request is the same."""
REMEDIES = {
    **dict.fromkeys(("response_format", "tools", "tool_choice"), 'structured = "plain" (or "tool", "json_schema")'),
    **dict.fromkeys(
        ("reasoning_effort", "reasoning", "thinking", "chat_template_kwargs", "thinking_budget_tokens",
         "thinking_token_budget", "custom_params"),
        "dialect, or no reasoning in the tables of its agents",
    ),
}  # fmt: skip
"""What to set in a teacher's table for keys without which the reply would be another."""
SAYS_UNSUPPORTED = re.compile(
    r"unsupported|(?:not|n't|cannot) (?:be )?(?:support|permit|allow|accept|enabled|available)|un(?:recognized|known|expected)"
    r"|extra_forbidden|deprecated|cannot (?:both )?be (?:both )?specified",
    re.IGNORECASE,
)
UNKNOWN_NAME = re.compile(
    r"unsupported.?param|un(?:recognized|known|expected)|extra_forbidden|not permitted|not support param", re.IGNORECASE
)
SEARCHED_CHARACTERS = 4_000
"""Of a response; the rest may quote the request."""
REJECTING_STATUSES = {"400", "422"}

logger = logging.getLogger("stillhouse")


class RejectedKeys:
    """The keys that one endpoint rejected, which later requests do not have."""

    def __init__(self, config: TeacherConfig, file: Path | None = None) -> None:
        """`file` keeps the keys for a resumed run."""
        self._config, self._file = config, file
        self._keys: list[str] = read_json(file)["keys"] if file and file.exists() else []

    def leave_out(self, body: dict[str, Any]) -> dict[str, Any]:
        """`body` without the rejected keys, and with the other name of a reply's length."""
        adapted = {key: value for key, value in body.items() if key not in self._keys}
        for key in self._keys:
            if key in LENGTH_KEYS and key in body:
                adapted[LENGTH_KEYS[key][0]] = body[key]
        return adapted

    def learn(self, response: str, body: dict[str, Any], question: TeacherQuestion) -> str | None:
        """The key of `body` that a rejection names, which is left out from now on; None if there is nothing to leave out.

        Raises:
            ProviderError: if the recipe needs the key.
        """
        key = find_rejected_key(response, body.keys() & {*OPTIONAL_KEYS, *LENGTH_KEYS})
        if key is None or (key in LENGTH_KEYS and LENGTH_KEYS[key][0] in self._keys):
            return None
        also = ["top_logprobs"] if key == "logprobs" else []
        if needed := next((name for name in (key, *also) if name in self._config.extra), None):
            raise ProviderError(
                f"{self._config.model}: rejects {key}; remove {needed} from extra in the teacher's table"
            )
        if key in ("logprobs", "top_logprobs") and question.top_logprobs:
            raise ProviderError(
                f"{self._config.model}: rejects {key}, and a check reads token probabilities; give its agent a model that "
                "returns them, or set an option of the check that needs none"
            )
        if key not in self._keys:  # else a request that was in flight
            self._keys += [key, *also]
            setting = OPTIONAL_KEYS.get(key) or LENGTH_KEYS[key][1]
            instead = f"have {LENGTH_KEYS[key][0]} instead" if key in LENGTH_KEYS else "do without it"
            logger.warning(
                "%s rejects %s: later requests %s; in a next recipe, write %s in the teacher's table",
                self._config.model, key, instead, setting,
            )  # fmt: skip
            if self._file:
                self._file.parent.mkdir(parents=True, exist_ok=True)
                write_json(self._file, {"keys": self._keys})
        return key


def describe_remedy(response: str, body: dict[str, Any]) -> str:
    """What to change in the teacher's table if a rejection names a key that a request cannot be without; "" if it names none."""
    key = find_rejected_key(response, body.keys() & REMEDIES.keys())
    return f"; set {REMEDIES[key]} in the teacher's table" if key else ""


def find_rejected_key(response: str, keys: Collection[str]) -> str | None:
    """The first of `keys` that a rejection calls unsupported; None if it rejects something else."""
    text = response[:SEARCHED_CHARACTERS]
    if not SAYS_UNSUPPORTED.search(text):
        return None
    named = next((name for name in _list_parameters(response) if name in keys), None)
    if named is None:
        found = [(match.start(), key) for key in keys if (match := _find_word(key, text))]
        named = min(found)[1] if found else None
    if named in LENGTH_KEYS and LENGTH_KEYS[named][0] not in text and not UNKNOWN_NAME.search(text):
        return None  # the number is rejected, not its name
    return named


def _list_parameters(response: str) -> Iterator[str]:
    """Names in the fields for them: `error.param` of OpenAI, `detail[].loc` of pydantic."""
    try:
        answer = json.loads(response)
    except (ValueError, RecursionError):
        return
    error = answer.get("error") if isinstance(answer, dict) else None
    param = (error if isinstance(error, dict) else answer if isinstance(answer, dict) else {}).get("param")
    if isinstance(param, str):
        yield re.split(r"[.\[]", param)[0]
    details = answer.get("detail") if isinstance(answer, dict) else None
    for detail in details if isinstance(details, list) else ():
        yield from map(str, detail.get("loc") or () if isinstance(detail, dict) else ())


def _find_word(key: str, text: str) -> re.Match[str] | None:
    """A key without which the reply would be another must be in quotes, since `thinking` and `tools` are also words."""
    word = rf"(?<!\w){key}(?!\w)" if key not in REMEDIES else rf"['\"`]{key}['\"`]"
    return re.search(word, text, re.IGNORECASE)
