"""Checks: what a verifier can require of a candidate. This is the interface for a user's own checks; the built-in checks are
in the folders next to this file.
"""

from typing import NoReturn

from agents.checks.base import AttemptJudge, Check, Options, Subject, build_finding, check, first_fault
from agents.reply_schema import Finding, ReplySchema

__all__ = [
    "AttemptJudge",
    "Check",
    "Finding",
    "Options",
    "ReplySchema",
    "Subject",
    "build_finding",
    "check",
    "first_fault",
]

FORMER_NAMES = {"Contract": "ReplySchema", "passed": "build_finding"}


def __getattr__(name: str) -> NoReturn:
    """Refuse a former name that a user's own check may still import.

    Raises:
        ImportError: for a former name; the text has the new name.
        AttributeError: for any other name.
    """
    if name in FORMER_NAMES:
        raise ImportError(f"agents.checks.{name} is now agents.checks.{FORMER_NAMES[name]}")
    raise AttributeError(f"module 'agents.checks' has no attribute {name!r}")
