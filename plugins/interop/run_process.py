"""A run as a child process, which ends as after Ctrl-C when this process ends, however that happens; and what the
previews and runs of one MCP server may spend together. Knows no protocol.

Run as a program, this module is the child: the command line, interrupted at the end of its stdin. A pipe is closed also when the
process that holds it is killed.
"""

import os
import runpy
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from contextlib import suppress

from core.config.recipe import BudgetConfig
from core.errors import RunFailed, UsageError
from core.sample import NOTHING_SPENT, Spending
from flows.recipes.recipe_catalog import guard_recipes
from plugins.interop.access_policy import AccessPolicy

LOG_TAIL_BYTES = 16 << 10


class RunProcess:
    """A `stillhouse` command in a session of its own. What it prints is kept in a file without a name."""

    def __init__(self, name: str, words: Sequence[str], policy: AccessPolicy) -> None:
        """`name` is the run's, `words` are the arguments of the command, which keeps to `policy`."""
        self.name = name
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  # open as long as this object, and the child has it too
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", __spec__.name, policy.to_json(), *words],
            env=_build_environment(), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=self._log,
            start_new_session=True,
        )  # fmt: skip

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._process.poll()

    def interrupt(self) -> None:
        """Stop it as Ctrl-C does: work in flight is stored. Called again, stop it at once."""
        stdin = self._process.stdin
        if stdin and not stdin.closed:
            stdin.close()
        elif self.exit_code is None:
            self._process.send_signal(signal.SIGINT)

    def wait(self, seconds: float) -> None:
        """Wait until it has ended, at most `seconds`."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)

    def close(self) -> None:
        """Interrupt it if it still runs, and forget what it printed."""
        if self._process.stdin:
            self._process.stdin.close()
        self._log.close()

    def read_log_tail(self) -> list[str]:
        """The last lines that it printed on stderr."""
        size = os.fstat(self._log.fileno()).st_size
        tail = os.pread(
            self._log.fileno(), LOG_TAIL_BYTES, max(0, size - LOG_TAIL_BYTES)
        )  # the position is the child's
        return [line for line in tail.decode("utf-8", "replace").splitlines() if line.strip()]


def _build_environment() -> dict[str, str]:
    """The variables and the module path of this process: the child finds none in its working folder (`-P`), where a
    client may write.
    """
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(os.path.isabs, sys.path))}


def _interrupt_at_end_of_input() -> None:
    while os.read(0, 1024):
        continue
    os.kill(os.getpid(), signal.SIGINT)


def _run_child_command(policy: AccessPolicy, words: Sequence[str]) -> None:
    """Run the command line with these arguments until it ends, or until the end of stdin interrupts it."""
    guard_recipes(policy.find_recipe_problems)
    signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # the parent may ignore it, as a shell's background jobs do
    threading.Thread(target=_interrupt_at_end_of_input, daemon=True).start()
    sys.argv = ["stillhouse", *words]
    runpy.run_module("stillhouse", run_name="__main__", alter_sys=True)


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


if __name__ == "__main__":
    _run_child_command(AccessPolicy.from_json(sys.argv[1]), sys.argv[2:])
