"""What is lost, paid twice or left broken when the teacher, the process or the disk fails: ours and the peers.

Every system runs at its defaults but for concurrency, does the same work, and meets the same faults at the same endpoint.

    STILLHOUSE_PEERS=FOLDER python -m benchmarks.robustness [--samples 100] [--only kill,malformed]
"""

import argparse
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import NamedTuple

from benchmarks.children import FinishedProcess
from benchmarks.endpoint import Behaviour, LoggedRequest, read_log, serve_in_child
from benchmarks.orchestration import format_caption
from benchmarks.recipes import write_seeds
from benchmarks.systems import BenchmarkedSystem, SystemJob, SystemOutput, build_ours, build_peers, run_system

TAG = r"item-\d+"
"""What a prompt is about, in whatever words: faults of prompts are drawn by it."""
CALL_SECONDS = 0.1
KILLS = (0.2, 0.5, 0.8)
"""SIGKILL when this share of all calls has been answered, each time in the run that resumes the one before."""
FULL_AFTER = 0.25
"""The disk is filled when this share of all calls has been answered."""
DISK_MB = 900
FILL = b"\0" * 2**20
ONE_PROMPT = ("teachers.main.drop=['seed']", "agents.generator.temperature=0")
"""Under these our requests for equal seeds are equal, as the peers' are."""


class Sizes(NamedTuple):
    samples: int = 100
    more_samples: int = 200
    """Where 5 of them are refused for ever, and for the full disk."""
    concurrency: int = 16
    timeout: float = 300.0
    """Seconds after which a run is stopped, whether it hangs or is slow."""


class FaultOutcome(NamedTuple):
    """What came of one system under one fault."""

    left: SystemOutput
    of: int
    codes: list[int]
    """Exit codes: of the run, or of those that were broken off and the one that ended it."""
    log: list[LoggedRequest]
    seconds: float
    note: str = ""

    @property
    def accounted(self) -> int:
        return min(self.left.rows + self.left.told, self.of)

    @property
    def silent(self) -> int:
        """Rows that are lost without a word: neither there, nor listed, nor told by the exit code."""
        return self.of - self.accounted if self.codes[-1] == 0 else 0

    @property
    def repeated(self) -> int:
        """Requests that were answered before and asked again."""
        answered = Counter(entry.prompt for entry in self.log if entry.status == 200)
        return sum(times - 1 for times in answered.values())


class FaultCase(NamedTuple):
    """One system, in a folder of its own."""

    system: BenchmarkedSystem
    folder: Path
    sizes: Sizes

    def job(self, url: str, samples: int, *, different: bool = True, settings: Sequence[str] = ()) -> SystemJob:
        seeds = write_seeds(self.folder / "seeds.jsonl", samples, different=different)
        return SystemJob(url, seeds, samples, self.sizes.concurrency, self.folder / "out", settings)

    @property
    def log(self) -> Path:
        return self.folder / "calls.jsonl"

    def called(self, times: int) -> bool:
        return self.calls() >= times

    def calls(self) -> int:
        return self.log.read_bytes().count(b"\n") if self.log.exists() else 0


def run_once(case: FaultCase, behaviour: Behaviour, samples: int, *, different: bool = True) -> FaultOutcome:
    """One run under `behaviour`."""
    settings = () if different else ONE_PROMPT
    with serve_in_child(behaviour, case.log) as url:
        job = case.job(url, samples, different=different, settings=settings)
        ended, left = run_system(case.system, job, timeout=case.sizes.timeout)
    return FaultOutcome(left, samples, [ended.code], read_log(case.log), ended.seconds, _describe_timeout(ended, case))


def _describe_timeout(ended: FinishedProcess, case: FaultCase) -> str:
    return f"stopped after {case.sizes.timeout:.0f} s" if ended.seconds > case.sizes.timeout else ""


def run_killed(case: FaultCase) -> FaultOutcome:
    """SIGKILL at several moments, resumed each time, and once more to its end."""
    samples, results = case.sizes.samples, []
    with serve_in_child(Behaviour(latency_seconds=CALL_SECONDS), case.log) as url:
        job = case.job(url, samples)
        for share in KILLS:
            at = int(share * samples * 2)
            results.append(run_system(case.system, job, timeout=case.sizes.timeout, kill_when=partial(case.called, at)))
        results.append(run_system(case.system, job, timeout=case.sizes.timeout))
    ended = [each for each, _ in results]
    codes, seconds = [each.code for each in ended], sum(each.seconds for each in ended)
    return FaultOutcome(results[-1][1], samples, codes, read_log(case.log), seconds, _describe_timeout(ended[-1], case))


def run_malformed(case: FaultCase) -> FaultOutcome:
    samples = case.sizes.samples
    return run_once(case, build_exact_behaviour(round(0.3 * samples), samples, "malformed"), samples)


def run_healing(case: FaultCase) -> FaultOutcome:
    samples = case.sizes.samples
    told = build_exact_behaviour(round(0.3 * samples), samples, "rate_limited")
    return run_once(case, replace(told, heals_after=3), samples)


def run_refused_few(case: FaultCase) -> FaultOutcome:
    """Five samples are refused for ever."""
    samples = case.sizes.more_samples
    return run_once(case, build_exact_behaviour(5, samples, "rate_limited"), samples)


def build_exact_behaviour(wanted: int, samples: int, fault: str) -> Behaviour:
    """A behaviour whose seed makes just `wanted` of the seeds meet `fault`."""
    for seed in count():
        told = Behaviour(seed=seed, prompts={fault: wanted / samples}, tag=TAG)
        if sum(bool(told.fault_of_prompt(f"item-{i}")) for i in range(samples)) == wanted:
            return told
    raise AssertionError("count never ends")


def run_refused_all(case: FaultCase) -> FaultOutcome:
    return run_once(case, Behaviour(requests={"rate_limited": 1.0}), case.sizes.samples)


def run_identical(case: FaultCase) -> FaultOutcome:
    return run_once(case, Behaviour(), case.sizes.samples, different=False)


def run_full_disk(case: FaultCase) -> FaultOutcome | str:
    """The disk fills up in the middle of the run; then there is room again, and the run is resumed."""
    samples = case.sizes.more_samples
    out = case.folder / "out"
    with mount_disk(out) as there, serve_in_child(Behaviour(latency_seconds=CALL_SECONDS), case.log) as url:
        if not there:
            return "not measured: mounting a tmpfs is not permitted"
        job, ballast, at = case.job(url, samples), out / "ballast", int(FULL_AFTER * samples * 2)
        when_full: list[int] = []

        def fill() -> bool:
            if not when_full and case.calls() >= at:
                with suppress(OSError), ballast.open("wb", buffering=0) as file:
                    while file.write(FILL) == len(FILL):
                        pass
                when_full.append(case.calls())
            return False

        first, _ = run_system(case.system, job, timeout=case.sizes.timeout, kill_when=fill)
        more = case.calls() - when_full[0] if when_full else 0
        ballast.unlink(missing_ok=True)
        second, left = run_system(case.system, job, timeout=case.sizes.timeout)
        note = f"{more} calls after it was full" if when_full else "ended before the disk was full"
    seconds = first.seconds + second.seconds
    return FaultOutcome(left, samples, [first.code, second.code], read_log(case.log), seconds, note)


@contextmanager
def mount_disk(folder: Path) -> Iterator[bool]:
    """A small disk at `folder`, or False where that is not permitted."""
    folder.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "tmpfs", str(folder)]
    there = subprocess.run(command, capture_output=True, check=False).returncode == 0
    try:
        yield there
    finally:
        if there:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)


FAULTS: dict[str, tuple[str, Callable[[FaultCase], FaultOutcome | str]]] = {
    "kill": ("killed (SIGKILL) 3 times and resumed", run_killed),
    "malformed": ("30 % of prompts: always half a JSON text", run_malformed),
    "healing": ("30 % of prompts: 429 three times, then answered", run_healing),
    "few": ("5 prompts of {more}: always 429", run_refused_few),
    "all": ("every request: 429", run_refused_all),
    "disk": ("the disk is full after a quarter, then has room again", run_full_disk),
    "identical": ("the same prompt {samples} times", run_identical),
}
HEAD = """| fault | system | accounted for | right | broken | lost silently | calls | repeated | exit | s | |
|---|---|---:|---:|---:|---:|---:|---:|---|---:|---|"""
CAPTION = """{{machine}}; {{versions}}. Command: `{{peers}}=FOLDER python -m benchmarks.robustness`.

{samples} samples ({more} with 5 refused and for the full disk), two calls each, {concurrency} at once; one run of each, so
they show what can happen and not how often. *Accounted for*: in the output, an empty row included, or named in a list of
failures. *Right*: passes the check. *Broken*: has an answer that the check by code finds wrong, such as half a text; each
pipeline runs that check itself and marks the row. *Lost silently*:
not accounted for, and exit code 0. *Calls*: requests that the endpoint saw. *Repeated*: requests that it had answered
before. A negative exit code is the signal that ended the process."""


def table(sizes: Sizes = Sizes(), only: Iterable[str] = FAULTS) -> str:  # noqa: B008  a NamedTuple is a value
    """All systems under all faults, as Markdown."""
    told = {"samples": sizes.samples, "more": sizes.more_samples, "concurrency": sizes.concurrency}
    lines = [HEAD]
    for name in only:
        title, measure = FAULTS[name]
        for system in (build_ours(), *build_peers()):
            lines.append(f"| {title.format(**told)} | {system.name} | {_format_outcome(system, measure, sizes)} |")
            sys.stderr.write(f"{lines[-1]}\n")
    return "\n\n".join([format_caption(CAPTION.format(**told)), "\n".join(lines)])


def _format_outcome(system: BenchmarkedSystem, measure: Callable[[FaultCase], FaultOutcome | str], sizes: Sizes) -> str:
    if system.missing:
        return f"{system.missing} | | | | | | | |"
    with tempfile.TemporaryDirectory() as folder:
        found = measure(FaultCase(system, Path(folder), sizes))
    if isinstance(found, str):
        return f"{found} | | | | | | | |"
    left, codes = found.left, ", ".join(map(str, found.codes))
    return (
        f"{found.accounted} of {found.of} | {left.right} | {left.wrong} | {found.silent} | {len(found.log)} | "
        f"{found.repeated} | {codes} | {found.seconds:.0f} | {found.note}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", type=lambda text: text.split(","), default=list(FAULTS), help=", ".join(FAULTS))
    for name, value in Sizes()._asdict().items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)
    told = vars(parser.parse_args())
    only = told.pop("only")
    sys.stdout.write(f"{table(Sizes(**told), only)}\n")


if __name__ == "__main__":
    main()
