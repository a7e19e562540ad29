"""Splits long texts into passages of whole sentences, and Python code into functions, as the collapse metrics compare them.

Knows no file and no metric.
"""

import ast
import re
import warnings
from collections.abc import Iterator

UNSPACED_CHARACTER = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]")
"""Kana and Chinese characters, which are written without spaces."""
PARAGRAPH_END = re.compile(r"\n\s*\n")
SENTENCE_END = re.compile(r"""[.!?…]["'”’)\]]*\s+(?=["'“‘(\[]?[^\W_a-z])|[。！？]["'”’」』）]*|\n+""")
"""The end of a sentence before a capital, a digit or a letter without case, or of a line. "Mr. Smith" counts as an end too, which
only matters where a passage is full."""
CHARACTERS_PER_WORD = 12
"""A word has at most this number of characters on average, so text without any space is not one word."""
MAX_CODE_CHARACTERS = 2_000_000
"""A larger file of code is data."""


def count_passage_words(text: str) -> int:
    """Words by white space; two Chinese characters or kana count as one, and 12 characters as at least one."""
    unspaced = len(UNSPACED_CHARACTER.findall(text))
    spaced = UNSPACED_CHARACTER.sub(" ", text) if unspaced else text
    return max(len(spaced.split()) + (unspaced + 1) // 2, len(text) // CHARACTERS_PER_WORD)


def split_into_passages(text: str, most: int) -> Iterator[str]:
    """Passages of at most `most` words: whole paragraphs where they fit, else whole sentences. A passage ends with its paragraph
    if it has half of the words. Only a sentence that is too long itself is cut between words.
    """
    passage = ""
    for paragraph in PARAGRAPH_END.split(text):
        for sentence in _split_sentences(paragraph, most):
            longer = f"{passage} {sentence}".strip()
            if count_passage_words(longer) > most:
                yield passage
                longer = sentence
            passage = longer
        if count_passage_words(passage) >= most / 2:
            yield passage
            passage = ""
    if passage:
        yield passage


def _split_sentences(paragraph: str, most: int) -> Iterator[str]:
    """Sentences on one line each, none of more than `most` words."""
    start = 0
    for end in [*(found.end() for found in SENTENCE_END.finditer(paragraph)), len(paragraph)]:
        sentence = " ".join(paragraph[start:end].split())
        start = end
        if count_passage_words(sentence) > most:
            yield from _cut_sentence(sentence, most)
        elif sentence:
            yield sentence


def _cut_sentence(sentence: str, most: int) -> Iterator[str]:
    """Parts of at most `most` words. A word that is longer itself is cut inside."""
    part = ""
    for word in sentence.split():
        width = most if UNSPACED_CHARACTER.search(word) else most * CHARACTERS_PER_WORD
        pieces = (
            [word[at : at + width] for at in range(0, len(word), width)] if count_passage_words(word) > most else [word]
        )
        for piece in pieces:
            longer = f"{part} {piece}".strip()
            if count_passage_words(longer) > most:
                yield part
                longer = piece
            part = longer
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
            indent = len(lines[first - 1]) - len(lines[first - 1].lstrip())
            # A line of a string may begin further left than the function.
            functions.append(
                "\n".join(
                    line if line[:indent].strip() else line[indent:] for line in lines[first - 1 : node.end_lineno]
                )
            )
        elif isinstance(node, ast.ClassDef | ast.If | ast.Try):
            waiting.extend(reversed(node.body))
    return functions
