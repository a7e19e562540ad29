"""Checks: what a verifier can hold a candidate to. This is the interface for a user's own; the built-in ones stand beside it."""

from agents.checks.base import Check, Options, Subject, check, first_fault, passed
from agents.contract import Finding

__all__ = ["Check", "Finding", "Options", "Subject", "check", "first_fault", "passed"]
