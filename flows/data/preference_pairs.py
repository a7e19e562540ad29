"""Preference pairs: two answers to one prompt, and their difference. Knows samples and their families, not files.

No teacher is asked: the difference is a failed check or a lower critic score, recorded when the samples were made.
"""

import json
import math
from collections.abc import Collection, Iterable, Iterator, Sequence
from difflib import SequenceMatcher
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple

from agents.families.base import RecipeFamily
from agents.reply_schema import InvalidReply, parse_reply
from core.config.recipe import PreferenceConfig, Recipe
from core.config.students import StudentConfig
from core.errors import UsageError
from core.runs.records import PairsRecord
from core.runs.run_dir import RunDir
from core.sample import (
    Candidate,
    Critique,
    Message,
    Sample,
    SampleStatus,
    Verdict,
    conversation_digest,
    parse_sample_index,
    remove_thinking,
)
from core.storage.atomic_files import count_values
from core.storage.sample_files import build_message_type, flatten_message
from flows.data.curated_run import read_finished_samples
from flows.data.dataset_formats import count_prompt_turns
from flows.rows.row_forms import read_row_pair
from flows.terminal.text_format import format_count

if TYPE_CHECKING:
    import polars as pl

NEAR_COPY_SIMILARITY = 0.9
"""Share of common words, in order (`difflib`'s ratio), from which two answers are too similar for a pair. If they differ in a
few tokens only, DPO lowers the likelihood of the chosen answer too (Pal et al. 2024, arXiv 2402.13228)."""
MIN_PAIRS = 5
"""Fewer pairs, or fewer refused answers, than this are not learned from."""


class RevisionAnswer(NamedTuple):
    """The answer of a sample at one of its revisions, with its verdicts and critique."""

    id: str
    """The id of the sample, with the suffix `/n` for an earlier revision."""
    prompt: list[Message]
    response: list[Message]
    words: list[str]
    """All words of the response."""
    kept: bool
    """Whether the answer is in the dataset."""
    faults: list[Verdict]
    """Verdicts of failed checks."""
    is_sound: bool
    """Whether the answer passed all checks, and was checked."""
    critique: Critique | None
    tools: Any

    @property
    def question(self) -> str:
        """The prompt as text, equal only for equal prompts."""
        return "\n".join(message.model_dump_json() for message in self.prompt)

    @property
    def score(self) -> float:
        """The mean over the critic's rubrics; NaN without a critique."""
        scores = self.critique.scores.values() if self.critique else ()
        return sum(scores) / len(scores) if scores else math.nan


class PreferencePair(NamedTuple):
    chosen: RevisionAnswer
    rejected: RevisionAnswer
    gap: float
    """How much lower the mean critic score of the rejected answer is; 0 unless both have a score."""

    @property
    def kind(self) -> str:
        faults = self.rejected.faults
        return f"verifier:{faults[0].check}" if faults else "critic"

    @property
    def difference(self) -> str:
        if self.rejected.faults:
            return "; ".join(f"{fault.check}: {fault.evidence}" for fault in self.rejected.faults)
        ours = self.chosen.critique.scores if self.chosen.critique else {}
        theirs = self.rejected.critique.scores if self.rejected.critique else {}
        changes = [f"{rubric} {ours[rubric]} to {theirs[rubric]}" for rubric in ours if rubric in theirs]
        rubrics = f" ({', '.join(changes)})" if changes else ""
        return f"critic: mean score {self.chosen.score:.2f} against {self.rejected.score:.2f}{rubrics}"

    @property
    def run_position(self) -> tuple[str, str]:
        """Sorts pairs in the order of the run."""
        return (self.chosen.id, self.rejected.id)

    @property
    def clearness(self) -> tuple[Any, ...]:
        """Sorts the clearest difference first: checks before scores, more failed checks, then the larger gap."""
        faults = self.rejected.faults
        return (not faults, -len(faults), -self.gap, self.run_position)


class FoundPairs(NamedTuple):
    """The pairs of a run, in order."""

    pairs: list[PreferencePair]
    prompts: int
    """Number of prompts with a kept answer."""


def find_preference_pairs(samples: Iterable[Sample], family: RecipeFamily, recipe: Recipe) -> FoundPairs:
    """Pairs among the samples of each seed, and among the revisions of each sample. `samples` are in the order of the run.

    Failed samples are in no pair. A prompt has at most `pairs_per_prompt` pairs, even if several seeds led to it.
    """
    config = recipe.preference
    by_question: dict[str, list[PreferencePair]] = {}
    for of_seed in _group_by_seed(samples, recipe):
        answers = [
            answer
            for sample in of_seed
            for answer in collect_revision_answers(sample, family, checked=bool(recipe.verifiers))
        ]
        pairs_of_seed: dict[str, list[PreferencePair]] = {}
        for chosen in answers:
            if chosen.kept and chosen.is_sound:
                worse = (_build_preference_pair(chosen, rejected, config.margin) for rejected in answers)
                pairs_of_seed.setdefault(chosen.question, []).extend(pair for pair in worse if pair)
        for question, pairs in pairs_of_seed.items():
            known = by_question.get(question, ())
            by_question[question] = _select_clearest_pairs([*known, *pairs], config.pairs_per_prompt)
    ordered = sorted((pair for pairs in by_question.values() for pair in pairs), key=lambda pair: pair.run_position)
    return FoundPairs(ordered, len(by_question))


def _group_by_seed(samples: Iterable[Sample], recipe: Recipe) -> Iterator[list[Sample]]:
    """`samples` are in the order of the run."""
    for _, group in groupby(samples, key=lambda sample: parse_sample_index(sample.id) // recipe.answers_per_seed):
        yield list(group)


def _build_preference_pair(chosen: RevisionAnswer, rejected: RevisionAnswer, margin: float) -> PreferencePair | None:
    """A pair, if both answer the same prompt in different words, and `rejected` fails checks or scores clearly lower."""
    if chosen.prompt != rejected.prompt or not (rejected.faults or rejected.is_sound):
        return None
    difference = chosen.score - rejected.score
    # Rounded, since the means are of whole scores, but 13/3 - 10/3 is not quite 1.
    gap = 0.0 if math.isnan(difference) else round(difference, 6)
    if not rejected.faults and gap < margin:
        return None
    return None if _is_near_copy(chosen.words, rejected.words) else PreferencePair(chosen, rejected, gap)


def _is_near_copy(left: Sequence[str], right: Sequence[str]) -> bool:
    """Whether two texts, as lists of words, are equal or nearly equal."""
    matcher = SequenceMatcher(None, left, right, autojunk=False)
    return all(
        bound() >= NEAR_COPY_SIMILARITY for bound in (matcher.real_quick_ratio, matcher.quick_ratio, matcher.ratio)
    )


def _select_clearest_pairs(pairs: Sequence[PreferencePair], most: int) -> list[PreferencePair]:
    """The `most` pairs with the clearest difference, without repeated rejected texts."""
    taken: dict[tuple[str, ...], PreferencePair] = {}
    for pair in sorted(pairs, key=lambda pair: pair.clearness):
        if len(taken) < most:
            taken.setdefault(tuple(pair.rejected.words), pair)
    return list(taken.values())


def collect_revision_answers(sample: Sample, family: RecipeFamily, *, checked: bool) -> Iterator[RevisionAnswer]:
    """The answers of `sample` in the order of its revisions; none if it failed. If the recipe has checks (`checked`), an answer
    without a verdict is not sound.
    """
    if sample.state == SampleStatus.failed:
        return
    for revision in range(sample.revisions + 1):
        last = revision == sample.revisions
        candidate = sample.candidate if last else rebuild_candidate(sample, family, revision)
        if candidate is None:
            continue
        end = count_prompt_turns([message.role for message in candidate.messages])
        # Answers to one question are comparable, whatever was thought before its earlier turns.
        prompt, response = remove_thinking(candidate.messages[:end]), candidate.messages[end:]
        verdicts = [verdict for verdict in sample.verdicts if verdict.revision == revision]
        faults = [verdict for verdict in verdicts if not verdict.passed]
        if prompt and response:
            yield RevisionAnswer(
                id=sample.id if last else f"{sample.id}/{revision}",
                prompt=prompt,
                response=response,
                words=" ".join(message.text for message in response).split(),
                kept=last and sample.state == SampleStatus.kept,
                faults=faults,
                is_sound=not faults and (bool(verdicts) or not checked),
                critique=next((critique for critique in sample.critiques if critique.revision == revision), None),
                tools=None if sample.seed.data.get("written_out") else candidate.fields.get("tools"),
            )


def rebuild_candidate(sample: Sample, family: RecipeFamily, revision: int) -> Candidate | None:
    """The candidate of an earlier revision, parsed from its generator's last reply; None if that reply is invalid."""
    turns = [turn for turn in sample.turns if turn.agent == "generator" and turn.revision == revision]
    if not turns:
        return None
    try:
        draft = parse_reply(family.reply_type(sample.seed), turns[-1].reply)
        candidate = family.candidate(sample.seed, draft).add_thinking(turns[-1].reasoning)
        return candidate.add_images(sample.candidate.images) if family.sources else candidate
    except InvalidReply:
        return None


def split_preference_pairs(
    found: FoundPairs, held_out_ids: Collection[str]
) -> tuple[list["pl.DataFrame"], PairsRecord]:
    """Rows of pairs, first those whose chosen sample is not in `held_out_ids`, then the others, and their counts."""
    import polars as pl

    sides = [
        [pair for pair in found.pairs if (pair.chosen.id in held_out_ids) is held_out] for held_out in (False, True)
    ]
    record = PairsRecord(
        train=len(sides[0]),
        validation=len(sides[1]),
        prompts=found.prompts,
        paired=len({pair.chosen.question for pair in found.pairs}),
        differences=count_values(pair.kind for pair in found.pairs),
    )
    turn_columns = dict.fromkeys(("prompt", "chosen", "rejected"), pl.List(build_message_type()))
    text_columns = dict.fromkeys(("difference", "chosen_id", "rejected_id", "tools"), pl.String)
    tables = []
    for pairs in sides:
        rows = [
            {
                "prompt": [flatten_message(message.model_dump()) for message in pair.chosen.prompt],
                "chosen": [flatten_message(message.model_dump()) for message in pair.chosen.response],
                "rejected": [flatten_message(message.model_dump()) for message in pair.rejected.response],
                "difference": pair.difference,
                "chosen_id": pair.chosen.id,
                "rejected_id": pair.rejected.id,
                "tools": json.dumps(tools, ensure_ascii=False) if (tools := pair.chosen.tools) else None,
            }
            for pair in pairs
        ]
        tables.append(pl.DataFrame(rows, schema={**turn_columns, **text_columns}))
    return tables, record


def _match_rejected_answers(
    conversations: Sequence[Sequence[Message]],
    found: FoundPairs,
    others: Iterable[tuple[list[Message], list[Message]]] = (),
) -> list[list[Message] | None]:
    """For each conversation, a rejected answer to its prompt, the one with the clearest difference; None where it is in no pair.
    `others` are pairs from elsewhere, as conversations with the chosen and with the rejected answer.
    """
    own = (
        ([*pair.chosen.prompt, *pair.chosen.response], [*pair.rejected.prompt, *pair.rejected.response])
        for pair in sorted(found.pairs, key=lambda pair: pair.clearness)
    )
    by_chosen: dict[str, list[Message]] = {}
    for chosen, rejected in (*own, *others):
        by_chosen.setdefault(conversation_digest(chosen), rejected)
    return [by_chosen.get(conversation_digest(conversation)) for conversation in conversations]


def explain_missing_pairs(record: PairsRecord, config: PreferenceConfig) -> str:
    """A sentence that explains why there is no pair."""
    if not record.prompts:
        return "no preference pair could be made: no sample that passed all checks is kept"
    return (
        f"no preference pair could be made of {format_count(record.prompts, 'prompt')} with a kept answer: no other answer to "
        f"them failed a check or scored lower by preference.margin = {config.margin:g}; raise answers_per_seed, or "
        "lower the margin"
    )


def find_rejected_answers(
    run: RunDir,
    recipe: Recipe,
    conversations: Sequence[Sequence[Message]],
    released: "Iterable[pl.DataFrame]" = (),
) -> list[list[Message] | None]:
    """For each conversation a rejected answer to its prompt, from the run or from `released`, the pairs of earlier releases."""
    from agents.families import find_recipe_family

    family = find_recipe_family(recipe)
    found = find_preference_pairs(read_finished_samples(run), family, recipe)
    earlier = (read_row_pair(row) for pairs in released for row in pairs.iter_rows(named=True))
    rejected = _match_rejected_answers(conversations, found, earlier)
    if recipe.dataset.thinking:
        return rejected
    return [other and remove_thinking(other) for other in rejected]


def list_refused_answers(sample: Sample, family: RecipeFamily, *, thinking: bool) -> list[list[Message]]:
    """The conversations of a sample, one for each revision, that failed a named check."""
    answers = collect_revision_answers(sample, family, checked=True)
    refused = [[*answer.prompt, *answer.response] for answer in answers if answer.faults]
    return refused if thinking else [remove_thinking(one) for one in refused]


class PreferenceData(NamedTuple):
    """The answers that a student learns from, in addition to its conversations."""

    config: StudentConfig
    """Without the objectives for which there are too few."""
    rejected: list[list[Message] | None]
    """For `dpo`: for each conversation a worse answer."""
    judged: list[tuple[list[Message], bool]]
    """For `kto`: the conversations, which were kept, and refused answers."""
    siblings: list[Sequence[Sequence[Message]]]
    """The kept rows of the seed of each of `judged`, whose drafts may have other prompts."""
    notes: list[str]
    """Sentences about their number."""


def find_preference_data(
    run: RunDir,
    config: StudentConfig,
    conversations: Sequence[list[Message]],
    released: "Iterable[pl.DataFrame]" = (),
) -> PreferenceData:
    """What the objectives `dpo` and `kto` of a run's student learn from; `released` are pairs of earlier releases.

    Raises UsageError for a run with the filter `pii`, which masks no refused answer.
    """
    from agents.families import find_recipe_family

    recipe = run.read_recipe()
    if config.learns_refused and any(one.type == "pii" for one in recipe.filters):
        raise UsageError(f"{run.name}: its filter pii masks no refused answers; leave dpo and kto out of the objective")
    rejected: list[list[Message] | None] = []
    judged: list[tuple[list[Message], bool]] = []
    siblings: list[Sequence[Sequence[Message]]] = []
    notes: list[str] = []
    if "dpo" in config.objective_weights:
        rejected = find_rejected_answers(run, recipe, conversations, released)
        config, rejected, note = leave_out_scarce_pairs(config, rejected)
        notes.append(note)
    if "kto" in config.objective_weights:
        family, thinking = find_recipe_family(recipe), recipe.dataset.thinking is not None
        refused, siblings = list[list[Message]](), [[] for _ in conversations]
        for of_seed in _group_by_seed(read_finished_samples(run), recipe):
            drafts = [one for sample in of_seed for one in list_refused_answers(sample, family, thinking=thinking)]
            refused += drafts
            kept = [sample.candidate.messages for sample in of_seed if sample.state is SampleStatus.kept]
            siblings += [kept] * len(drafts)
        note = f"{format_count(len(refused), 'answer')} that failed a check, for kto"
        if len(refused) < MIN_PAIRS:
            config = _leave_out(config, "kto")
            note += f", which needs {MIN_PAIRS}: the student learns without it; make a run with more samples"
        else:
            judged = [*((one, True) for one in conversations), *((one, False) for one in refused)]
        notes.append(note)
    return PreferenceData(config, rejected, judged, siblings, notes)


def _leave_out(config: StudentConfig, name: str) -> StudentConfig:
    objective = {other: weight for other, weight in config.objective_weights.items() if other != name}
    return config.model_copy(update={"objective": objective})


def leave_out_scarce_pairs(
    config: StudentConfig, rejected: list[list[Message] | None]
) -> tuple[StudentConfig, list[list[Message] | None], str]:
    """The configuration and the rejected answers to train with, and a sentence about their number: with fewer than `MIN_PAIRS`,
    the other objectives only.
    """
    pairs = sum(other is not None for other in rejected)
    if pairs >= MIN_PAIRS:
        return config, rejected, f"{format_count(pairs, 'conversation')} with a rejected answer for dpo"
    config = _leave_out(config, "dpo")
    sentence = (
        f"{format_count(pairs, 'conversation')} with a rejected answer, too few for dpo, which needs {MIN_PAIRS}: the student "
        f"learns from {', '.join(config.objective_weights)} only; raise answers_per_seed or agents.max_revisions"
    )
    return config, [], sentence
