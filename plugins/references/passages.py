"""Text as passages: whole paragraphs where they fit, else whole sentences."""

import re
from collections.abc import Iterator

from flows.data.reference_files import CHARACTERS_PER_WORD, UNSPACED_CHARACTER, count_passage_words

PARAGRAPH_END = re.compile(r"\n\s*\n")
SENTENCE_END = re.compile(r"""[.!?…]["'”’)\]]*\s+(?=["'“‘(\[]?[^\W_a-z])|[。！？]["'”’」』）]*|\n+""")
"""The end of a sentence before a capital, a digit or a letter without case, or of a line. "Mr. Smith" counts as an end too, which
only matters where a passage is full."""


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
