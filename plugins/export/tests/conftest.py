"""The fixtures of students."""

from tests.students.conftest import one_thread, tokenizer

__all__ = ["one_thread", "tokenizer"]
