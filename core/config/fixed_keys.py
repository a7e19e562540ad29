"""The keys of a teacher's requests that `extra` and `drop` must not change: a budget depends on them. Knows no recipe and no
protocol.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

SETTING_OF_KEY = {
    **dict.fromkeys(
        ("max_tokens", "max_completion_tokens", "max_output_tokens", "max_new_tokens", "max_tokens_to_sample", "n_predict"),
        "agents.ROLE.max_tokens",
    ),
    **dict.fromkeys(("model", "models"), "the teacher's own `model`"),
    **dict.fromkeys(
        ("messages", "contents", "system", "system_instruction", "prompt", "input"), "the recipe's seeds and agents"
    ),
    **dict.fromkeys(("n", "n_cmpl", "candidate_count", "best_of", "use_beam_search"), "`samples`"),
    "stream": "nothing; a reply is read as a whole",
}  # fmt: skip
"""What a recipe sets instead, by the keys of all protocols and servers."""
TABLE_OF_KEYS = "generation_config"
"""Gemini's table, which has the length of a reply and the number of replies."""
SETTING_OF_PLAIN_KEY = {key.replace("_", ""): setting for key, setting in SETTING_OF_KEY.items()}


def find_fixed_extra(extra: Mapping[str, Any]) -> str | None:
    """Why requests cannot have these keys, in a sentence; None if they can."""
    for key, value in extra.items():
        if _simplify(key) != _simplify(TABLE_OF_KEYS):
            continue
        if not isinstance(value, Mapping):
            return f"{key} must be a table, not {value!r}"
        if problem := _describe(f"{key}.{inner}" for inner in _list_fixed(value)):
            return problem
    return _describe(_list_fixed(extra))


def find_fixed_drop(drop: Iterable[str]) -> str | None:
    """Why requests cannot be without these keys, in a sentence; None if they can."""
    keys = list(drop)
    if table := next((key for key in keys if _simplify(key) == _simplify(TABLE_OF_KEYS)), None):
        return (
            f"{table} has the length of a reply, which a budget depends on; name the keys in it, such as `temperature`"
        )
    return _describe(_list_fixed(keys))


def _simplify(key: str) -> str:
    """Google accepts its keys in two spellings."""
    return key.replace("_", "").lower()


def _list_fixed(keys: Iterable[str]) -> Iterator[str]:
    return (key for key in keys if _simplify(key) in SETTING_OF_PLAIN_KEY)


def _describe(keys: Iterable[str]) -> str | None:
    key = next(iter(keys), None)
    if key is None:
        return None
    setting = SETTING_OF_PLAIN_KEY[_simplify(key.rpartition(".")[2])]
    return f"{key} is fixed, since a budget depends on it; remove it, and set {setting} instead"
