"""What scripts of fake teachers share: words, sentences, and a critic that is hard to please now and then."""

import re
from collections.abc import Callable, Mapping
from random import Random
from typing import Any

from agents.teachers.base import Question

Script = Mapping[str, Callable[[Random, Question], dict[str, Any]]]
"""What is replied, by the name of the contract that is asked for."""
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


def sentence(rng: Random, subject: str) -> str:
    shape = [subject, rng.choice(VERBS), "a", rng.choice(WORDS), rng.choice(WORDS)]
    if rng.random() < 0.5:
        shape += ["and", "a", rng.choice(WORDS), rng.choice(WORDS), "near", "the", rng.choice(WORDS)]
    text = " ".join(shape)
    return text[0].upper() + text[1:] + "."


def review(rng: Random, question: Question) -> dict[str, Any]:
    rubrics = re.findall(r'^"(\w+)":', question.messages[0].content, re.MULTILINE) or ["sense"]
    scores = {rubric: rng.choice((2, 4, 4, 5)) for rubric in rubrics}
    faults = [f"{rubric} could be better" for rubric, score in scores.items() if score < 3]
    return {"scores": scores, "faults": faults, "advice": f"Mend the {faults[0].split()[0]}." if faults else "Keep it."}


def judgement(rng: Random, question: Question) -> dict[str, Any]:
    """Of one mind about an answer, whatever the order of the choices, nine times in ten."""
    asked = question.messages[-1].content
    good = "A" if "\nA: a good" in asked else "B"
    likes = Random(asked.partition("\nA: ")[0]).random() < 0.7
    verdict = good if likes else "AB"[good == "A"]
    return {
        "reason": "It reads well." if likes else "It goes astray.",
        "verdict": verdict if rng.random() < 0.9 else rng.choice("AB"),
    }


def probe(_rng: Random, question: Question) -> dict[str, Any]:
    return {key: options["enum"][0] for key, options in (question.json_schema or {})["properties"].items()}


COMMON: Script = {"Review": review, "Judgement": judgement, "Probe": probe}
