"""Scripted teachers for tests: the same reply to the same question, always; faults at the rates the recipe asks for.

Knows contracts by name only. What it writes is nonsense of the right form.
"""

import asyncio
import json
import re
from collections.abc import Callable
from random import Random
from typing import Any

from agents.teachers.base import Account, CallFailed, Question, Reply
from agents.teachers.gate import Gate
from core.recipe import Faults, TeacherConfig
from core.sample import Usage, digest_of_text

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


def _sentence(rng: Random, subject: str) -> str:
    shape = [subject, rng.choice(VERBS), "a", rng.choice(WORDS), rng.choice(WORDS)]
    if rng.random() < 0.5:
        shape += ["and", "a", rng.choice(WORDS), rng.choice(WORDS), "near", "the", rng.choice(WORDS)]
    text = " ".join(shape)
    return text[0].upper() + text[1:] + "."


def _writer(rng: Random, question: Question) -> dict[str, Any]:
    asked = question.messages[-1].content
    topic = re.search(r"(?:about|Describe|people like) ([\w' -]+?)\.", asked)
    subject = topic.group(1) if topic else rng.choice(WORDS)
    return {"answer": " ".join(_sentence(rng, subject) for _ in range(rng.randint(1, 3)))}


def _critic(rng: Random, question: Question) -> dict[str, Any]:
    rubrics = re.findall(r'^"(\w+)":', question.messages[0].content, re.MULTILINE) or ["sense"]
    scores = {rubric: rng.choice((2, 4, 4, 5)) for rubric in rubrics}
    faults = [f"{rubric} could be better" for rubric, score in scores.items() if score < 3]
    return {"scores": scores, "faults": faults, "advice": f"Mend the {faults[0].split()[0]}." if faults else "Keep it."}


def _problem(rng: Random, _question: Question) -> dict[str, Any]:
    many, each, gone = rng.randint(2, 9), rng.randint(2, 9), rng.randint(1, 4)
    answer = many * each - gone
    slip = rng.random() < 0.3
    return {
        "problem": f"Ada has {many} boxes with {each} {rng.choice(WORDS)}s each and loses {gone}. How many are left?",
        "solution": f"The boxes hold {many} * {each} = {many * each}. Then {answer} are left.",
        "expression": f"{many} * {each} - {gone}",
        "answer": answer + slip,
    }


def _solver(rng: Random, question: Question) -> dict[str, Any]:
    numbers = [int(found) for found in re.findall(r"\d+", question.messages[-1].content)]
    answer = numbers[0] * numbers[1] - numbers[2] if len(numbers) == 3 else 0
    return {"solution": "One step after the other.", "answer": answer if rng.random() < 0.8 else answer + 1}


def _probe(_rng: Random, question: Question) -> dict[str, Any]:
    return {key: options["enum"][0] for key, options in question.json_schema["properties"].items()}


SCRIPTS: dict[str, dict[str, Callable[[Random, Question], dict[str, Any]]]] = {
    "writer": {"Draft": _writer, "Review": _critic, "Probe": _probe},
    "arithmetic": {"ProblemDraft": _problem, "Review": _critic, "Solution": _solver, "Probe": _probe},
}


class FakeTeacher:
    """A script behind the interface of a teacher."""

    def __init__(self, config: TeacherConfig, script: str) -> None:
        self.model = config.model
        self.slots = config.max_concurrent
        self._script = SCRIPTS[script]
        self._faults = config.faults or Faults()
        self.manner = f"{script} {self._faults.model_dump_json(exclude={'seconds'})}"
        self._gate = Gate(config.max_concurrent)

    async def reply(self, question: Question, rank: int, account: Account) -> Reply:
        async with self._gate.admitted(rank), account.paying(question) as bill:
            reply = await self._reply(question)
            bill.usage = reply.usage
        return reply

    def release(self) -> None:
        self._gate.open_wide()

    async def _reply(self, question: Question) -> Reply:
        rng = Random(digest_of_text(question.canonical))
        await asyncio.sleep(self._faults.seconds)
        if rng.random() < self._faults.unavailable:
            raise CallFailed("the fake teacher is unavailable, as asked")
        text = json.dumps(self._misbehave(rng, self._script[question.contract](rng, question)))
        if rng.random() < self._faults.malformed:
            text = text[: len(text) // 2]
        asked = sum(len(message.content.split()) for message in question.messages)
        usage = Usage(calls=1, prompt_tokens=asked, completion_tokens=len(text.split()))
        return Reply(text=text, finished=True, usage=usage, confidence=rng.uniform(0.3, 0.7))

    def _misbehave(self, rng: Random, reply: dict[str, Any]) -> dict[str, Any]:
        if "answer" in reply and isinstance(reply["answer"], str):
            if rng.random() < self._faults.refusal:
                return {**reply, "answer": "I'm sorry, but as an AI language model I cannot help with that request."}
            if rng.random() < self._faults.repetition:
                return {**reply, "answer": " ".join([reply["answer"].split(".")[0] + "."] * 8)}
        return reply
