"""First drafts of a prompt candidate on given seeds, judged by the recipe's checks and stored, so that none is asked twice. Knows
no search.
"""

import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median

from agents.calls.agent_context import LocalAgentContext
from agents.planning.run_plan import RunPlan
from agents.reply_schema import iter_texts
from agents.studies.held_out_evaluation import configure_drafting, read_drafted_sample
from agents.topologies.sample_production import produce_samples
from core.errors import ProviderError
from core.sample import FrozenModel, RejectionReason, Sample, Seed
from core.stop_signal import RunStopped
from core.storage.atomic_files import write_bytes
from core.storage.bounded_reading import open_without_link
from filters.collapse.matched_samples import split_into_words
from plugins.improve.prompt_parts import PromptCandidate
from prompts import read_prompt_files

OUTAGE_DRAFTS, OUTAGE_SHARE = 3, 1 / 3
"""Failed calls of one measurement, and their share, from which on the endpoint is at fault rather than the prompts."""
COPY_WORDS, COPIED_SHARE = 8, 0.5
"""A draft copies an example if the example has this share of its runs of that number of words (`filters.collapse.repetition`)."""


class MeasuredDraft(FrozenModel):
    candidate: str
    """The digest of the prompts."""
    seed: str
    """The digest of the seed."""
    passed: bool
    fault: str
    """The check that did not pass, or why there is no answer; "" if all passed."""
    evidence: str
    answer: str
    """All texts of the reply: often the question too is the teacher's. Empty if it has another form than the recipe needs."""
    asked: str
    """The last message of the request."""
    reply: str
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int

    @property
    def feedback(self) -> str:
        return "passes all checks" if self.passed else f"{self.fault}: {self.evidence}"


def count_tokens(drafts: Sequence[MeasuredDraft]) -> list[int]:
    """The tokens of each draft that its teacher reads or writes anew: without those that it usually has cached, the prefix that
    all drafts share. The first calls of a prompt fill the cache, and in a long run they are few.
    """
    shared = round(median(draft.cached_tokens for draft in drafts)) if drafts else 0
    return [
        one.completion_tokens + one.prompt_tokens - max(one.cached_tokens, min(shared, one.prompt_tokens))
        for one in drafts
    ]


def measure_rate(drafts: Sequence[MeasuredDraft]) -> float:
    """Verified rows per 1,000 teacher tokens."""
    tokens = sum(count_tokens(drafts))
    return 1000 * sum(draft.passed for draft in drafts) / tokens if tokens else 0.0


class DraftMeter:
    """Asks for drafts in one context, whatever the candidate: teachers start once."""

    def __init__(
        self, context: LocalAgentContext, plan: RunPlan, folder: Path, on_draft: Callable[[int], None]
    ) -> None:
        """`folder` keeps the drafts; `on_draft` gets the number of those that were asked for."""
        self._context = context
        self._plan = configure_drafting(plan)
        self._folder = folder
        self._on_draft = on_draft
        self._file = folder / "drafts.jsonl"
        self._drafts = {(one.candidate, one.seed): one for one in read_drafts(self._file)}
        self.asked = 0

    async def measure(self, candidate: PromptCandidate, seeds: Sequence[Seed]) -> list[MeasuredDraft]:
        """In the order of the seeds.

        Raises:
            RunStopped: on the stop signal; BudgetExhausted: if the budget ended. The drafts so far are stored.
            ProviderError: if the teacher cannot be reached, answered no call so far, or failed for a third of these. Else, a call
                without an answer is a draft that does not pass: the same prompt and seed would fail again.
        """
        missing = [seed for seed in seeds if (candidate.digest, seed.digest) not in self._drafts]
        failed: list[MeasuredDraft] = []
        if missing:
            context = dataclasses.replace(self._context, plan=self._build_plan(candidate))
            with open_without_link(self._file, "ab", buffering=0) as file:

                def store(draft: MeasuredDraft) -> None:
                    self._drafts[candidate.digest, draft.seed] = draft
                    file.write(f"{draft.model_dump_json()}\n".encode())
                    self.asked += 1
                    self._on_draft(self.asked)

                def add(sample: Sample) -> None:
                    draft = read_draft(sample, candidate)
                    (failed.append if sample.reason is RejectionReason.provider else store)(draft)

                await produce_samples(context, missing, add)
                reason = self._context.dispatcher.stop_signal.reason
                outage = len(failed) >= OUTAGE_DRAFTS and len(failed) > OUTAGE_SHARE * len(missing)
                if failed and not reason and (outage or not self._drafts):
                    what = f"{failed[0].evidence}, for {len(failed)} of {len(missing)} drafts"
                    raise ProviderError(
                        f"{self._plan.recipe.generator_teacher.model}: {what}; the same command resumes"
                    )
                for draft in () if reason else failed:  # in an outage they are asked again
                    store(draft)
        found = [self._drafts.get((candidate.digest, seed.digest)) for seed in seeds]
        drafts = [draft for draft in found if draft]
        if len(drafts) < len(seeds):
            raise self._context.dispatcher.stop_signal.reason or RunStopped()
        return drafts

    def list_candidates(self, seeds: Sequence[Seed]) -> list[str]:
        """The digests of those that were measured on some of these seeds, in the order of their first draft."""
        wanted = {seed.digest for seed in seeds}
        return list(dict.fromkeys(candidate for candidate, seed in self._drafts if seed in wanted))

    def _build_plan(self, candidate: PromptCandidate) -> RunPlan:
        """The plan with the candidate's prompts and temperature, written to a folder of its own: prompts are cached by place."""
        plan, folder = self._plan, self._folder / "prompts" / candidate.digest
        for name, content in build_prompt_files(plan, candidate).items():
            folder.mkdir(parents=True, exist_ok=True)
            if not (folder / name).is_file():
                write_bytes(folder / name, content)
        generator = plan.recipe.agents.generator.model_copy(update={"temperature": candidate.temperature})
        agents = plan.recipe.agents.model_copy(update={"generator": generator})
        return plan.with_recipe(prompts=str(folder.absolute()), agents=agents)


def build_prompt_files(plan: RunPlan, candidate: PromptCandidate) -> dict[str, bytes]:
    """All prompt files of the recipe, those of the candidate in place of its own."""
    files = read_prompt_files(plan.recipe.family, plan.own_prompts, plan.family.prompts)
    return files | {f"{role}.md": parts.markdown.encode() for role, parts in candidate.prompts.items()}


def read_drafts(file: Path) -> Iterator[MeasuredDraft]:
    """Those of a file; a torn last line of a killed process is left out."""
    for line in file.read_bytes().split(b"\n") if file.is_file() else ():
        if line.endswith(b"}"):
            yield MeasuredDraft.model_validate_json(line)


def read_draft(sample: Sample, candidate: PromptCandidate) -> MeasuredDraft:
    first = next((turn for turn in sample.turns if turn.agent == "generator"), None)
    reply = first.reply if first else ""
    result = read_drafted_sample(sample)
    fault, evidence = result.fault or "", result.evidence if result.fault else ""
    if not fault and copies_example(sample.answer, candidate.replies):
        fault, evidence = "copied_example", "half of its words in their order are those of an example"
    return MeasuredDraft(
        candidate=candidate.digest, seed=sample.seed.digest, passed=not fault, fault=fault, evidence=evidence,
        answer="\n".join(list_texts(reply)) if sample.answer else "", asked=first.asked if first else "", reply=reply,
        prompt_tokens=sample.usage.prompt_tokens, cached_tokens=sample.usage.cached_tokens,
        completion_tokens=sample.usage.completion_tokens,
    )  # fmt: skip


def list_texts(reply: str) -> list[str]:
    """All texts of a JSON reply; a reply of another form as it is."""
    try:
        return list(iter_texts(json.loads(reply)))
    except ValueError:
        return [reply]


def copies_example(answer: str, replies: Sequence[str]) -> bool:
    """Whether an example of the prompt has most of the answer: checks compare with the family's own examples at most."""
    runs = _list_runs(answer)
    return any(len(runs & _list_runs(reply)) >= COPIED_SHARE * len(runs) for reply in replies) if runs else False


def _list_runs(text: str) -> set[tuple[str, ...]]:
    words = split_into_words(text)
    return {tuple(words[place : place + COPY_WORDS]) for place in range(len(words) - COPY_WORDS + 1)}
