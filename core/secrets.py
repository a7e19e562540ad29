"""API keys: read from the environment and removed from every text that is printed or stored. Knows no teacher."""

import os
import re
from itertools import takewhile

from pydantic_core import PydanticCustomError

from core.errors import UsageError

SECRET_ERROR = "secret"
"""Type of a validation error whose message must not repeat the value, which may contain a key."""
SECRET_NAME = re.compile(r"KEY|TOKEN|SECRET|PASSWORD|AUTH_STRING|CONNECTION_URL", re.IGNORECASE)
VARIABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
MIN_SECRET_CHARACTERS = 6
"""A shorter value (`none`, `EMPTY`) is a placeholder, and part of many words."""
MIN_KEY_PART = 8
"""A prefix of a key with this many characters is redacted too: a server may cut its message."""
MIN_REFUSED_CHARACTERS = 16
"""A reply with a key of this length is refused; the issuers' keys are longer, and shorter placeholders may be words."""

_key_variables: set[str] = set()
"""Variables that keys were read from, with any name."""


def validate_variable_name(name: str) -> str:
    """Return `name` if it is a valid name of an environment variable, or empty.

    Raises:
        PydanticCustomError: without `name` in its message: the user may have entered the key itself.
    """
    if name and not VARIABLE_NAME.fullmatch(name):
        raise PydanticCustomError(
            SECRET_ERROR, "must be the name of an environment variable (letters, digits and _), never the key itself"
        )
    return name


def read_key(variable: str) -> str | None:
    """The key in an environment variable, stripped; None if the variable is not set. `redact_text` redacts it from now on.

    Raises:
        UsageError: if the value cannot be a key.
    """
    key = os.environ.get(variable, "").strip() if variable else ""
    if key:
        _key_variables.add(variable)
    if not all("!" <= letter <= "~" for letter in key):
        raise UsageError(
            f"the environment variable {variable} contains a space, a line break or a letter that no key has; set it to "
            "the key alone"
        )
    return key or None


def mark_secret(variable: str) -> None:
    """Redact the value of an environment variable from now on, whatever its name."""
    _key_variables.add(variable)


KEY_SHAPES = {
    "a token of the Hugging Face Hub": re.compile(r"\bhf_[A-Za-z0-9]{30,}\b"),
    "a key of Anthropic": re.compile(r"\bsk-ant-[A-Za-z0-9_-]{20,}"),
    "a key of OpenAI": re.compile(r"\bsk-(?!ant-)(?:proj-|svcacct-)?[A-Za-z0-9_-]*\d[A-Za-z0-9_-]{19,}"),
    "a key of Google": re.compile(r"\bAIza[0-9A-Za-z_-]{35}\b"),
    "a key of AWS": re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"),
    "a token of GitHub": re.compile(r"\b(?:gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{50,})\b"),
    "a token of Slack": re.compile(r"\bxox[abeoprs]-[A-Za-z0-9-]{20,}"),
    "a private key": re.compile(
        r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----(?:[^-]*-----END (?:[A-Z]+ )*PRIVATE KEY-----)?"
    ),
    "a bearer token": re.compile(r"(?i:\bbearer\s+)(?=[\w.~+/-]*\d)[\w.~+/-]{20,}"),
    "a password in an address": re.compile(r"://[^\s/:@]+:[^\s/:@]{3,}@[\w.-]+"),
}
"""Keys by their shapes, as their issuers document them."""


def find_keys(text: str) -> list[str]:
    """The parts of `text` that have the shape of a key."""
    return [found[0] for shape in KEY_SHAPES.values() for found in shape.finditer(text)]


def find_secrets(text: str) -> list[str]:
    """What secrets `text` contains, without their values: keys of known shapes, and values of environment variables with the
    name of a secret. Stricter than `redact_text`, which may remove harmless words.
    """
    found = [name for name, shape in KEY_SHAPES.items() if shape.search(text)]
    for name, value in os.environ.items():
        secret = value.strip()
        if (name in _key_variables or SECRET_NAME.search(name)) and len(secret) >= MIN_KEY_PART and secret in text:
            found.append(f"the value of {name}")
    return found


def find_read_key(text: str) -> str | None:
    """The name of a variable that a key was read from, if `text` contains that key."""
    keys = {name: os.environ.get(name, "").strip() for name in sorted(_key_variables)}
    return next((name for name, key in keys.items() if len(key) >= MIN_REFUSED_CHARACTERS and key in text), None)


def redact_text(text: str) -> str:
    """`text` without keys that were read, environment variables with the name of a secret, bearer tokens, and user names and
    passwords in URLs. Call it before `text` is cut: a part of a key is recognized by its prefix only.
    """
    for name, value in sorted(os.environ.items(), key=lambda item: -len(item[1])):
        known, secret = name in _key_variables, value.strip()
        if len(secret) < MIN_SECRET_CHARACTERS or not (known or SECRET_NAME.search(name)):
            continue
        text = text.replace(secret, f"[{name}]")
        if known and len(secret) > MIN_KEY_PART:
            text = _redact_key_parts(text, secret, f"[{name}]")
    text = re.sub(r"(?i)(bearer\s+)[^\s\"']+", r"\1[redacted]", text)
    text = re.sub(r"(://[^\s/:@]*:)[^\s/@]+@", r"\1[redacted]@", text)
    return re.sub(r"://[^\s/:@?#\[\]]+@", "://[redacted]@", text)


def _redact_key_parts(text: str, key: str, instead: str) -> str:
    """`text` without prefixes of `key`, each as long as possible."""
    kept, rest = [], 0
    while (begin := text.find(key[:MIN_KEY_PART], rest)) >= 0:
        kept += [text[rest:begin], instead]
        pairs = zip(key, text[begin : begin + len(key)], strict=False)
        rest = begin + sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    return "".join([*kept, text[rest:]])


def redact_excerpt(text: str, length: int) -> str:
    """The first `length` characters of the redacted `text`."""
    return redact_text(text.strip())[:length]
