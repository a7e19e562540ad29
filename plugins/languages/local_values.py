"""The checks `occurs` and `complete` of extraction, for German, French, Spanish and Chinese: values occur in the text, in the
forms of its language. Knows no teacher.

It cannot see to which item of a list or to which field a value of the text belongs.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date, time
from fractions import Fraction
from typing import Any

from agents.checks import Finding, Options, Subject, build_finding, check
from agents.checks.json_schema import get_required
from agents.checks.text.value_in_text import (
    EMPTY_WORDS,
    EVIDENCE_KEYWORD,
    INFERRED_KEYWORD,
    MAX_REPORTED_FAULTS,
    OccursOptions,
    ValueLeaf,
    is_choice,
    iter_leaves,
)
from agents.families.extraction import complete_check
from plugins.languages.local_quantities import LocalText, normalize_phrase, read_local_text
from plugins.languages.rules import LANGUAGES
from plugins.languages.units import read_wordings

DENIED_WORDS = 2
"""Words before a term of which one may deny it: `ist nicht dringend`."""
DENIED_CHARACTERS = 2
"""Chinese characters before a term."""


@check("occurs", OccursOptions, languages=LANGUAGES)
def local_occurs_check(subject: Subject, options: OccursOptions) -> str | None:
    """Every value must occur in the text: strings as they are, numbers, dates and times as its language writes them."""
    candidate, seed = subject.candidate.fields, subject.seed.data
    text = get_required({**seed, **candidate}, options.text, "neither the candidate nor the seed")
    values = get_required(candidate, options.field, "the candidate")
    schema = seed.get(options.wanted) or {}
    faults = find_local_value_faults(values, text, schema, seed["language"], options.share)
    return "; ".join(faults[:MAX_REPORTED_FAULTS]) or None


@check("complete", attempt=complete_check.attempt, languages=LANGUAGES)
def local_complete_check(subject: Subject, options: Options) -> list[Finding]:
    """Every field that the seed demands has a value, none that it leaves out has one, list items follow their plan, and the
    decoy is in the text only.
    """
    seed, fields = subject.seed, subject.candidate.fields
    plain = seed.model_copy(update={"data": {**seed.data, "decoy": ""}})
    findings: list[Finding] = list(complete_check.run(subject._replace(seed=plain), options))  # type: ignore[arg-type]
    if seed.data["decoy"]:
        fault = _find_decoy_fault(fields, seed.data)
        findings.append(build_finding("decoy", fault, "the decoy is in the text and in no value"))
    return findings


def _find_decoy_fault(fields: Mapping[str, Any], seed: Mapping[str, Any]) -> str | None:
    decoy, language = fields["decoy"], seed["language"]
    if not any(character.isalnum() for character in decoy):
        return f"the text must also have {seed['decoy']}; name it as decoy"
    if not read_local_text(fields["text"], language).contains_phrase(decoy):
        return f"the decoy {decoy[:80]!r} is not in the text"
    written = LocalText(decoy, language)
    for leaf in iter_leaves(fields["values"], seed["schema"]):
        if leaf.value is None or isinstance(leaf.value, bool) or is_choice(leaf):
            continue
        if find_local_leaf_fault(leaf, written) is None or LocalText(str(leaf.value), language).contains_phrase(decoy):
            return f"{decoy[:80]!r} is a value too; {seed['decoy']} must differ from all values"
    return None


def find_local_value_faults(
    values: Any, text: str, schema: Mapping[str, Any], language: str, share: float
) -> list[str]:
    """The values that the text does not contain, a sentence each."""
    written, faults = read_local_text(text, language), []
    for leaf in iter_leaves(values, schema):
        if any(part.schema.get(INFERRED_KEYWORD) for part in leaf.parts):
            continue
        too_long = isinstance(leaf.value, str) and len(leaf.value) > share * len(text)
        fault = (
            "is most of the text; a value is a small part of it" if too_long else find_local_leaf_fault(leaf, written)
        )
        if fault:
            faults.append(f"{leaf.path or 'the value'} {fault}")
    return faults


def find_local_leaf_fault(leaf: ValueLeaf, written: LocalText) -> str | None:
    """Why the text does not support the leaf, beginning with a verb; None if it does."""
    terms = _list_terms(leaf)
    if leaf.value is None:
        in_list = any(step.isdigit() for step in leaf.path.split("."))
        said = set() if in_list else find_said(terms, written)
        return (
            f"is left empty, but the text has words for it: {', '.join(sorted(terms[min(said)][:3]))}" if said else None
        )
    if is_choice(leaf) or isinstance(leaf.value, bool):
        return _find_choice_fault(leaf, terms, written)
    if isinstance(leaf.value, int | float):
        exact = Fraction(str(leaf.value))
        return None if exact in written.numbers else f"is {leaf.value}, a number that is not in the text"
    return _find_text_fault(str(leaf.value), written)


def _list_terms(leaf: ValueLeaf) -> dict[str, list[str]]:
    """Words of `x-evidence` by the value that they express; under the empty name, words about the field only."""
    merged: dict[str, list[str]] = {}
    for part in leaf.parts:
        evidence = part.schema.get(EVIDENCE_KEYWORD, {})
        if isinstance(evidence, list):
            evidence = {"true" if part.schema.get("type") == "boolean" else "": evidence}
        for key, some in evidence.items():
            merged.setdefault(key, []).extend(some)
    return merged


def find_said(terms: Mapping[str, Sequence[str]], written: LocalText) -> set[str]:
    """The values whose words the text has. Longer words win over those that they contain, and a denied word says nothing."""
    text, said = written.phrases, set[str]()
    pairs = [(normalize_phrase(term, written.language), key) for key, some in terms.items() for term in some]
    for term, key in sorted(pairs, key=lambda pair: -len(pair[0])):
        edges = ("", "") if written.language == "zh" else (r"(?<![^\W_])", r"(?:e[nmrs]?|s)?(?![^\W_])")
        for match in reversed([*re.finditer(f"{edges[0]}{re.escape(term)}{edges[1]}", text)]):
            if not _is_denied(text[: match.start()], written.language):
                said.add(key)
            text = f"{text[: match.start()]}{'|' * len(match[0])}{text[match.end() :]}"
    return said


def _is_denied(before: str, language: str) -> bool:
    denials = read_wordings(language)["denials"].split()
    if language == "zh":
        return any(word in before[-DENIED_CHARACTERS:] for word in denials)
    words = re.findall(r"[^\W_]+", re.split(r"[.!?;:,|]", before[-60:])[-1])[-DENIED_WORDS:]
    return any(word in denials for word in words)


def _find_choice_fault(leaf: ValueLeaf, terms: Mapping[str, Sequence[str]], written: LocalText) -> str | None:
    name = leaf.value if isinstance(leaf.value, str) else json.dumps(leaf.value)
    allowed = [value for part in leaf.parts for value in _list_choices(part.schema) if value is not None]
    if len(allowed) == 1:
        return None  # the schema allows no other value
    named: Mapping[str, Sequence[str]] = {
        str(value): [str(value), *terms.get(str(value), ())] for value in allowed
    } or terms
    said = find_said(named, written)
    in_list = any(step.isdigit() for step in leaf.path.split("."))
    if isinstance(leaf.value, bool):
        if others := said - {name, ""} if not in_list else set():
            return f"is {name}, but the text has words for {min(others)}"
        if name not in terms:
            return None  # only the other value has words
    if name in said:
        return None
    return f"is {name}, but the text has none of {', '.join(map(repr, named.get(name, [name])[:4]))}"


def _list_choices(schema: Mapping[str, Any]) -> Iterable[Any]:
    choices: Iterable[Any] = schema.get("enum", [schema["const"]] if "const" in schema else [])
    return choices


def _find_text_fault(value: str, written: LocalText) -> str | None:
    if not any(character.isalnum() for character in value) or value.casefold() in EMPTY_WORDS:
        return f"is {value!r}, which says nothing; use null"
    if re.fullmatch(r"\d{4}-\d\d-\d\d", value) and (days := list(_parse(date, value))):
        return None if days[0] in written.dates else f"is {value}, which the text does not say with day, month and year"
    if re.fullmatch(r"\d\d:\d\d(?::00)?", value) and (clocks := list(_parse(time, value))):
        return None if clocks[0] in written.times else f"is {value}, which the text does not say as a time of day"
    return None if written.contains_phrase(value) else f"is {value[:80]!r}, which is not in the text"


def _parse(kind: type[date] | type[time], value: str) -> Iterator[date | time]:
    try:
        yield kind.fromisoformat(value)
    except ValueError:
        return
