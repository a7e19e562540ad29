"""Labels of features: a teacher explains a feature from passages, and the label is scored by detection on other passages.

Both ideas are those of delphi (Paulo et al. 2024, arXiv 2410.13928). Knows passages only; no model's activations and no file.
"""

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, Field

import prompts
from agents.calls.agent_context import LocalAgentContext, open_scratch_context
from agents.planning.run_plan import RunPlan
from agents.reply_schema import InvalidReply, T
from agents.topologies.sample_production import run_concurrently
from core.errors import StillhouseError
from core.sample import REPAIR_STRIDE, AgentTurn, json_digest
from core.stop_signal import RunStopped, UserStop
from teachers.base import CallFailed, CallKey

PROMPTS = Path(__file__).parent / "prompts"
MIN_ACCURACY = 0.75
"""Balanced accuracy from which a label is shown. Guessing on 20 passages reaches it in 2 of 100 tries."""
PASSAGES_PER_QUESTION = 5
"""As in delphi's detection scoring."""
AGENT = "interpreter"


class FeatureEvidence(NamedTuple):
    """Passages of one feature, as short as a prompt is to show them. None is in two of these lists."""

    feature: int
    active: list[str]
    """Its tokens marked by « and »."""
    inactive: list[str]
    held_out_active: list[str]
    """Without marks."""
    held_out_inactive: list[str]


class FeatureLabel(BaseModel):
    """What a teacher says that a feature means, and how well that predicts where it is active."""

    model_config = ConfigDict(frozen=True)

    feature: int
    label: str
    balanced_accuracy: float
    """The mean of the shares of held-out passages with and without the feature that the label detects."""
    passages: int
    """Held-out passages."""
    teacher: str

    @property
    def is_confirmed(self) -> bool:
        return self.balanced_accuracy >= MIN_ACCURACY


class Explanation(BaseModel):
    """The reply to `prompts/explain.md`."""

    model_config = ConfigDict(extra="forbid")

    common: str = Field(max_length=600)
    label: str = Field(min_length=2, max_length=120)


class Detection(BaseModel):
    """The reply to `prompts/detect.md`."""

    model_config = ConfigDict(extra="forbid")

    numbers: list[int] = Field(max_length=PASSAGES_PER_QUESTION)


async def label_features(
    plan: RunPlan,
    evidence: Sequence[FeatureEvidence],
    stop: UserStop,
    cache: Path | None,
    progress: Callable[[str], None],
) -> list[FeatureLabel]:
    """A label for each feature that the plan's generator teacher can explain, in the order of `evidence`, within the recipe's
    budget. A feature without a usable reply has none.

    Raises:
        RunStopped: if the user or the budget stops it.
        StillhouseError: as `AgentContext.ask`.
    """
    async with open_scratch_context(plan, stop, cache, budget=plan.recipe.budget) as context:
        return await ask_for_labels(context, evidence, progress)


async def ask_for_labels(
    context: LocalAgentContext, evidence: Sequence[FeatureEvidence], progress: Callable[[str], None]
) -> list[FeatureLabel]:
    """As `label_features`, many features at once."""
    found: dict[int, FeatureLabel] = {}
    waiting = iter(enumerate(evidence))
    signal = context.dispatcher.stop_signal

    async def work() -> None:
        for index, one in waiting:
            try:
                async with context.dispatcher.admit_sample(index):
                    found[index] = await _label_feature(context, index, one)
                progress(f"labels: {len(found)} of {len(evidence)} features explained")
            except (InvalidReply, CallFailed):
                continue
            except RunStopped as stopped:
                signal.stop_samples(stopped)
                return
            except StillhouseError as error:
                signal.stop_calls(error)

    await run_concurrently(work() for _ in range(min(len(evidence), context.dispatcher.sample_slots.max_concurrent)))
    if signal.reason:
        raise signal.reason
    return [found[index] for index in sorted(found)]


async def _label_feature(context: LocalAgentContext, index: int, evidence: FeatureEvidence) -> FeatureLabel:
    values = {"active": _list_passages(evidence.active), "inactive": _list_passages(evidence.inactive)}
    explanation = await _ask(context, index, 0, "explain", values, Explanation)
    label = " ".join(explanation.label.split())
    passages = [(text, True) for text in evidence.held_out_active]
    passages += [(text, False) for text in evidence.held_out_inactive]
    random.Random(index).shuffle(passages)
    right: dict[bool, list[bool]] = {True: [], False: []}
    for number, start in enumerate(range(0, len(passages), PASSAGES_PER_QUESTION), 1):
        part = passages[start : start + PASSAGES_PER_QUESTION]
        listed = {"label": label, "passages": _list_passages([text for text, _ in part])}
        detection = await _ask(context, index, number, "detect", listed, Detection)
        for place, (_, active) in enumerate(part, 1):
            right[active].append((place in detection.numbers) == active)
    shares = [sum(side) / len(side) for side in right.values() if side]
    teacher = context.recipe.generator_teacher.model
    return FeatureLabel(
        feature=evidence.feature, label=label, balanced_accuracy=sum(shares) / len(shares), passages=len(passages),
        teacher=teacher,
    )  # fmt: skip


async def _ask(
    context: LocalAgentContext, index: int, which: int, role: str, values: dict[str, str], contract: type[T]
) -> T:
    messages = prompts.load_prompt("features", role, installed=PROMPTS).fill(values)
    seed = json_digest([message.content for message in messages])
    key = CallKey(sample=index, seed=seed, agent=AGENT, revision=0, attempt=which * REPAIR_STRIDE)
    turns: list[AgentTurn] = []
    return await context.ask_until_valid(key, context.recipe.agents.generator, messages, contract, 0.0, turns)


def _list_passages(texts: Sequence[str]) -> str:
    return "\n".join(f"{number}. {' '.join(text.split())}" for number, text in enumerate(texts, 1))
