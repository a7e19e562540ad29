"""Splits long texts into passages that the collapse metrics compare: whole sentences, or functions of Python code.

Knows no file and no metric.
"""

import ast
import re
import textwrap
import warnings
from collections.abc import Iterator

UNSPACED = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]")
"""Kana and Chinese characters, which are written without spaces."""
PARAGRAPH_END = re.compile(r"\n\s*\n")
SENTENCE_END = re.compile(r"""[.!?…]["'”’)\]]*\s+(?=["'“‘(\[]?[^\W_a-z])|[。！？]["'”’」』）]*|\n+""")
"""The end of a sentence before a capital, a digit or a letter without case, or of a line. "Mr. Smith" counts as an end too, which
only matters where a passage is full."""
CHARACTERS_PER_WORD = 12
"""A word has at most this number of characters on average, so text without any space is not one word."""
MAX_CODE_CHARACTERS = 2_000_000
"""A larger file of code is data."""


def count_words(text: str) -> int:
    """Words by white space; two Chinese characters or kana count as one, and 12 characters as at least one."""
    return max(len(text.split()) + len(UNSPACED.findall(text)) // 2, len(text) // CHARACTERS_PER_WORD)


def split_into_passages(text: str, most: int) -> Iterator[str]:
    """Passages of at most `most` words: whole paragraphs where they fit, else whole sentences. A passage ends with its paragraph
    if it has half of the words. Only a sentence that is too long itself is cut between words.
    """
    passage: list[str] = []
    words = 0
    for paragraph in PARAGRAPH_END.split(text):
        for sentence in _split_sentences(paragraph, most):
            count = count_words(sentence)
            if passage and words + count > most:
                yield " ".join(passage)
                passage, words = [], 0
            passage.append(sentence)
            words += count
        if words >= most / 2:
            yield " ".join(passage)
            passage, words = [], 0
    if passage:
        yield " ".join(passage)


def _split_sentences(paragraph: str, most: int) -> Iterator[str]:
    """Sentences on one line each, none of more than `most` words."""
    start = 0
    for end in [*(found.end() for found in SENTENCE_END.finditer(paragraph)), len(paragraph)]:
        sentence = " ".join(paragraph[start:end].split())
        start = end
        if count_words(sentence) <= most:
            if sentence:
                yield sentence
        else:
            yield from _cut(sentence, most)


def _cut(sentence: str, most: int) -> Iterator[str]:
    """Parts of at most `most` words; a word longer than a whole part is cut inside."""
    part, words = "", 0
    for word in sentence.split():
        for piece in textwrap.wrap(word, most * CHARACTERS_PER_WORD // 2) if count_words(word) > most else [word]:
            count = count_words(piece + " ")
            if part and words + count > most:
                yield part
                part, words = "", 0
            part, words = f"{part} {piece}".strip(), words + count
    if part:
        yield part


def split_into_functions(code: str) -> list[str]:
    """The functions and methods of Python code, each with its decorators and docstring, without indentation of its class. Nested
    functions stay in theirs. Empty for text that is not Python.
    """
    if len(code) > MAX_CODE_CHARACTERS:
        return []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of old escapes
            tree = ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    lines = code.replace("\r\n", "\n").replace("\r", "\n").split("\n")  # as the tree counts them
    functions = []
    waiting: list[ast.stmt] = list(reversed(tree.body))
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            functions.append(textwrap.dedent("\n".join(lines[first - 1 : node.end_lineno])))
        elif isinstance(node, ast.ClassDef | ast.If | ast.Try):
            waiting.extend(reversed(node.body))
    return functions
