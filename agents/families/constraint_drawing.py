"""Drawing of constraints that one text can meet together, each with the sentence that states it.

Knows no teacher, prompt or sample.
"""

from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

from pydantic import BaseModel, ConfigDict

from agents.checks.text.text_units import remove_invisible
from agents.families.constraints import CONSTRAINT_KINDS, PHRASES, THANKS, ConstraintTopic


class TextConstraint(BaseModel):
    """A constraint with its parameters and the sentence that states it in the instruction."""

    model_config = ConfigDict(frozen=True)

    kind: str
    params: dict[str, Any] = {}
    text: str

    def fault(self, answer: str) -> str | None:
        """How `answer` breaks this constraint, in words; None if it meets it. An empty answer meets none."""
        kind, shown = CONSTRAINT_KINDS[self.kind], remove_invisible(answer)
        return kind.check(answer if kind.raw else shown, self.params) if shown.strip() else "it is empty"


MAX_DRAWS = 8
"""Attempts to draw a forbidden word or letter that the topic's name does not have."""
CONTRADICTORY_PAIRS = ({"numbered", "no_digits"}, {"json_keys", "no_commas"}, {"exact_sentences", "end_in_language"})
"""Of the last, nobody knows whether `Merci.` is one of the sentences."""
SHAPE_KINDS = {"bullets", "numbered", "json_keys", "heading", "in_quotes", "postscript"}
"""Kinds that determine how a text begins or ends, and the form of its lines."""


def are_contradictory(left: TextConstraint, right: TextConstraint) -> bool:
    """Whether no text, or hardly any, can meet both, although they belong to different groups."""
    kinds = {left.kind, right.kind}
    groups = {CONSTRAINT_KINDS[kind].group for kind in kinds}
    shaped = kinds & SHAPE_KINDS and groups & {"start", "end", "sentences"}
    cased = kinds & {"lowercase", "uppercase"} and groups & {"start", "end"}
    barred = _is_forbidden_by(left, right) or _is_forbidden_by(right, left)
    return bool(shaped or cased or barred or kinds in CONTRADICTORY_PAIRS)


def _is_forbidden_by(ban: TextConstraint, other: TextConstraint) -> bool:
    """Whether `other` requires a text that `ban` forbids."""
    named = [value for value in other.params.values() if isinstance(value, str)]
    named += [word for value in other.params.values() if isinstance(value, list | tuple) for word in value]
    named += [THANKS[other.params["language"]].split("|")[0]] if other.kind == "end_in_language" else []
    wanted = " ".join(named).casefold()
    if ban.kind == "avoid_word":
        return ban.params["word"].casefold() in wanted
    return ban.kind == "avoid_letter" and ban.params["letter"].casefold() in wanted


def _is_in_topic(kind: str, params: Mapping[str, Any], topic: ConstraintTopic) -> bool:
    """Whether a constraint forbids a word or letter of the topic's name."""
    barred = {"avoid_word": "word", "avoid_letter": "letter"}.get(kind)
    return barred is not None and params[barred].casefold() in topic.name.casefold()


def draw_constraints(
    rng: Random, topic: ConstraintTopic, weights: Mapping[str, int], count: int, existing: Sequence[TextConstraint] = ()
) -> list[TextConstraint]:
    """Up to `count` constraints of different groups, drawn by weight, that one text can meet together with `existing`."""
    chosen: list[TextConstraint] = []
    taken = {CONSTRAINT_KINDS[constraint.kind].group for constraint in existing}
    fit = {
        name for name, kind in CONSTRAINT_KINDS.items() if kind.group not in taken and kind.words <= len(topic.words)
    }
    left = {name: weight for name, weight in weights.items() if weight > 0 and name in fit}
    while left and len(chosen) < count:
        name = rng.choices(list(left), list(left.values()))[0]
        kind = CONSTRAINT_KINDS[name]
        params = kind.draw(rng, topic)
        for _ in range(MAX_DRAWS):
            if not _is_in_topic(name, params, topic):
                break
            params = kind.draw(rng, topic)
        n = params.get("n", 0)
        values = {
            **params,
            "n_more": n + 1,
            "quoted": " and ".join(f'"{word}"' for word in params.get("words", params.get("keys", ()))),
            "n_sentences": f"{('one', 'two', 'three')[n - 1] if 1 <= n <= 3 else n} sentence{'s' * (n != 1)}",
        }
        constraint = TextConstraint(kind=name, params=params, text=rng.choice(PHRASES[name]).format(**values))
        contradicts = any(are_contradictory(constraint, other) for other in (*existing, *chosen))
        if contradicts or _is_in_topic(name, params, topic):
            del left[name]
            continue
        chosen.append(constraint)
        left = {other: weight for other, weight in left.items() if CONSTRAINT_KINDS[other].group != kind.group}
    return chosen
