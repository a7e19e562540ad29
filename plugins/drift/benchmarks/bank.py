"""Records a bank of nights: the probes, asked of one GGUF file on servers with other slots in use.

    nice -n 10 python -m plugins.drift.benchmarks.bank FILE.gguf OUT.json --nights 12 --words 2

Declared in `drift.json`. A night is written when it ends, so a stopped recording resumes.
"""

import argparse
import asyncio
import json
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

from core.config.teachers import TeacherConfig
from core.sample import Message
from core.storage.atomic_files import write_text
from plugins.drift import measurement
from plugins.drift.measurement import ask_rounds, read_likeliest, read_word
from teachers.base import CallFailed, Teacher, TeacherQuestion, TeacherReply, UnlimitedAccount
from teachers.endpoint import open_endpoint_teacher
from teachers.local_llama import llama_settings, run_llama_server

SLOTS = 4
LOADS = (0, 1, 3)
RECORDED_SEEDS = 16
SERVER_WORDS = "You are Nova, a helpful assistant."
ZEPHYR = (
    "{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] }}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)


class AddsWords:
    """A teacher whose server adds a sentence to each system message."""

    def __init__(self, teacher: Teacher) -> None:
        self.teacher, self.model, self.slots, self.manner = teacher, teacher.model, teacher.slots, teacher.manner

    async def reply(self, question: TeacherQuestion, rank: int, account: Any) -> TeacherReply:
        system = question.messages[0].model_copy(update={"content": f"{SERVER_WORDS} {question.messages[0].content}"})
        return await self.teacher.reply(
            question.model_copy(update={"messages": [system, *question.messages[1:]]}), rank, account
        )

    def release(self) -> None:
        self.teacher.release()


async def keep_busy(teacher: Teacher, rng: Random) -> None:
    """Long and short requests of somebody else, without an end."""
    while True:
        text = f"Write about {rng.random()}. " * rng.randint(1, 12)
        question = TeacherQuestion(
            messages=[Message(role="user", content=text)], contract="Other", json_schema=None, temperature=1.0,
            top_p=1.0, max_tokens=60, seed=rng.randrange(10**6),
        )  # fmt: skip
        with suppress(CallFailed):
            await teacher.reply(question, 0, UnlimitedAccount())


async def record_night(gguf: str, night: int, *, words: bool, adds_words: bool, zephyr: bool) -> dict[str, Any]:
    rng, load = Random(night), LOADS[night % len(LOADS)]
    threads, batch = 1 + night % 2, (512, 32)[night // 2 % 2]
    settings = llama_settings(gguf, SLOTS, 1024, threads=threads) | {"n_batch": batch, "n_ubatch": batch}
    settings |= {"chat_template": ZEPHYR} if zephyr else {}
    async with run_llama_server("bank", settings, print, 600) as server:
        config = TeacherConfig(
            model="local/smollm2-135m", base_url=server.server.url, max_concurrent=max(1, SLOTS - load)
        )
        async with (
            open_endpoint_teacher(config, "bank", "", server.server.key) as opened,
            open_endpoint_teacher(config, "bank", "", server.server.key) as other,
        ):
            teacher: Teacher = AddsWords(opened) if adds_words else opened
            busy = [asyncio.create_task(keep_busy(other, rng)) for _ in range(load)]
            account = UnlimitedAccount()
            tokens = await ask_rounds(teacher, config, account, logprobs=True)
            found: dict[str, Any] = {"night": night, "load": load, "threads": threads, "batch": batch}
            found["logprobs"] = [[read_likeliest(reply) for reply in one] for one in tokens]
            if words:
                replies = await ask_rounds(teacher, config, account, logprobs=False)
                found["words"] = [[read_word(reply) for reply in one] for one in replies]
            for task in busy:
                task.cancel()
            await asyncio.gather(*busy, return_exceptions=True)
    return found


def record_bank() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("gguf")
    parser.add_argument("out", type=Path)
    parser.add_argument("--nights", type=int, default=1)
    parser.add_argument("--words", type=int, default=1, help="nights that are asked for words too")
    parser.add_argument("--adds-words", action="store_true")
    parser.add_argument("--zephyr", action="store_true")
    given = parser.parse_args()
    measurement.WORD_ROUNDS = RECORDED_SEEDS
    nights = json.loads(given.out.read_text()) if given.out.exists() else []
    for night in range(len(nights), given.nights):
        nights.append(
            asyncio.run(
                record_night(
                    given.gguf, night, words=night < given.words, adds_words=given.adds_words, zephyr=given.zephyr
                )
            )
        )
        write_text(given.out, json.dumps(nights))


if __name__ == "__main__":
    record_bank()
