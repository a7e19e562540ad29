"""Texts that name each field, with right values in two of three cases, and a reader that takes the first fitting values.

Each kind of mistake has its rate: a wrong number or word, a wrong type, an extra key, a required field that is missing, a
left-out field that is present, a decoy that is not in the text.
"""

import json
import re
from collections.abc import Iterator, Mapping
from random import Random
from typing import Any

from teachers.base import TeacherQuestion
from teachers.fake.script_parts import COMMON, WORDS, TeacherScript

MONTHS = "January February March April May June July August September October November December".split()
NUMBER_WORDS = "zero one two three four five six seven eight nine ten eleven twelve".split()
SOME_ITEMS = re.compile(r"^In (\S+): (?:tell .+? of each item; )?tell (.+?) of at least one item", re.MULTILINE)
INFERRED = re.compile(r"^Let a reader infer, .+?, that (\w+) is (\w+) ", re.MULTILINE)
LENGTH = re.compile(r" of about (\d{3,}) words")
MISTAKES = ("value", "type", "extra", "empty", "left out", "decoy")
CORRECT_SHARE = 0.66
"""Share of the drafts without a mistake on purpose."""


def _write_text_draft(rng: Random, question: TeacherQuestion) -> dict[str, Any]:
    schema, request = question.json_schema or {}, _find_request(question)
    lines: list[str] = []
    noted = _parse_noted_schema(request)
    plans = {found[1]: found[2].split(", ") for found in SOME_ITEMS.finditer(request)}
    plans |= {found[1]: [found[2]] for found in INFERRED.finditer(request)}
    values = _make_value(schema["properties"]["values"], noted, noted, rng, [], lines, plans)
    text = _lay_out(["Dear all, here is the news.", *lines, "So much for today."], request)
    draft = {"text": text, "values": values}
    if "decoy" in schema["properties"]:
        draft |= {"decoy": f"Zed {rng.choice(WORDS).title()}"}
        draft["text"] += f" {draft['decoy']} has nothing to do with it."
    if rng.random() > CORRECT_SHARE:
        _add_mistake(rng.choice(MISTAKES), draft, rng, request)
    return draft


def _lay_out(lines: list[str], request: str) -> str:
    """The sentences in the form that is asked for, by words of the request."""
    style = request.partition(" words.")[0]
    plain = [line.replace("\n", " ") for line in lines]
    if "HTML" in style:
        return "\n".join(f"<div><p>{line}</p></div>" for line in plain)
    if "table" in style or "CSV" in style:
        return "\n".join(["| part | note |", "|---|---|", *(f"| note | {line} |" for line in plain)])
    if "Label: value" in style:
        return "\n".join(f"Note: {line}" for line in plain)
    text = " ".join(lines)
    if length := LENGTH.search(style):
        text += " And so on, as before." * max(0, (int(length[1]) - len(text.split())) // 5)
    return f"Subject: News\n\n{text}" if "e-mail" in style else text


def _write_values_draft(rng: Random, question: TeacherQuestion) -> dict[str, Any]:
    """Takes the first numbers and words of the text that fit, one time in four changed."""
    text = _find_request(question).partition("Text: ")[2].rpartition("\nSchema: ")[0]
    numbers = iter(re.findall(r"(?<!\S)\d{1,6}(?!\S)", text))
    words = iter(re.findall(r"[A-Za-z]{5,}", text))
    schema = question.json_schema or {}
    values = _take_value(schema["properties"]["values"], schema, numbers, words)
    if rng.random() < 0.25:
        _add_mistake("value", {"values": values}, rng, "")
    return {"values": values}


def _write_solution(rng: Random, _question: TeacherQuestion) -> dict[str, Any]:
    """An answer that is an object, for the check `agreement`; the text is not read."""
    return {"solution": "A text about this and that.", "answer": json.dumps({"word": rng.choice(WORDS)})}


def _find_request(question: TeacherQuestion) -> str:
    """The last request with its schema; a revision or a repair may follow it."""
    return next(m.content for m in reversed(question.messages) if m.role == "user" and "\nSchema: " in m.content)


def _parse_noted_schema(request: str) -> dict[str, Any]:
    """The schema with the words for its values."""
    parsed: dict[str, Any] = json.loads(request.rpartition("\nSchema: ")[2])
    return parsed


def _make_value(
    schema: Mapping[str, Any],
    noted: Any,
    root: Mapping[str, Any],
    rng: Random,
    path: list[str],
    lines: list[str],
    plans: Mapping[str, list[str]],
) -> Any:
    """A value by `schema`, and sentences that state it; `noted` is the same part of the schema with its notes, `plans` are
    the fields by list that only some items have.
    """
    schema, noted = _resolve_schema(schema, root), _resolve_schema(noted if isinstance(noted, dict) else {}, root)
    if "oneOf" in schema:
        choice = rng.randrange(len(schema["oneOf"]))
        schema, noted = schema["oneOf"][choice], noted.get("oneOf", schema["oneOf"])[choice]
    if "properties" in schema:
        parts = noted.get("properties", {})
        return {
            n: _make_value(p, parts.get(n, p), root, rng, [*path, n], lines, plans)
            for n, p in schema["properties"].items()
        }
    if schema.get("type") == "array":
        fewest = max(1, schema.get("minItems", 1))
        count = rng.randint(fewest, max(fewest, min(3, schema.get("maxItems", 3))))
        some = plans.get(".".join(path), [])
        items = []
        for i in range(max(count, 2 if some else 1)):
            item, item_noted = schema["items"], noted.get("items", {})
            if some and i == 0:  # of the first item nothing is told that only some items tell
                item = _resolve_schema(item, root)
                item = {
                    **item,
                    "properties": {name: part for name, part in item["properties"].items() if name not in some},
                }
            items.append(_make_value(item, item_noted, root, rng, path, lines, plans))
        return list({json.dumps(item): item for item in items}.values())
    if noted.get("x-inferred"):
        return plans[path[-1]][0]
    value, wording = _make_leaf(schema, noted, rng)
    if isinstance(value, bool):
        lines.append(f"Mind: {wording}.")
    elif value is not None:
        lines.append(f"The {' '.join(path).replace('_', ' ')} is {wording}.")
    return value


def _make_leaf(schema: Mapping[str, Any], noted: Mapping[str, Any], rng: Random) -> tuple[Any, str]:
    """A value and its wording."""
    evidence = noted.get("x-evidence", {})
    evidence = evidence if isinstance(evidence, dict) else {}
    if "const" in schema or "enum" in schema:
        value = schema["const"] if "const" in schema else rng.choice([v for v in schema["enum"] if v is not None])
        return value, rng.choice([value, *evidence.get(value, [])]).replace("_", " ")
    if schema.get("type") == "boolean":
        flag = rng.random() < 0.5
        return flag, rng.choice(evidence.get(str(flag).lower(), ["so"]))
    if schema.get("type") in ("integer", "number"):
        whole = rng.randint(int(schema.get("minimum", 1)), int(schema.get("maximum", 5_000)))
        if schema["type"] == "number" and rng.random() < 0.3:
            return whole + 0.5, f"{whole:,}.50"
        return whole, NUMBER_WORDS[whole] if whole < 13 else f"{whole:,}"
    if schema.get("type") == "null":
        return None, ""
    if schema.get("format") == "date":
        year, month, day = rng.randint(1990, 2030), rng.randint(1, 12), rng.randint(1, 28)
        forms = (
            f"{day} {MONTHS[month - 1]} {year}",
            f"{MONTHS[month - 1]} {day}, {year}",
            f"{year}-{month:02}-{day:02}",
        )
        return f"{year}-{month:02}-{day:02}", rng.choice(forms)
    if "pattern" in schema:
        hour, minute = rng.randint(0, 23), rng.randint(0, 59)
        twelve = f"{(hour + 11) % 12 + 1}:{minute:02} {'pm' if hour >= 12 else 'am'}"
        return f"{hour:02}:{minute:02}", rng.choice((f"{hour:02}:{minute:02}", twelve))
    words = " ".join(rng.choice(WORDS) for _ in range(rng.randint(1, 3))).title()
    return words, rng.choice((words, words.upper(), words.replace(" ", "\n")))


def _resolve_schema(schema: Mapping[str, Any], root: Mapping[str, Any]) -> Mapping[str, Any]:
    while "$ref" in schema:
        schema = root["$defs"][schema["$ref"].rpartition("/")[2]]
    types = schema.get("type")
    if isinstance(types, list):
        schema = {**schema, "type": next(kind for kind in types if kind != "null")}
    return schema


def _add_mistake(kind: str, draft: dict[str, Any], rng: Random, asked: str) -> None:
    values = draft["values"]
    holder, key = rng.choice(list(_leaf_places(values)) or [(values, "nothing")])
    left_out = re.search(r"^Do not tell: (.+?)\. Tell", asked, re.MULTILINE)
    value = holder.get(key)
    if kind == "value" and isinstance(value, bool):
        holder[key] = not value
    elif kind == "value" and isinstance(value, int | float):
        holder[key] = value + 7_001
    elif kind == "value":
        holder[key] = f"{value[:-1]}{rng.choice('13579xyz')}" if isinstance(value, str) else "Mxyzptlk"
    elif kind == "type":
        holder[key] = [value]
    elif kind == "extra":
        values["remarks"] = "news"
    elif kind == "empty":
        holder[key] = None
    elif kind == "left out" and left_out and "." not in left_out[1].split(", ")[0]:
        values[left_out[1].split(", ")[0]] = "news"
    elif kind == "decoy" and "decoy" in draft:
        draft["decoy"] = "Nobody Here"


def _leaf_places(value: Any) -> Iterator[tuple[dict[str, Any], str]]:
    """The leaves of `value`, each as its parent object and its name there."""
    for key, inner in value.items() if isinstance(value, dict) else ():
        if isinstance(inner, dict | list):
            for item in inner if isinstance(inner, list) else [inner]:
                yield from _leaf_places(item)
        else:
            yield value, key


def _take_value(
    schema: Mapping[str, Any], root: Mapping[str, Any], numbers: Iterator[str], words: Iterator[str]
) -> Any:
    part = _resolve_schema(schema, root)
    if "properties" in part:
        return {name: _take_value(inner, root, numbers, words) for name, inner in part["properties"].items()}
    if part.get("type") == "array":
        return [_take_value(part["items"], root, numbers, words)]
    if part.get("type") in ("integer", "number"):
        value = next(numbers, None)
        return None if value is None else int(value)
    plain = part.get("type") == "string" and not {"enum", "format", "pattern"} & part.keys()
    return next(words, None) if plain else None


SCRIPT: TeacherScript = {
    **COMMON,
    "TextDraft": _write_text_draft,
    "ValuesDraft": _write_values_draft,
    "Solution": _write_solution,
}
