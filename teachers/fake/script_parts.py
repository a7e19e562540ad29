"""Shared parts of fake teachers' scripts: words, sentences, and a critic that sometimes gives low scores."""

from collections.abc import Callable, Mapping
from random import Random
from typing import Any

from teachers.base import TeacherQuestion

TeacherScript = Mapping[str, Callable[[Random, TeacherQuestion], dict[str, Any]]]
"""Functions that write a reply, by the name of its schema."""
WORDS = """air answer basket bell bird boat book bread bridge bright brook calm candle careful chair cloud coat color
corner country cup curious door dream early evening family field fire fish flag flower forest fresh friend
garden gentle glass green ground hand harbor hill honest house island kind lake lamp letter light little meadow
milk moon morning mountain music narrow new night ocean old open orange page paper path patient pencil picture
plant pleasant poem quick quiet rain river road room round salt sand school season shore silver simple small
snow soft song spring stone story street summer sun sweet table tall tea tree valley village voice warm water
weather wide wind window winter wise wood yellow""".split()
VERBS = (
    "brings carries finds follows gives hears holds keeps knows likes makes meets needs opens sees shows takes".split()
)


def write_sentence(rng: Random, subject: str) -> str:
    shape = [subject, rng.choice(VERBS), "a", rng.choice(WORDS), rng.choice(WORDS)]
    if rng.random() < 0.5:
        shape += ["and", "a", rng.choice(WORDS), rng.choice(WORDS), "near", "the", rng.choice(WORDS)]
    text = " ".join(shape)
    return text[0].upper() + text[1:] + "."


def write_thinking(rng: Random, question: TeacherQuestion) -> str:
    """Thinking about a question, which it names: two sentences and a sum, in which a wrong result is rare."""
    asked = " ".join(question.messages[-1].content.split()[:6])
    left, right = rng.randint(2, 9), rng.randint(2, 9)
    total = left + right + (rng.random() < 0.1)
    return f"I read: {asked}. {write_sentence(rng, 'It')}\nFirst {left} + {right} = {total}, so I can answer."


def _write_review(rng: Random, question: TeacherQuestion) -> dict[str, Any]:
    scores = {rubric: rng.choice((2, 4, 4, 5)) for rubric in requested_rubrics(question)}
    low = [rubric for rubric, score in scores.items() if score < 3]
    faults: list[Any] = [f"{rubric} could be better" for rubric in low]
    if "QuotedFault" in (question.json_schema or {}).get("$defs", {}):
        words = " ".join(question.messages[-1].content.split()[-3:])
        faults = [{"quote": words, "fault": fault} for fault in faults]
    return {"scores": scores, "faults": faults, "advice": f"Mend the {low[0]}." if low else "Keep it."}


def requested_rubrics(question: TeacherQuestion) -> list[str]:
    """The rubrics that a critic scores."""
    return list((question.json_schema or {})["properties"]["scores"]["properties"])


def _write_judgement(rng: Random, question: TeacherQuestion) -> dict[str, Any]:
    """Independent of the order of the choices in nine of ten replies."""
    asked = question.messages[-1].content
    good = "A" if "\nA: a good" in asked else "B"
    likes = Random(asked.partition("\nA: ")[0]).random() < 0.7
    verdict = good if likes else "AB"[good == "A"]
    return {
        "reason": "It reads well." if likes else "It goes astray.",
        "verdict": verdict if rng.random() < 0.9 else rng.choice("AB"),
    }


def draw_value(rng: Random, schema: Mapping[str, Any], whole: Mapping[str, Any] | None = None) -> Any:
    """A random value that matches a pydantic model's JSON schema; `whole` contains the definitions that it refers to."""
    whole = whole or schema
    if "$ref" in schema:
        return draw_value(rng, whole["$defs"][schema["$ref"].rpartition("/")[2]], whole)
    if choices := schema.get("anyOf") or schema.get("oneOf"):
        return draw_value(rng, rng.choice(choices), whole)
    if "enum" in schema or "const" in schema:
        return rng.choice(schema.get("enum") or [schema["const"]])
    kind = schema.get("type", "string")
    if kind == "object":
        return {key: draw_value(rng, inner, whole) for key, inner in schema.get("properties", {}).items()}
    if kind == "array":
        least = schema.get("minItems", 0)
        number = rng.randint(least, min(schema.get("maxItems", least + 2), least + 2))
        return [draw_value(rng, schema.get("items", {}), whole) for _ in range(number)]
    if kind in ("integer", "number"):
        least = schema.get("minimum", schema.get("exclusiveMinimum", 0) + ("exclusiveMinimum" in schema))
        return rng.randint(int(least), int(schema.get("maximum", least + 9)))
    return {"boolean": rng.random() < 0.5, "null": None}.get(kind, write_sentence(rng, rng.choice(WORDS)))


def _answer_probe(_rng: Random, question: TeacherQuestion) -> dict[str, Any]:
    if question.json_schema is None:
        return {"answer": "7" * 40}
    return {key: options["enum"][0] for key, options in question.json_schema["properties"].items()}


COMMON: TeacherScript = {"Review": _write_review, "Judgement": _write_judgement, "Probe": _answer_probe}
