"""What a user's own check needs. `docs/your-own.md` has examples."""

from agents.checks import AttemptJudge, Check, Finding, Options, ReplySchema, Subject, build_finding, check, first_fault

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
