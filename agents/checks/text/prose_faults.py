"""Faults of short prose that code can see: off the topic, unfinished, going round in circles, copied from the prompt.

Knows nothing of truth: prose without these faults can still be wrong.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

from agents.checks.text.text_units import ENGLISH, fold_to_plain_letters, remove_invisible, split_sentences, split_words

MAX_SAME_WORD = 2
"""Allowed uses of a content word in a short text; a word of the topic may be used one more time."""

CIRCLE_NGRAM = 4
"""A run of this many words that comes twice in a text of a few sentences is a circle."""

ECHO_NGRAM = 6
"""A run of this many words that also occurs in an example of the prompt is copied from it."""

REQUEST_NGRAM = 8
"""The same for the request, whose topic and shortest task an answer may well repeat: why people like riding a bicycle."""

FUNCTION_WORDS = frozenset(ENGLISH["plain_words"].split())


def strip_ending(word: str) -> str:
    """`word` in lower case without a common English ending, at least three letters long."""
    return re.sub(r"(?<=...)(?:ies|ing|es|ed|s|y|e)$", "", word.lower().replace("'s", ""))


def content_word_stems(text: str) -> list[str]:
    return [strip_ending(word) for word in split_words(text) if word.lower() not in FUNCTION_WORDS]


# Topics

VAGUE_WORDS = frozenset(ENGLISH["vague_words"].split())
"""What a topic may be, and everything else too: `good books` are books."""
COMPOUND_ENDINGS = frozenset(ENGLISH["compound_endings"].split())
"""What a word is compounded with and stays near its sense: sunlight, and not Sunday."""
DERIVATIONAL_ENDINGS = ("ful", "ous", "less", "ly", "al", "ist", "ists", "er", "ers")
MIN_DERIVED = 5
"""Letters of a word before an ending that derives another of it: gardener is of garden, corner is not of corn."""
CLOSED_SYLLABLE = re.compile(r"[^aeiou]*[aeiou][^aeiouwxy]")
"""A short syllable, which doubles its last letter before an ending: riding is not of rid."""


def find_topic_fault(answer: str, topic: str) -> str | None:
    """The fault, or None if `answer` has a form of a content word of `topic`, or a word derived from one."""
    words = [word for word in split_words(remove_invisible(topic).lower()) if word not in FUNCTION_WORDS]
    joined = ["".join(pair) for pair in pairwise(words)]
    wanted = [*([word for word in words if word not in VAGUE_WORDS] or words), *joined]
    answer_words = {word.lower() for word in split_words(remove_invisible(answer))}
    for word in answer_words:
        doer = re.fullmatch(r"(\w{2,})(?:ers?|ery|eries)", word)
        for topical in wanted:
            bases = _word_bases(topical)
            deed = [f"{doer[1]}ing"] if doer and topical.endswith("ing") else []
            if any(bases & _word_bases(form) for form in (word, *deed)) or any(
                word.startswith(base) and word[len(base) :] in COMPOUND_ENDINGS for base in bases if len(base) > 2
            ):
                return None
    return f"it has no word of the topic {topic!r}"


def _word_bases(word: str) -> set[str]:
    """`word` and all that it may be a form of, by how English spells its endings."""
    word = re.sub("['’]s?$", "", word.lower())
    singular = {word}
    if word.endswith("ies"):
        singular |= {word[:-1], f"{word[:-3]}y"}
    elif word.endswith("ves"):
        singular |= {word[:-1], f"{word[:-3]}f", f"{word[:-3]}fe"}
    elif re.search(r"(?:s|x|z|ch|sh|o)es$", word):
        singular |= {word[:-1], word[:-2]}
    elif re.search(r"[^sui]s$", word):
        singular |= {word[:-1]}
    return singular.union(*(_candidate_bases(form) for form in singular if form == word or not form.endswith("y")))


def _candidate_bases(word: str) -> Iterator[str]:
    for ending in ("ing", "ed", "y"):
        stem = word.removesuffix(ending)
        if stem == word or len(stem) < 3:
            continue
        yield f"{stem}e"
        doubled = stem[-1] == stem[-2]
        if doubled:
            yield stem[:-1]
        if not CLOSED_SYLLABLE.fullmatch(stem) and (not doubled or stem[-1] in "flsz"):
            yield stem
    for ending in DERIVATIONAL_ENDINGS:
        stem = word.removesuffix(ending)
        if stem != word and len(stem) >= MIN_DERIVED:
            yield from (stem, f"{stem}e")


# Prose

MAX_HYPHENATED_CHARACTERS = 80
"""Characters of the longest word, hyphenated ones included."""
NON_FINAL_WORDS = frozenset("a an the and or but because although my your our their every".split())
"""Words that end no sentence of English."""
SENTENCE_ENDING = re.compile(r"[.!?][\"'”’)]*$")
TRAILING_OFF = re.compile(r"(?:\.\.|…)[\"'”’)]*$")
UNENDED_LINE = re.compile(r"[^.!?:;,\"'”’)\s][ \t]*+\n(?:\s*+(?=[A-Z]|[-*•] |\d+[.)] )|[ \t]*+\n)")
"""A line without an end, and after it a gap, a capital or an item of a list."""
PLACEHOLDER = re.compile(
    r"\[(?:insert|your|add|name)\b|\{\{|<(?:insert|your)\b|\blorem ipsum\b|^\W*todo\b", re.IGNORECASE
)
ROLE_LABEL = re.compile(r"^\W*(?:user|human|assistant|ai|system)\W*:", re.IGNORECASE | re.MULTILINE)


def find_prose_fault(answer: str, topic: str, examples: Iterable[str] = (), asked: Iterable[str] = ()) -> str | None:
    """The first fault of `answer` as prose on `topic`, or None. It must copy neither `examples` nor the texts in `asked`."""
    shown = remove_invisible(answer).strip()
    if not re.search(r"[^\W\d_]", shown):
        return "it has no words"
    if not SENTENCE_ENDING.search(shown) or TRAILING_OFF.search(shown):
        return "its last sentence is not finished"
    if UNENDED_LINE.search(shown):
        return "a line of it is not finished"
    last_words = [word for sentence in split_sentences(shown) for word in split_words(sentence)[-1:]]
    if unfinished := next((word for word in last_words if word in NON_FINAL_WORDS), None):
        return f"a sentence is not finished: it ends with {unfinished!r}"
    if part := ROLE_LABEL.search(shown):
        return f"it plays a conversation: {part.group()!r}"
    if placeholder := PLACEHOLDER.search(shown):
        return f"it leaves a place to be filled: {placeholder.group()!r}"
    if not content_word_stems(shown):
        return "it says nothing: all its words are small ones"
    if (longest := max(map(len, split_words(shown)))) > MAX_HYPHENATED_CHARACTERS:
        return f"it has a word of {longest} characters"
    plain = fold_to_plain_letters(answer).replace("’", "'")
    copied = _copy_fault(plain, examples, ECHO_NGRAM, "an example") or _copy_fault(
        plain, asked, REQUEST_NGRAM, "the request"
    )
    return _repetition_fault(plain, split_sentences(plain), topic) or copied


def _repetition_fault(answer: str, sentences: Sequence[str], topic: str) -> str | None:
    words = split_words(answer)
    if twice := re.search(r"\b(\w+)(?:\s+(?:and|or)\b|,)?[\s-]+(?:very\s+)?\1\b", answer):
        return f"it says {twice.group(1)!r} twice in a row"
    sentence_counts = Counter(" ".join(split_words(sentence)) for sentence in sentences)
    runs = Counter(_word_ngrams(words, CIRCLE_NGRAM))
    for run, times in (*runs.most_common(1), *sentence_counts.most_common(1)):
        if times > 1:
            return f"it repeats {run!r}"
    own = set(content_word_stems(topic))
    for stem, times in Counter(content_word_stems(answer)).most_common():
        if times > MAX_SAME_WORD + (stem in own):
            return f"it uses {stem!r} {times} times"
    for sentence in sentences:
        stem, times = max(Counter(content_word_stems(sentence)).items(), key=lambda item: item[1], default=("", 0))
        if times > 1:  # "A garden is a garden where you grow things" defines nothing
            return f"it says {stem!r} twice in one sentence"
    return None


def _copy_fault(plain: str, texts: Iterable[str], length: int, where: str) -> str | None:
    runs = set(_word_ngrams(split_words(plain), length))
    for text in texts:
        if shared := runs & set(_word_ngrams(split_words(fold_to_plain_letters(text).replace("’", "'")), length)):
            return f"it copies {min(shared)!r} from {where}"
    return None


def _word_ngrams(words: Sequence[str], length: int) -> Iterator[str]:
    return (" ".join(words[i : i + length]) for i in range(len(words) - length + 1))
