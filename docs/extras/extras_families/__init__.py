from collections.abc import Mapping
from pathlib import Path
from random import Random
from typing import Any, ClassVar

from stillhouse import Candidate, Message, Options, RecipeFamily, ReplySchema, Seed, require_text


class DefinitionDraft(ReplySchema):
    definition: str


class DefinitionFamily(RecipeFamily):
    name = "definitions"
    prompts = Path(__file__).parent / "prompts"
    fields = ("definition",)
    defaults: ClassVar[Mapping[str, Any]] = {
        "agents": {"critic": False, "generator": {"max_tokens": 200}},
        "filters": [{"type": "exact"}],
    }

    def condition(self, row: Mapping[str, Any], options: Options, rng: Random) -> dict[str, Any]:
        return {"term": require_text(row, "term")}

    def reply_type(self, seed: Seed) -> type[ReplySchema]:
        return DefinitionDraft

    def candidate(self, seed: Seed, draft: DefinitionDraft) -> Candidate:
        asked = Message(role="user", content=f"What is {seed.data['term']}?")
        answered = Message(role="assistant", content=draft.definition.strip())
        return Candidate(messages=[asked, answered], fields=draft.model_dump())
