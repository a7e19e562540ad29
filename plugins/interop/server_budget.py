"""What the previews and runs of one MCP server may spend together. Knows no teacher; the recipe's own budget keys enforce it."""

from core.config.recipe import BudgetConfig
from core.errors import RunFailed, UsageError
from core.sample import NOTHING_SPENT, Spending

CURRENCY = "USD"
"""Of `max_usd`, and of prices of the recipe, which name none."""


class ServerBudget:
    """Requests and money that are left of the user's limits. A limit of None is none; at least one is set if runs are allowed."""

    def __init__(self, max_requests: int | None, max_usd: float | None) -> None:
        self.max_requests, self.max_usd = max_requests, max_usd
        self._spent: dict[int, Spending] = {}
        """By preview and started run, each without what its run had spent before."""

    @property
    def spent(self) -> Spending:
        return sum(self._spent.values(), NOTHING_SPENT)

    def record(self, work: int, spent: Spending) -> None:
        """Record what a preview or a started run has spent so far. Calls in flight count at their most until they are settled."""
        self._spent[work] = spent

    def limit(self, wanted: BudgetConfig, earlier: Spending = NOTHING_SPENT) -> BudgetConfig:
        """The budget `wanted`, lowered to what is left. A run's budget counts all its sessions, so `earlier` is added to what is
        left: the run spent it before.

        Raises:
            RunFailed: if nothing is left.
        """
        calls, cost = wanted.calls, wanted.cost
        if self.max_requests is not None:
            left = self.max_requests - self.spent.calls
            if left < 1:
                raise RunFailed(
                    self._describe_end(f"{self.spent.calls:,} of {self.max_requests:,} requests", "requests")
                )
            calls = earlier.calls + left if calls is None else min(earlier.calls + left, calls)
        if self.max_usd is not None:
            rest = self.max_usd - self.spent.cost
            if rest <= 0:
                raise RunFailed(self._describe_end(f"{self.spent.cost:.4f} of {self.max_usd:g} {CURRENCY}", "usd"))
            cost = earlier.cost + rest if cost is None else min(earlier.cost + rest, cost)
        return wanted.model_copy(update={"calls": calls, "cost": cost})

    def check_currencies(self, currencies: set[str | None]) -> None:
        """Raises UsageError if a price is in another currency than `max_usd`."""
        if self.max_usd is not None and (others := sorted(filter(None, currencies - {CURRENCY}))):
            raise UsageError(
                f"--max-usd: a teacher's price is in {others[0]}, which is not compared with {CURRENCY}; list it in {CURRENCY}, "
                "or use --max-requests"
            )

    @staticmethod
    def _describe_end(used: str, option: str) -> str:
        return f"the budget of this server is spent: {used}; the user can start it again with a higher --max-{option}"


def list_budget_overrides(budget: BudgetConfig) -> list[str]:
    """The limits of a budget in the form of `--set`."""
    return [
        f"budget.{key}={value}"
        for key, value in budget.model_dump(include={"calls", "cost"}, exclude_none=True).items()
    ]
