"""The fixtures of students: a tiny model, its tokenizer, and conversations."""

from tests.students.conftest import config, encoded, model, one_thread, talk, teacher, tiny_folder, tokenizer

__all__ = ["config", "encoded", "model", "one_thread", "talk", "teacher", "tiny_folder", "tokenizer"]
