"""The fixtures of students: a tiny model and its tokenizer."""

from tests.students.conftest import one_thread, tokenizer

__all__ = ["one_thread", "tokenizer"]
