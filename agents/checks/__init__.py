"""Checks: what a verifier can require of a candidate. This is the interface for a user's own checks; the built-in checks are
in the folders next to this file.
"""

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
