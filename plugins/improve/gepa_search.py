"""The search of GEPA (Agrawal et al. 2025, arXiv 2507.19457): a teacher reads drafts with the checks' findings and rewrites
a part of the prompt. Runs the package `gepa` in a thread, and its calls in the event loop of the teachers.
"""

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from gepa.api import optimize
from gepa.core.adapter import EvaluationBatch, GEPAAdapter

from agents.calls.agent_context import LocalAgentContext
from core.config.agents import AgentConfig
from core.errors import ProviderError
from core.sample import Message, Seed, text_digest
from plugins.improve.measurement import MeasuredDraft, count_tokens
from plugins.improve.prompt_parts import PromptCandidate, find_part_fault
from plugins.improve.results import Proposal
from plugins.improve.searches import CallLimit, CandidateScorer
from prompts import PLACEHOLDER
from teachers.base import CallFailed, TeacherQuestion

MINIBATCH = 4
"""Drafts that a reflection reads."""
REFLECTION_TOKENS = 800
"""Of a rewritten part."""
T = TypeVar("T")


def list_parts(start: PromptCandidate) -> dict[str, str]:
    """The texts that are rewritten, by `ROLE.system` and `ROLE.request`. A request of placeholders alone says nothing."""
    parts = {}
    for role, prompt in start.prompts.items():
        parts[f"{role}.system"] = prompt.system or "Follow the request exactly."
        if PLACEHOLDER.sub("", prompt.request).strip():
            parts[f"{role}.request"] = prompt.request
    return parts


def build_candidate(start: PromptCandidate, texts: Mapping[str, str]) -> PromptCandidate:
    candidate = start
    for name, text in texts.items():
        role, _, part = name.rpartition(".")
        if text != list_parts(start)[name]:
            candidate = candidate.with_parts(role, candidate.prompts[role].model_copy(update={part: text.strip()}))
    return candidate


class CheckedPrompts(GEPAAdapter[Seed, MeasuredDraft, MeasuredDraft]):
    """The adapter of GEPA: a text is a part of the prompt, a score comes from the recipe's checks."""

    propose_new_texts = None

    def __init__(
        self, scorer: CandidateScorer, loop: asyncio.AbstractEventLoop, proposals: dict[str, Proposal]
    ) -> None:
        """Adds to `proposals`, by part and text."""
        self._scorer = scorer
        self._start = scorer.start
        self._loop = loop
        self._proposals = proposals
        self.failure: Exception | None = None
        """The first, which GEPA may ignore and ask again."""

    def evaluate(
        self, batch: list[Seed], candidate: dict[str, str], capture_traces: bool = False
    ) -> EvaluationBatch[MeasuredDraft, MeasuredDraft]:
        """Of a draft that passes 1,000 over its tokens, else 0: a sum over drafts, as GEPA needs. With the floor, the second
        draft with the same answer scores 0.
        """
        if fault := self._find_fault(candidate):
            drafts = [_build_refusal(seed, fault) for seed in batch]
            return EvaluationBatch(outputs=drafts, scores=[0.0] * len(batch), trajectories=drafts)
        built = build_candidate(self._start, candidate)
        whole = len(batch) == len(self._scorer.seeds)
        if whole:
            self.call(self._scorer.score(built))
        drafts = self._mark_repeated(self.call(self._scorer.measure(built, batch)))
        scores = [1000 * one.passed / max(1, tokens) for one, tokens in zip(drafts, count_tokens(drafts), strict=True)]
        return EvaluationBatch(outputs=drafts, scores=scores, trajectories=drafts)

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of `work` in the teachers' loop. Raises the first failure, after which nothing is asked."""
        if self.failure:
            work.close()
            raise self.failure
        try:
            return asyncio.run_coroutine_threadsafe(work, self._loop).result()
        except Exception as error:
            self.failure = error
            raise

    def _find_fault(self, texts: Mapping[str, str]) -> str | None:
        faults = []
        for name, old in list_parts(self._start).items():
            fault = find_part_fault(old, texts[name])
            faults += [f"the new text cannot be used: {fault}"] if fault else []
            if texts[name] != old:
                key = text_digest(f"{name}\n{texts[name]}")
                self._proposals.setdefault(key, Proposal(part=name, text=texts[name], refused=fault))
        return next(iter(faults), None)

    def _mark_repeated(self, drafts: Sequence[MeasuredDraft]) -> list[MeasuredDraft]:
        answers: set[str] = set()
        marked = []
        for draft in drafts:
            if self._scorer.floor and draft.passed and draft.answer in answers:
                update = {"passed": False, "fault": "repeated", "evidence": "the same answer as to another request"}
                marked.append(draft.model_copy(update=update))
            else:
                marked.append(draft)
            answers.add(draft.answer)
        return marked

    def make_reflective_dataset(
        self,
        candidate: dict[str, str],
        eval_batch: EvaluationBatch[MeasuredDraft, MeasuredDraft],
        components_to_update: list[str],
    ) -> Mapping[str, Sequence[Mapping[str, Any]]]:
        """What the reflecting teacher reads: request, reply and the checks' finding."""
        rows = [
            {"Inputs": draft.asked, "Generated Outputs": draft.reply, "Feedback": draft.feedback}
            for draft in eval_batch.trajectories or ()
        ]
        return dict.fromkeys(components_to_update, rows)


def _build_refusal(seed: Seed, fault: str) -> MeasuredDraft:
    return MeasuredDraft(
        candidate="", seed=seed.digest, passed=False, fault="prompt", evidence=fault, answer="", asked="", reply="",
        prompt_tokens=0, cached_tokens=0, completion_tokens=0,
    )  # fmt: skip


class Reflector:
    """The reflecting teacher as GEPA calls it, through the teachers' own client: calls are journaled and priced."""

    def __init__(self, context: LocalAgentContext, agent: AgentConfig, adapter: CheckedPrompts) -> None:
        self._context = context
        self._agent = agent
        self._adapter = adapter
        self.calls = 0

    def __call__(self, prompt: str | list[dict[str, Any]]) -> str:
        assert isinstance(prompt, str), "parts are texts"
        self.calls += 1
        return self._adapter.call(self._ask(prompt, self.calls))

    async def _ask(self, prompt: str, number: int) -> str:
        dispatcher, agent, recipe = self._context.dispatcher, self._agent, self._context.recipe
        question = TeacherQuestion(
            messages=[Message(role="user", content=prompt)], contract="Answer", json_schema=None,
            temperature=agent.temperature, top_p=agent.top_p,
            max_tokens=agent.max_tokens + recipe.teachers[agent.teacher].thinking_tokens(agent.reasoning),
            seed=int(text_digest(f"{recipe.seed}/reflection/{number}", length=7), 16), reasoning=agent.reasoning,
        )  # fmt: skip
        request = dispatcher.request_digest(agent.teacher, question)
        try:
            async with dispatcher.admit_sample(number):
                return (await dispatcher.answer(agent.teacher, question, request, number)).text
        except CallFailed as error:
            model = recipe.teachers[agent.teacher].model
            raise ProviderError(f"{model}: no reply to a reflection: {error}; the same command resumes") from None


class _Silent:
    def log(self, message: str) -> None:
        pass


async def search_by_reflection(
    scorer: CandidateScorer, context: LocalAgentContext, agent: AgentConfig, calls: int, proposals: dict[str, Proposal]
) -> None:
    """Adds to `proposals`, also if it is stopped. Raises what `DraftMeter.measure` does."""
    adapter = CheckedPrompts(scorer, asyncio.get_running_loop(), proposals)
    reflector = Reflector(context, agent, adapter)

    def run() -> None:
        optimize(
            seed_candidate=list_parts(scorer.start), trainset=list(scorer.seeds), valset=list(scorer.seeds), adapter=adapter,
            reflection_lm=reflector, reflection_minibatch_size=min(MINIBATCH, len(scorer.seeds)), perfect_score=float("inf"),
            skip_perfect_score=False, max_metric_calls=calls, seed=context.recipe.seed, logger=_Silent(),
        )  # fmt: skip

    with suppress(CallLimit):
        await asyncio.to_thread(run)
        if adapter.failure:
            raise adapter.failure
