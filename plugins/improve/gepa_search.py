"""The search of GEPA (Agrawal et al. 2025, arXiv 2507.19457): a teacher reads drafts with the checks' findings and rewrites
a part of the prompt. Runs the package `gepa` in a thread, and its calls in the event loop of the teachers.
"""

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

from gepa.api import optimize
from gepa.core.adapter import EvaluationBatch, GEPAAdapter

from agents.calls.agent_context import LocalAgentContext
from core.config.agents import AgentConfig
from core.errors import ProviderError
from core.sample import Message, Seed, text_digest
from plugins.improve.measurement import MeasuredDraft, count_tokens, measure_rate
from plugins.improve.prompt_parts import PromptCandidate, find_part_fault, list_placeholders
from plugins.improve.results import Proposal, SearchDeclaration
from plugins.improve.searches import CallLimit, CandidateScorer
from prompts import PLACEHOLDER, load_prompt
from teachers.base import CallFailed, TeacherQuestion

PROMPTS = Path(__file__).parent / "prompts"
MINIBATCH = 4
"""Drafts that a reflection reads."""
FEWEST_WORDS, TOKENS_PER_WORD = 200, 5
"""A rewritten part may have as many words as now, or this number (`prompts/reflection.md`). Most texts need half of these
tokens; the others are for what a teacher writes before the text."""
T = TypeVar("T")
Proposals = dict[tuple[str, str], Proposal]
"""By part and text."""


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


class CheckedPrompts(GEPAAdapter[Seed, MeasuredDraft, Any]):
    """The adapter of GEPA: a text is a part of the prompt, a score comes from the recipe's checks."""

    propose_new_texts = None

    def __init__(self, scorer: CandidateScorer, loop: asyncio.AbstractEventLoop, proposals: Proposals) -> None:
        """Adds to `proposals`."""
        self._scorer = scorer
        self._start = scorer.start
        self._loop = loop
        self._proposals = proposals
        self._read: tuple[dict[str, str], Sequence[MeasuredDraft]] = {}, ()
        """The texts and drafts that a reflection has just read."""
        self.cut_off: str | None = None
        """Why the last reflection has no whole text."""
        self.failure: Exception | None = None
        """The first, which GEPA may ignore and ask again."""

    def evaluate(
        self, batch: list[Seed], candidate: dict[str, str], capture_traces: bool = False
    ) -> EvaluationBatch[MeasuredDraft, Any]:
        """Of a draft that passes 1,000 over its tokens, else 0: a sum over drafts, as GEPA needs. With the floor, the second
        draft with the same texts scores 0.
        """
        (before, read), self._read = self._read, ({}, ())
        if self._is_unusable(candidate):
            return EvaluationBatch(outputs=[None] * len(batch), scores=[0.0] * len(batch))
        built = build_candidate(self._start, candidate)
        if len(batch) == len(self._scorer.seeds):
            self.call(self._scorer.score(built))
        calls = len(batch) if read or built.digest not in self._scorer.scored else 0
        drafts = self._mark_repeated(self.call(self._scorer.measure(built, batch)))
        for key in candidate.items() if read else ():
            if (one := self._proposals.get(key)) and one.rate is None and before[key[0]] != key[1]:
                update = {"rate": measure_rate(drafts), "rate_before": measure_rate(read)}
                self._proposals[key] = one.model_copy(update=update)
        scores = [1000 * one.passed / max(1, tokens) for one, tokens in zip(drafts, count_tokens(drafts), strict=True)]
        return EvaluationBatch(outputs=drafts, scores=scores, trajectories=drafts, num_metric_calls=calls)

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

    def _is_unusable(self, texts: Mapping[str, str]) -> bool:
        """Also keeps new proposals."""
        changed = [(name, old, texts[name]) for name, old in list_parts(self._start).items() if texts[name] != old]
        for name, old, text in changed:
            new = Proposal(part=name, text=text, refused=self.cut_off or find_part_fault(old, text))
            self._proposals.setdefault((name, text), new)
        return any(self._proposals[name, text].refused for name, _, text in changed)

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
        eval_batch: EvaluationBatch[MeasuredDraft, Any],
        components_to_update: list[str],
    ) -> Mapping[str, Sequence[Mapping[str, Any]]]:
        """What the reflecting teacher reads: request, reply, the checks' finding and the tokens read and written."""
        drafts = eval_batch.trajectories or []
        self._read = candidate, drafts
        rows = [
            {"Request": one.asked, "Draft": one.reply, "Checks": f"{one.feedback}; {tokens:,} tokens"}
            for one, tokens in zip(drafts, count_tokens(drafts), strict=True)
        ]
        return dict.fromkeys(components_to_update, rows)


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
                reply = await dispatcher.answer(agent.teacher, question, request, number)
        except CallFailed as error:
            model = recipe.teachers[agent.teacher].model
            raise ProviderError(f"{model}: no reply to a reflection: {error}; the same command resumes") from None
        self._adapter.cut_off = None if reply.finished else f"it was cut off at {question.max_tokens:,} tokens"
        return reply.text


async def search_by_reflection(
    scorer: CandidateScorer, context: LocalAgentContext, declared: SearchDeclaration, proposals: Proposals
) -> None:
    """Adds to `proposals`, also if it is stopped. Raises what `DraftMeter.measure` does."""
    parts = list_parts(scorer.start)
    asked = load_prompt("improve", "reflection", installed=PROMPTS)
    templates = {
        name: asked.fill({"part": name, "placeholders": list_placeholders(text)})[0].content for name, text in parts.items()
    }  # fmt: skip
    words = max(FEWEST_WORDS, *(len(text.split()) for text in parts.values()))
    changes = {"teacher": declared.teacher, "max_tokens": TOKENS_PER_WORD * words, "temperature": 1.0}
    agent = context.recipe.agents.generator.model_copy(update=changes)
    adapter = CheckedPrompts(scorer, asyncio.get_running_loop(), proposals)

    def run() -> None:
        optimize(
            seed_candidate=parts, trainset=list(scorer.seeds), valset=list(scorer.seeds), adapter=adapter,
            reflection_lm=Reflector(context, agent, adapter), reflection_minibatch_size=min(MINIBATCH, len(scorer.seeds)),
            reflection_prompt_template=templates, perfect_score=float("inf"), skip_perfect_score=False,
            max_metric_calls=declared.calls, seed=context.recipe.seed, logger=SimpleNamespace(log=lambda _: None),
        )  # fmt: skip

    with suppress(CallLimit):
        await asyncio.to_thread(run)
        if adapter.failure:
            raise adapter.failure
