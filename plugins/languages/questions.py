"""Grounded questions in German, French, Spanish and Chinese: a passage, a question, and an answer with its quotes, by requests,
prompts and checks of the language. Knows no teacher.
"""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from random import Random
from typing import Annotated, Any, ClassVar

from pydantic import Field

from agents.checks import Check
from agents.families.base import require_text, validate_weights
from agents.families.grounded_qa import LAYOUTS, GroundedDraft, GroundedOptions, GroundedQAFamily
from core.sample import Candidate, Message, Seed
from plugins.languages.codes import NAMES
from plugins.languages.local_answers import (
    local_own_words_check,
    local_standalone_check,
    local_supported_check,
    local_unanswerable_check,
)
from plugins.languages.local_family import LocalFamily, in_language_check, read_task_wordings
from plugins.languages.local_readers import local_read_again_check
from plugins.languages.units import read_local_sentences

FIRST_WEIGHTS = {"fact": 4, "number": 3, "reason": 2, "list": 2, "yes_no": 1}
"""Weights of the kinds of questions, by default."""
CARRIERS = {"number": r"\d", "reason": "reasons", "list": "lists"}
"""Of a sentence that can carry a question of a kind: a pattern, or the name of the language's. Any can carry the others."""


class LocalGroundedFamily(LocalFamily, GroundedQAFamily):
    local_checks: ClassVar[Sequence[Check]] = (
        local_supported_check,
        local_own_words_check,
        local_standalone_check,
        local_unanswerable_check,
        local_read_again_check,
        in_language_check,
    )
    defaults: ClassVar[Mapping[str, Any]] = {
        "agents": {"generator": {"max_tokens": 500}, "verifier": {"max_tokens": 200}},
        "verifiers": [
            {"type": "quotes"},
            {"type": "supported"},
            {"type": "own_words"},
            {"type": "standalone"},
            {"type": "unanswerable"},
            {"type": "in_language"},
            {"type": "read_again"},
        ],
        "filters": [{"type": "length", "min_words": 1}, {"type": "local_refusal"}, {"type": "exact"}],
    }

    @property
    def wordings(self) -> dict[str, Any]:
        return read_task_wordings(self.language, "grounded_qa")

    def condition(self, row: Mapping[str, Any], options: GroundedOptions, rng: Random) -> dict[str, Any]:
        local, text = self.wordings, unicodedata.normalize("NFC", require_text(row, "text"))
        answerable = rng.random() >= options.unanswerable
        kind, focus = self._draw_target(text, options.kinds, rng)
        asked = {"style": rng.choice(options.styles), "asker": rng.choice(options.askers)}
        request = "\n".join([
            local["ask"].format(kind=local["kinds"][kind], **asked),
            local["focus" if answerable else "near"].format(focus=focus),
            local["answered" if answerable else "open"].format(silence=options.silence),
            local["seen" if options.context else "unseen"],
        ])  # fmt: skip
        form = Random(text)  # a passage always has the same form, so that filters compare only the questions
        return {
            "source": row.get("source", ""),
            "number": row.get("number", 0),
            "text": text,
            "kind": kind,
            **asked,
            "focus": focus,
            "answerable": answerable,
            "context": options.context,
            "silence": options.silence,
            "instruction": form.choice(local["instructions"]).format(silence=options.silence),
            "layout": form.choice(LAYOUTS),
            "cited": options.cited,
            "request": request,
            "language": self.language,
            "language_name": NAMES[self.language],
        }

    def _draw_target(self, text: str, kinds: Mapping[str, int], rng: Random) -> tuple[str, str]:
        """A kind of question, and a sentence that can carry it."""
        sentences = [one for one in read_local_sentences(text, self.language).pieces if not one.startswith(("|", "#"))]
        carriers = {kind: [one for one in sentences if self._can_carry(kind, one)] for kind in kinds}
        fitting = {kind: weight for kind, weight in kinds.items() if carriers[kind] and weight} or kinds
        kind = rng.choices(list(fitting), list(fitting.values()))[0]
        return kind, rng.choice(carriers[kind] or sentences or [text])

    def _can_carry(self, kind: str, sentence: str) -> bool:
        pattern = CARRIERS.get(kind, "")
        return bool(re.search(self.wordings.get(pattern, pattern), sentence))

    def candidate(self, seed: Seed, draft: GroundedDraft) -> Candidate:
        made, data, local = super().candidate(seed, draft), seed.data, self.wordings
        question = made.fields["question"]
        if not data["context"]:
            return made
        space = "" if self.language == "zh" else " "
        instruction = f"{data['instruction']}{space}{local['quoting']}" if data["cited"] else data["instruction"]
        parts = [f"{local['text_label']}\n{data['text']}", f"{local['question_label']}{space}{question}"]
        if data["layout"] == "question_first":
            parts.reverse()
        asked = Message(role="user", content="\n\n".join([instruction, *parts]))
        return made.model_copy(update={"messages": [asked, *made.messages[1:]]})


def word_options(language: str) -> type[GroundedOptions]:
    """The options of the family, with the kinds and wordings of a language."""
    local = read_task_wordings(language, "grounded_qa")

    class LocalGroundedOptions(GroundedOptions):
        kinds: Annotated[dict[str, int], validate_weights(f"{NAMES[language]} kind", FIRST_WEIGHTS)] = Field(
            default_factory=FIRST_WEIGHTS.copy, min_length=1
        )
        styles: tuple[str, ...] = Field(tuple(local["styles"]), min_length=1)
        askers: tuple[str, ...] = Field(tuple(local["askers"]), min_length=1)
        silence: str = Field(local["silence"], min_length=1)
        distractors: int = Field(0, ge=0, le=0)
        """None, as with the next two: what they need is read in English only."""
        two_passages: float = Field(0, ge=0, le=0)
        follow_ups: float = Field(0, ge=0, le=0)

    return LocalGroundedOptions
