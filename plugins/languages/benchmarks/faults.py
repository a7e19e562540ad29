"""Plants faults in a text that keeps a rule, by the kind of the rule: edits of strings, without any function of the checks."""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

SENTENCE = {
    "de": "Außerdem lohnt es sich, noch einmal genau hinzusehen.",
    "fr": "De plus, cela vaut la peine de regarder encore une fois.",
    "es": "Además, vale la pena mirar todo una vez más.",
    "zh": "另外，这也值得再仔细看一遍。",
}
LONG = {
    "de": "Und weil das alles so ist, sollte man sich am Abend in Ruhe hinsetzen, den Tag noch einmal durchgehen und überlegen, "
    "was beim nächsten Mal besser gelingen könnte.",
    "fr": "Et comme tout cela est ainsi, il vaut mieux s’asseoir le soir au calme, repenser à la journée et se demander ce qui "
    "pourrait mieux réussir la prochaine fois.",
    "es": "Y como todo esto es así, conviene sentarse por la noche con calma, repasar el día entero y pensar en lo que podría "
    "salir mejor la próxima vez.",
    "zh": "因为事情就是这个样子所以晚上最好安安静静地坐下来把这一天从头到尾再想一遍看看下一次有什么地方可以做得更好一些",
}
NOT_A_FORM = {"de": "kram", "fr": "eur", "es": "illo", "zh": ""}
"""What makes another word of a word."""
OTHER_WORD = {"de": "Ding", "fr": "chose", "es": "cosa", "zh": "东西"}
MENTION = {"de": "Auch {} gehört dazu.", "fr": "Il y a aussi {}.", "es": "También está {}.", "zh": "还有{}。"}
SPEECH = {
    "de": "„Ich komme, wenn du rufst.“",
    "fr": "« Je viens si tu appelles. »",
    "es": "«Yo voy si tú me llamas.»",
    "zh": "“我来了，你等等。”",
}
WORDS = re.compile(r"[\u4e00-\u9fff]|[^\s\u4e00-\u9fff]+")


def plant_faults(kind: str, params: Mapping[str, Any], text: str, language: str) -> list[str]:
    """Texts that break the rule, each by one edit; all differ from `text`."""
    made = PLANTERS[kind](text, params, language)
    return [fault for fault in dict.fromkeys(made) if fault != text]


Planter = Callable[[str, Mapping[str, Any], str], Iterator[str]]


def _join(text: str, more: str, language: str) -> str:
    return text + ("" if language == "zh" else " ") + more


def _units(text: str, language: str) -> list[str]:
    return re.findall(r"[\u4e00-\u9fff]" if language == "zh" else r"\S*\w\S*", text)


def _too_long(text: str, p: Mapping[str, Any], language: str) -> Iterator[str]:
    limit, longer = p.get("high", p.get("n", 0)), text
    filler = _units(SENTENCE[language].rstrip(".。").replace(",", ""), language)
    at = 0
    while len(_units(longer, language)) < limit + 2:
        longer = _join(longer, filler[at % len(filler)], language)
        at += 1
    yield longer


def _too_short(text: str, p: Mapping[str, Any], language: str) -> Iterator[str]:
    least = p.get("low", p.get("n", 0))
    if language == "zh":
        places = [match.end() for match in re.finditer(r"[\u4e00-\u9fff]", text)]
        yield text[: places[least - 3]] + "。"
    else:
        yield " ".join(text.split()[: least - 2]) + "."


def _outside(text: str, p: Mapping[str, Any], language: str) -> Iterator[str]:
    yield from _too_long(text, p, language)
    yield from _too_short(text, p, language)


def _sentences(text: str, _p: Mapping[str, Any], language: str) -> Iterator[str]:
    yield _join(text, SENTENCE[language], language)
    yield text.rstrip("!.?。！？»”“ ")


def _long_sentence(text: str, _p: Mapping[str, Any], language: str) -> Iterator[str]:
    yield _join(text, LONG[language] + "。" * (language == "zh"), language)


def _paragraphs(text: str, _p: Mapping[str, Any], language: str) -> Iterator[str]:
    yield text.replace("\n\n", " ", 1)
    yield f"{text}\n\n{SENTENCE[language]}"


def _replace(text: str, word: str, other: str) -> str:
    return re.sub(re.escape(word), other, text, flags=re.IGNORECASE)


def _without_word(text: str, p: Mapping[str, Any], language: str) -> Iterator[str]:
    word = p["words"][-1]
    yield _replace(text, word, OTHER_WORD[language])
    if NOT_A_FORM[language]:
        yield re.sub(rf"{re.escape(word)}\w*", word + NOT_A_FORM[language], text, flags=re.IGNORECASE)


def _fewer(text: str, p: Mapping[str, Any], language: str) -> Iterator[str]:
    parts = re.split(re.escape(p["word"]), text, flags=re.IGNORECASE)
    yield (
        OTHER_WORD[language].join(parts[: len(parts) - p["n"] + 1])
        + p["word"]
        + OTHER_WORD[language].join(parts[len(parts) - p["n"] + 1 :])
    )


def _with_word(text: str, p: Mapping[str, Any], language: str) -> Iterator[str]:
    yield _join(text, MENTION[language].format(p["word"]), language)
    yield _join(text, MENTION[language].format(f"**{p['word']}**"), language)


def _with_letter(text: str, p: Mapping[str, Any], language: str) -> Iterator[str]:
    yield _join(text, MENTION[language].format(f"A{p['letter']}el"), language)
    yield _join(text, MENTION[language].format(p["letter"].upper()), language)


def _no_number(text: str, _p: Mapping[str, Any], language: str) -> Iterator[str]:
    yield re.sub(r"\d+", {"de": "viele", "fr": "plusieurs", "es": "varios", "zh": "几"}[language], text)


def _digit(text: str, _p: Mapping[str, Any], language: str) -> Iterator[str]:
    yield _join(text, MENTION[language].format("７" if language == "zh" else "7"), language)


def _other_start(text: str, p: Mapping[str, Any], language: str) -> Iterator[str]:
    yield _join(SENTENCE[language], text, language)
    yield "这" + text if language == "zh" else f"{p['word']}x{text[len(p['word']) :]}"


def _other_end(text: str, p: Mapping[str, Any], language: str) -> Iterator[str]:
    yield _join(text, SENTENCE[language], language)
    yield text.replace(p["ending"], "").rstrip()


def _no_end_question(text: str, _p: Mapping[str, Any], language: str) -> Iterator[str]:
    yield _join(text, SENTENCE[language], language)
    yield from _no_question(text, _p, language)


def _no_question(text: str, _p: Mapping[str, Any], language: str) -> Iterator[str]:
    yield re.sub(r"\s?[?？]", "。" if language == "zh" else ".", text)
    if language == "es":
        yield text.replace("¿", "")


def _no_exclamation_end(text: str, _p: Mapping[str, Any], language: str) -> Iterator[str]:
    yield re.sub(r"\s?[!！]$", "。" if language == "zh" else ".", text)
    if language == "es":
        yield text.replace("¡", "")


def _comma(text: str, _p: Mapping[str, Any], language: str) -> Iterator[str]:
    first = re.search(r"\w+", text.split("\n")[-1])
    assert first
    yield text + ("另外，很好。" if language == "zh" else " " + SENTENCE[language].split(".")[0] + ", 2.")


def _exclamation(text: str, _p: Mapping[str, Any], language: str) -> Iterator[str]:
    mark = {"de": "!", "fr": " !", "es": "!", "zh": "！"}[language]
    yield re.sub(r"[.。]$", mark, text)
    yield _join(text, SENTENCE[language].rstrip(".。") + mark, language)


def _capital(text: str, _p: Mapping[str, Any], _language: str) -> Iterator[str]:
    yield text[0].upper() + text[1:]
    words = text.split()
    yield text.replace(words[-1], words[-1].capitalize())


def _small(text: str, _p: Mapping[str, Any], _language: str) -> Iterator[str]:
    yield text[0] + text[1:2].lower() + text[2:]
    words = text.split()
    yield text.replace(words[-1], words[-1].lower())


def _list_faults(text: str, _p: Mapping[str, Any], language: str) -> Iterator[str]:
    lines = text.split("\n")
    yield "\n".join(lines[:-1])
    yield "\n".join([SENTENCE[language], *lines])


def _numbering(text: str, p: Mapping[str, Any], language: str) -> Iterator[str]:
    yield from _list_faults(text, p, language)
    yield text.replace("\n2.", "\n3.")


def _unquoted(text: str, _p: Mapping[str, Any], language: str) -> Iterator[str]:
    yield text[:-1]
    yield _join(text, SENTENCE[language], language)
    words = text.split(" ") if language != "zh" else [text[:6], text[6:]]
    yield text[1:-1].strip() if len(words) < 2 else f"{text[0]}{text[1:4]}{text[-1]}{text[4:]}"


def _keys(text: str, p: Mapping[str, Any], _language: str) -> Iterator[str]:
    value = json.loads(text)
    first = p["keys"][0]
    yield json.dumps({key if key != first else "x" + key: one for key, one in value.items()}, ensure_ascii=False)
    yield json.dumps({first: value[first]}, ensure_ascii=False)
    yield text[:-1]


def _bold(text: str, _p: Mapping[str, Any], language: str) -> Iterator[str]:
    yield text.replace("**", "")
    first = re.search(r"[^.。！!?？]{9,}", text.replace("**", ""))
    assert first
    yield text.replace("**", "").replace(first[0], f"**{first[0].strip()}**", 1)
    yield _join(text, f"**{OTHER_WORD[language]}**", language)


def _heading(text: str, _p: Mapping[str, Any], language: str) -> Iterator[str]:
    yield text.removeprefix("# ")
    yield f"{SENTENCE[language]}\n\n{text}"
    yield text.split("\n")[0]


def _postscript(text: str, _p: Mapping[str, Any], language: str) -> Iterator[str]:
    body, _, last = text.rpartition("\n")
    yield body.strip()
    yield f"{text}\n\n{SENTENCE[language]}"
    yield f"{body}\n{last.removeprefix('P.S.').strip()}"


def _impersonal(_text: str, _p: Mapping[str, Any], language: str) -> Iterator[str]:
    yield SENTENCE[language]
    yield _join(SENTENCE[language], SPEECH[language], language)


def _order(text: str, p: Mapping[str, Any], language: str) -> Iterator[str]:
    words = p["words"]
    yield _replace(text, words[0], OTHER_WORD[language])
    yield _join(MENTION[language].format(words[-1]), text, language)


def _table(text: str, _p: Mapping[str, Any], _language: str) -> Iterator[str]:
    lines = text.split("\n")
    last = max(place for place, line in enumerate(lines) if line.startswith("|"))
    yield "\n".join([*lines[:last], *lines[last + 1 :]])
    yield "\n".join([*lines[:last], f"{lines[last]} + |", *lines[last + 1 :]])
    yield text.replace("|---|", "|")


def _sections(text: str, _p: Mapping[str, Any], language: str) -> Iterator[str]:
    head = re.match(r"#+ ", text)
    assert head
    yield f"{text}\n\n{head[0]}{OTHER_WORD[language]}\n\n{SENTENCE[language]}"
    yield text[len(head[0]) :]


def _titles(text: str, p: Mapping[str, Any], language: str) -> Iterator[str]:
    yield text.replace(p["titles"][0], OTHER_WORD[language], 1)
    parts = re.split(r"(?m)^(?=# )", text)
    yield "".join(f"{part.strip()}\n\n" for part in parts[::-1]).strip()


def _unsorted(text: str, p: Mapping[str, Any], language: str) -> Iterator[str]:
    lines = text.split("\n")
    yield "\n".join([*lines[1::-1], *lines[2:]])
    yield "\n".join(lines[:-1])


PLANTERS: Mapping[str, Planter] = {
    "max_words": _too_long, "long_max_words": _too_long, "min_words": _too_short, "long_min_words": _too_short,
    "words_between": _outside, "long_words_between": _outside, "exact_sentences": _sentences,
    "max_sentence_words": _long_sentence, "exact_paragraphs": _paragraphs, "include_words": _without_word,
    "include_two_words": _without_word, "mention_times": _fewer, "avoid_word": _with_word, "avoid_letter": _with_letter,
    "include_number": _no_number, "no_digits": _digit, "start_with": _other_start, "end_with": _other_end,
    "end_question": _no_end_question, "ask_question": _no_question, "end_exclamation": _no_exclamation_end,
    "no_commas": _comma, "no_exclamation": _exclamation, "lowercase": _capital, "uppercase": _small,
    "bullets": _list_faults, "numbered": _numbering, "in_quotes": _unquoted, "json_keys": _keys, "bold_word": _bold,
    "heading": _heading, "postscript": _postscript, "second_person": _impersonal, "first_person": _impersonal,
    "words_in_order": _order, "table": _table, "sections": _sections, "section_titles": _titles,
    "sorted_bullets": _unsorted,
}  # fmt: skip
