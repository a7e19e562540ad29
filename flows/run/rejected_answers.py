"""Rejected answers to the prompts that a run's student learns from, for `dpo`: of the run's own dropped candidates and revisions.

Knows no Prefect and no training.
"""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from core.config.recipe import Recipe
from core.config.students import StudentConfig
from core.runs.run_dir import RunDir
from core.sample import Message, remove_thinking
from flows.data.curated_run import read_finished_samples
from flows.rows.row_forms import read_row_pair
from flows.terminal.text_format import format_count

if TYPE_CHECKING:
    import polars as pl

MIN_PAIRS = 5
"""Fewer pairs than this are not learned from."""


def find_rejected_answers(
    run: RunDir,
    recipe: Recipe,
    conversations: Sequence[Sequence[Message]],
    released: "Iterable[pl.DataFrame]" = (),
) -> list[list[Message] | None]:
    """For each conversation a rejected answer to its prompt, from the run or from `released`, the pairs of earlier releases."""
    from agents.families import find_recipe_family
    from flows.data.preference_pairs import find_preference_pairs, match_rejected_answers

    family = find_recipe_family(recipe)
    found = find_preference_pairs(read_finished_samples(run), family, recipe)
    earlier = (read_row_pair(row) for pairs in released for row in pairs.iter_rows(named=True))
    rejected = match_rejected_answers(conversations, found, earlier)
    if recipe.dataset.thinking:
        return rejected
    return [other and remove_thinking(other) for other in rejected]


def leave_out_scarce_pairs(
    config: StudentConfig, rejected: list[list[Message] | None]
) -> tuple[StudentConfig, list[list[Message] | None], str]:
    """The configuration and the rejected answers to train with, and a sentence about their number: with fewer than `MIN_PAIRS`,
    the other objectives only.
    """
    pairs = sum(other is not None for other in rejected)
    if pairs >= MIN_PAIRS:
        return config, rejected, f"{format_count(pairs, 'conversation')} with a rejected answer for dpo"
    objective = {name: weight for name, weight in config.objective_weights.items() if name != "dpo"}
    sentence = (
        f"{format_count(pairs, 'conversation')} with a rejected answer, too few for dpo, which needs {MIN_PAIRS}: the student "
        f"learns from {', '.join(objective)} only; raise answers_per_seed or agents.max_revisions"
    )
    return config.model_copy(update={"objective": objective}), [], sentence
