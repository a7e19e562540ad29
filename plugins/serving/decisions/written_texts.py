"""Requests for written texts: the answers that a reader must find, and a scene that is drawn: a persona, a situation, a form with
its length, a spelling and a detail. Knows no teacher and no vote.
"""

import json
import tomllib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from random import Random
from typing import Any

from agents.families.base import UnusableSeedRow
from agents.sources.conditions import draw_persona
from plugins.serving.decisions.questions import NONE_OF_THESE, Answer, DecisionQuestion

SCENES = Path(__file__).parents[1] / "data" / "scenes.toml"
EXACT_WORDS, ROUNDED_TO = 20, 5
"""Longer texts have a number of words in steps, so that lengths are comparable."""
FEWEST_TO_MISLEAD = 15
"""Words of a text that is no plain case, or has a situation or a detail."""


@lru_cache
def _load_scenes() -> Mapping[str, Any]:
    return tomllib.loads(SCENES.read_text(encoding="utf-8"))


def draw_scene(topic: str, case: str, rng: Random) -> dict[str, str]:
    """What a text is about, who writes it and how, by the name that the request gives it. Lengths are log-uniform, but a text
    that misleads has room for it.
    """
    banks = _load_scenes()
    persona = draw_persona(rng)
    form, (fewest, most) = rng.choice(list(banks["forms"].items()))
    words = round(fewest * (most / fewest) ** rng.random())
    words = max(words, FEWEST_TO_MISLEAD) if case != "plain" else words
    words = words if words <= EXACT_WORDS else ROUNDED_TO * round(words / ROUNDED_TO)
    pattern = rng.choice(banks["details"]["patterns"]) if rng.random() < banks["details"]["share"] else ""
    scene = {
        "topic": topic,
        "persona": persona,
        "situation": rng.choice(banks["situations"]),
        "detail": _fill_pattern(pattern, rng),
        "form": form,
        "length": f"about {words} words",
        "spelling": rng.choices(list(banks["spelling"]), list(banks["spelling"].values()))[0],
    }
    left_out = ("situation", "detail") if words < FEWEST_TO_MISLEAD else ()
    return {name: value for name, value in scene.items() if value and name not in left_out}


def _fill_pattern(pattern: str, rng: Random) -> str:
    drawn = {"~": "123456789", "#": "0123456789", "@": "ABCDEFGHJKLMNPRSTUVWXYZ"}
    return "".join(rng.choice(drawn[sign]) if sign in drawn else sign for sign in pattern)


def draw_answer(question: DecisionQuestion, rng: Random) -> Answer:
    """The answer that a written text must lead to. Raises UnusableSeedRow for a span."""
    if question.type == "span":
        raise UnusableSeedRow("'text': a span is copied from a text, so texts cannot be written for it")
    if question.type == "several_of":
        return [label for label in question.labels if rng.random() < 1.5 / len(question.labels)]
    return question.from_class(rng.choice(question.classes))


def draw_other_answer(question: DecisionQuestion, answer: Answer, rng: Random) -> str | None:
    """Another answer, in words, with which a text may be confused; a score's neighbour."""
    if question.type == "several_of":
        others = [label for label in question.labels if label not in answer]  # type: ignore[operator]
    elif question.type == "score":
        others = [name for name in question.classes if abs(int(name) - int(answer)) == 1]  # type: ignore[arg-type]
    else:
        others = [name for name in question.classes if name != question.to_class(answer)]
    return rng.choice(others) if others else None


def format_text_request(
    about: str, targets: Sequence[tuple[DecisionQuestion, Answer]], case: str, other: str | None, rng: Random
) -> str:
    """The request to the generator, in words. `case` and `other` are of the first question."""
    answer, seems = targets[0][1], json.dumps(other, ensure_ascii=False)
    wanted = "\n".join(f"- {one.wording}: {json.dumps(target, ensure_ascii=False)}" for one, target in targets)
    lure = {
        "plain": "The answers are clear to a careful reader.",
        "hard_negative": f"At first glance the first answer seems to be {seems}; a careful reader sees that it is not.",
        "ambiguous": f"Careful readers may differ between the first answer and {seems}.",
    }[case]
    if answer == NONE_OF_THESE:
        lure += f" It came to the wrong place, for example {rng.choice(_load_scenes()['unrelated']['texts'])}."
    return f"Write {about}.\nAnswers that a reader must give:\n{wanted}\n{lure}"
