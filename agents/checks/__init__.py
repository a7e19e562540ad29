"""Checks: what a verifier can hold a candidate to. This is the interface for a user's own; the built-in ones stand beside it."""

from agents.checks.base import Check, Options, Subject, check, first_fault, passed
from agents.contract import Contract, Finding

__all__ = ["Check", "Contract", "Finding", "Options", "Subject", "check", "first_fault", "passed"]
