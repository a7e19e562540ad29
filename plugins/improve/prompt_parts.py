"""The parts of a generator's prompts that a search changes: system text, examples, request, temperature. Knows no score."""

import re
from collections import Counter
from collections.abc import Mapping
from functools import cached_property

from agents.planning.run_plan import RunPlan
from core.errors import UsageError
from core.sample import FrozenModel, json_digest
from prompts import PLACEHOLDER, Prompt

WRITTEN_BY = "Written by `stillhouse improve`."


def has_heading(text: str) -> bool:
    """Whether a prompt file would take a line for the beginning of a message; lines end as `load_prompt` ends them."""
    return any(re.match("##? ", line) for line in text.splitlines())


class Example(FrozenModel):
    """A request and the reply to it."""

    asked: str
    reply: str

    @property
    def usable(self) -> bool:
        """Whether a prompt file can contain it: a teacher's text is never read as a template or as headings."""
        texts = (self.asked, self.reply)
        return all(text.strip() and not PLACEHOLDER.search(text) and not has_heading(text) for text in texts)


class PromptParts(FrozenModel):
    system: str
    """Empty if there is no such message."""
    examples: tuple[Example, ...]
    request: str

    @property
    def markdown(self) -> str:
        turns = [("system", self.system)] if self.system else []
        turns += [turn for one in self.examples for turn in (("user", one.asked), ("assistant", one.reply))]
        return (
            "\n\n".join([WRITTEN_BY, *(f"## {role}\n{text}" for role, text in [*turns, ("user", self.request)])]) + "\n"
        )


class PromptCandidate(FrozenModel):
    """What a generator is asked with."""

    prompts: Mapping[str, PromptParts]
    """By role, as `generator`."""
    temperature: float

    @cached_property
    def digest(self) -> str:
        return json_digest(self.model_dump(mode="json"))

    @property
    def replies(self) -> list[str]:
        """Those of its examples."""
        return [example.reply for parts in self.prompts.values() for example in parts.examples]

    def with_parts(self, role: str, parts: PromptParts) -> "PromptCandidate":
        return PromptCandidate(prompts={**self.prompts, role: parts}, temperature=self.temperature)


def split_prompt(prompt: Prompt) -> PromptParts | None:
    """None for a prompt of another form than system, examples and request."""
    messages = prompt.messages
    system = messages[0].content if messages[0].role == "system" else ""
    turns = messages[1:] if system else messages
    pairs = list(zip(turns[:-1:2], turns[1::2], strict=False))
    if (
        len(turns) % 2 == 0
        or any((a.role, b.role) != ("user", "assistant") for a, b in pairs)
        or turns[-1].role != "user"
    ):
        return None
    examples = tuple(Example(asked=asked.content, reply=reply.content) for asked, reply in pairs)
    return PromptParts(system=system, examples=examples, request=turns[-1].content)


def read_start(plan: RunPlan) -> PromptCandidate:
    """The recipe's own prompts and temperature. Raises UsageError if a search could change none of them."""
    found = {role: split_prompt(plan.prompt(role)) for role in plan.family.writes}
    prompts = {role: parts for role, parts in found.items() if parts}
    if not prompts or not plan.asks_generator or plan.family.converses:
        raise UsageError(
            f"{plan.recipe.name}: no teacher writes a draft of {plan.family.name} by one prompt with examples, so nothing "
            "can be improved; name a recipe of another family"
        )
    return PromptCandidate(prompts=prompts, temperature=plan.recipe.agents.generator.temperature)


def find_part_fault(old: str, new: str) -> str | None:
    """Why `new` cannot take the place of the part `old`."""
    if not new.strip():
        return "it is empty"
    if has_heading(new):
        return "a line begins with # or ##, which begins a message"
    lost = Counter(PLACEHOLDER.findall(old)) - Counter(PLACEHOLDER.findall(new))
    added = set(PLACEHOLDER.findall(new)) - set(PLACEHOLDER.findall(old))
    if lost or added:
        return f"its placeholders must be {list_placeholders(old)}"
    return None


def list_placeholders(text: str) -> str:
    return ", ".join(f"{{{{{name}}}}}" for name in dict.fromkeys(PLACEHOLDER.findall(text))) or "none"


def describe_change(start: PromptCandidate, candidate: PromptCandidate) -> list[str]:
    """What differs, a line each."""
    lines = []
    for role, parts in candidate.prompts.items():
        before = start.prompts[role]
        if parts.examples != before.examples:
            numbers = [
                str(before.examples.index(one) + 1) if one in before.examples else "new" for one in parts.examples
            ]
            lines.append(f"{role}: examples {', '.join(numbers) or 'none'} of {len(before.examples)}")
        lines += [
            f"{role}: {name} changed" for name in ("system", "request") if getattr(parts, name) != getattr(before, name)
        ]
    if candidate.temperature != start.temperature:
        lines.append(f"temperature {candidate.temperature:g}, was {start.temperature:g}")
    return lines
