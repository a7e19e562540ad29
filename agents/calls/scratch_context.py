"""An agent context outside a run: for previews, studies and evaluations. Stores nothing that outlives the block, except
a journal of spending if one is named.
"""

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from agents.calls.agent_context import LocalAgentContext
from agents.calls.budget import RunBudget
from agents.calls.call_ledger import CallLedger
from agents.calls.dispatcher import open_dispatcher
from agents.planning.run_plan import RunPlan
from core.config.recipe import BudgetConfig
from core.sample import NOTHING_SPENT, Spending
from core.stop_signal import StopSignal, UserStop


@asynccontextmanager
async def open_scratch_context(
    plan: RunPlan, stop: UserStop, cache: Path | None = None, *, budget: BudgetConfig | None = None,
    journal: Path | None = None, elsewhere: Spending = NOTHING_SPENT,
) -> AsyncIterator[LocalAgentContext]:  # fmt: skip
    """A context with a budget and a ledger in a temporary folder, which nothing outlives: its teachers reply without batches.

    Args:
        plan: names the teachers to start; its own budget and cache settings are ignored.
        stop: set by the user to stop.
        cache: the folder of the reply cache; None for no cache.
        budget: limits on what may be spent; None for no limit.
        journal: the budget's journal, which stays; None for one in the temporary folder.
        elsewhere: what was spent outside the journal and counts against the limits.
    """
    direct = {name: config.model_copy(update={"batch": False}) for name, config in plan.recipe.teachers.items()}
    plan = plan.with_recipe(budget=budget or BudgetConfig(), teachers=direct)
    if cache is None:
        plan = plan.with_recipe(cache_mb=0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with (
            RunBudget(
                plan.recipe.budget, journal or folder / "spend.jsonl", plan.max_calls_per_sample(), elsewhere
            ) as run_budget,
            CallLedger(folder / "calls.jsonl") as ledger,
        ):
            async with open_dispatcher(plan, run_budget, StopSignal(stop), folder, cache or folder) as dispatcher:
                yield LocalAgentContext(plan, dispatcher, ledger)
