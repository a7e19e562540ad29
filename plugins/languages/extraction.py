"""Extraction to a schema in German, French, Spanish and Chinese: the family of English ones, with requests, prompts and checks of
the language. Knows no teacher.
"""

from collections.abc import Iterator, Mapping, Sequence
from random import Random
from typing import Annotated, Any, ClassVar

from pydantic import Field

from agents.checks import Check
from agents.families.base import validate_weights
from agents.families.extraction import ExtractionFamily, ExtractionOptions
from agents.families.extraction_schemas import ListPlan
from core.sample import Candidate, Message, Seed
from plugins.languages.codes import NAMES
from plugins.languages.local_family import LocalFamily, in_language_check, read_task_wordings
from plugins.languages.local_values import local_complete_check, local_occurs_check

CHARACTERS_PER_WORD = 1.7
"""Chinese characters that say what an English word says."""
SURNAMES = 3
"""Chinese surnames that are drawn for a text, in the place of first letters."""


class LocalExtractionOptions(ExtractionOptions):
    forms: Annotated[dict[str, int], validate_weights("form", ("prose",))] = Field({"prose": 1}, min_length=1)
    """Prose only: the other forms are described and recognized in English."""
    inferred: float = Field(0.0, ge=0, le=0)
    """None: fields to be inferred are described in English."""


class LocalExtractionFamily(LocalFamily, ExtractionFamily):
    options = LocalExtractionOptions
    local_checks: ClassVar[Sequence[Check]] = (local_complete_check, local_occurs_check, in_language_check)
    defaults: ClassVar[Mapping[str, Any]] = {
        **ExtractionFamily.defaults,
        "agents": {"generator": {"max_tokens": 3000}},
        "verifiers": [{"type": "schema"}, {"type": "complete"}, {"type": "occurs"}, {"type": "in_language"}],
    }

    @property
    def wordings(self) -> dict[str, Any]:
        return read_task_wordings(self.language, "extraction")

    def condition(self, row: Mapping[str, Any], options: ExtractionOptions, rng: Random) -> dict[str, Any]:
        local = self.wordings
        scene = {"style": row.get("style", local["styles"]), "place": row.get("place", local["places"])}
        data = super().condition({**row, **scene}, options, rng)
        data = {key: value for key, value in data.items() if key not in ("sender", "register", "opening")}
        varied = "schema" in row
        data["instruction"] = rng.choice(local["instructions"]) if varied else local["instructions"][0]
        if "letters" in local and "letters" in data:
            data["letters"] = sorted(rng.sample(local["letters"], SURNAMES))
        return {**data, "language": self.language, "language_name": NAMES[self.language]}

    def extra_prompt_values(self, seed: Seed) -> dict[str, str]:
        values = super().extra_prompt_values(seed)
        data, local = seed.data, self.wordings
        if "text" in data:
            return {**values, "wish": local["give"].format(text=data["text"])}
        return {**values, "wish": "\n".join(self._list_wishes(data))}

    def _list_wishes(self, data: Mapping[str, Any]) -> Iterator[str]:
        local, comma = self.wordings, "、" if self.language == "zh" else ", "
        words = round(data["words"] * CHARACTERS_PER_WORD, -1) if self.language == "zh" else data["words"]
        asked = {"style": data["style"], "topic": data["topic"], "place": data["place"]}
        yield local["write"].format(**asked, words=int(words), letters=comma.join(data["letters"]))
        left_out = comma.join(data["left_out"])
        yield local["leave_out"].format(names=left_out) if left_out else local["all_fields"]
        for plan in (ListPlan(*one) for one in data.get("lists", ())):
            if plan.length:
                yield local["length"].format(path=plan.path, n=plan.length)
            for told, names in (("each", plan.each), ("some", plan.some)):
                if names:
                    yield local[told].format(path=plan.path, names=comma.join(names))
        if data["decoy"]:
            yield local["decoy"].format(decoy=data["decoy"])

    def questions(self, seed: Seed) -> Sequence[Message] | None:
        return self._ask(seed, seed.data["text"]) if "text" in seed.data else None

    def candidate(self, seed: Seed, draft: Any) -> Candidate:
        made = super().candidate(seed, draft)
        return made.model_copy(update={"messages": [*self._ask(seed, made.fields["text"]), made.messages[-1]]})

    def _ask(self, seed: Seed, text: str) -> list[Message]:
        """What a student is asked about a text."""
        data, local = seed.data, self.wordings
        space = "" if self.language == "zh" else " "
        instruction = f"{data['instruction']}{space}{local['null_rule']}"
        schema = f"{local['schema_label']}\n{data['shown']}"
        if data["layout"] == "system":
            return [Message(role="system", content=f"{instruction}\n\n{schema}"), Message(role="user", content=text)]
        shown = f"{local['text_label']}\n{text}"
        parts = [schema, shown] if data["layout"] == "schema_first" else [shown, schema]
        return [Message(role="user", content="\n\n".join([instruction, *parts]))]
