"""The forecast of `stillhouse forecast`, compared with students that were trained: from 30, 60, 120 and 240 rows to 480.
`python -m benchmarks.forecast --simulated` compares it with simulated students.

Settings are drawn tasks of reasoning-gym: their answers are known, so an endpoint of this module replies with them and no model
is a teacher. `STILLHOUSE_FORECAST` names a folder for the runs and their answers, so that a stopped benchmark resumes:

    STILLHOUSE_FORECAST=FOLDER nice -n 5 python -m benchmarks.forecast --settings spelling,names
"""

import argparse
import json
import math
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from statistics import NormalDist, fmean, median
from typing import Any, NamedTuple

import numpy as np

from benchmarks.ablation import call
from benchmarks.machine import describe_measurement
from core.runs.records import RunState
from core.runs.run_dir import RunDir
from flows.terminal.console import CommandSession
from plugins.ablation.answers import Answers
from plugins.ablation.learning_curve import LearningCurve, MeasuredSize
from plugins.ablation.task import AblationOptions, prepare_ablation

SEED, SAMPLES = 7, 560
KNOWN, FUTURE = (30, 60, 120, 240), 480
REQUESTS = 200
PORT = 18_431
"""Of the endpoint, always the same: a run resumes only with the endpoint it began with."""
SIMULATIONS, SIMULATED_REQUESTS, MOST_SPREAD = 400, 400, 0.03
SHARED_DIFFICULTY = 0.5
"""The share of an answer's variance that is the request's difficulty, and so the same for all students: our assumption."""

Curve = Callable[[int], float]
"""The pass rate of students by their number of rows."""


def draw_power_law(rng: np.random.Generator) -> Curve:
    first = rng.uniform(0.02, 0.4)
    limit, power = rng.uniform(first, 1), rng.uniform(0.2, 1)
    return lambda rows: float(limit - (limit - first) * (rows / KNOWN[0]) ** -power)


def draw_straight_line(rng: np.random.Generator) -> Curve:
    first, step = rng.uniform(0.02, 0.4), rng.uniform(0, 0.1)
    return lambda rows: float(min(0.99, first + step * np.log2(rows / KNOWN[0])))


def draw_flat(rng: np.random.Generator) -> Curve:
    rate = rng.uniform(0.02, 0.9)
    return lambda _rows: float(rate)


def draw_late_rise(rng: np.random.Generator) -> Curve:
    """A logistic curve over the logarithm of rows, half of which is reached at 60 to 1,000 rows."""
    low, high = rng.uniform(0.02, 0.2), rng.uniform(0.4, 0.95)
    middle, width = math.exp(rng.uniform(math.log(60), math.log(1_000))), rng.uniform(0.3, 0.8)
    return lambda rows: float(low + (high - low) / (1 + (middle / rows) ** (1 / width)))


class SimulatedCase(NamedTuple):
    draw: Callable[[np.random.Generator], Curve]
    rows: int = FUTURE


SIMULATED = {
    "power law": SimulatedCase(draw_power_law),
    "straight in log rows": SimulatedCase(draw_straight_line),
    "flat": SimulatedCase(draw_flat),
    "late rise": SimulatedCase(draw_late_rise),
    "late rise, 2,000 rows": SimulatedCase(draw_late_rise, 2_000),
}


class SimulatedForecasts(NamedTuple):
    """Of curves of one kind: shares of intervals that contain the true rate, and median errors."""

    covered: float
    half_covered: float
    """Of intervals with half the width."""
    error: float
    error_of_last: float
    error_of_line: float


def simulate(case: SimulatedCase) -> SimulatedForecasts:
    """Students of `KNOWN` rows, two of each, and the one to predict, all asked the same requests: each has one difficulty. The
    true rate is the student's expected one on these requests.
    """
    rng, normal, found = np.random.default_rng(5), NormalDist(), []
    own = math.sqrt(1 - SHARED_DIFFICULTY)
    for _ in range(SIMULATIONS):
        curve, spread = case.draw(rng), rng.uniform(0, MOST_SPREAD)
        difficulties = math.sqrt(SHARED_DIFFICULTY) * rng.standard_normal(SIMULATED_REQUESTS)

        def train(rows: int, curve: Curve = curve, spread: float = spread) -> float:
            """The ability of a student: it passes requests of lower difficulty, but for luck."""
            return normal.inv_cdf(float(np.clip(curve(rows) + spread * rng.standard_normal(), 0.001, 0.999)))

        def ask(rows: int, difficulties: Any = difficulties, train: Callable[[int], float] = train) -> float:
            luck = own * rng.standard_normal(SIMULATED_REQUESTS)
            return float(np.mean(difficulties + luck < train(rows)))

        points = [MeasuredSize(rows, (ask(rows), ask(rows))) for rows in KNOWN]
        predicted = LearningCurve(points, SIMULATED_REQUESTS).predict(case.rows)
        ability = train(case.rows)
        truth = fmean(normal.cdf((ability - one) / own) for one in difficulties)
        off = truth - predicted.value
        width = predicted.high - predicted.value if off > 0 else predicted.value - predicted.low
        means = [fmean(point.values) for point in points]
        others = means[-1] - truth, extend_line(means, case.rows) - truth
        found.append((abs(off) <= width, 2 * abs(off) <= width, *map(abs, (off, *others))))
    covered, half_covered, *errors = zip(*found, strict=True)
    return SimulatedForecasts(fmean(covered), fmean(half_covered), *map(median, errors))


def extend_line(means: Sequence[float], rows: int) -> float:
    """The rate at `rows` on the least-squares line over the logarithm of `KNOWN`, within 0 and 1."""
    slope, offset = np.polyfit(np.log(KNOWN), means, 1)
    return float(min(1.0, max(0.0, slope * math.log(rows) + offset)))


def simulated_table() -> str:
    heads = ["curve", "90 % intervals cover", "half as wide", "median error, points", "last value", "line in log rows"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for name, case in SIMULATED.items():
        found = simulate(case)
        shares = " | ".join(f"{share:.0%}" for share in found[:2])
        lines.append(f"| {name} | {shares} | {' | '.join(f'{100 * error:.1f}' for error in found[2:])} |")
    return "\n".join(lines)


class Setting(NamedTuple):
    task: str
    settings: dict[str, Any]


SETTINGS = {
    "spelling": Setting("spell_backward", {"min_word_len": 3, "max_word_len": 5}),
    "names": Setting("needle_haystack", {"min_num_statements": 4, "max_num_statements": 6}),
    "sums": Setting("chain_sum", {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 2}),
    "lists": Setting("number_filtering", {"min_numbers": 3, "max_numbers": 5, "max_decimals": 1}),
    "orders": Setting("word_sequence_reversal", {"min_words": 3, "max_words": 5}),
}
STUDENT = "{start='layers',layers=16,epochs=2,max_tokens=192}"


def make_run(setting: Setting, folder: Path) -> Path:
    """The run of a setting, made or resumed if it is not done."""
    found = [RunDir(manifest.parent) for manifest in folder.glob("reasoning-*/manifest.json")]
    if not any(run.read_manifest().state is RunState.done for run in found):
        with serve_known_answers(setting) as address:
            settings = {
                "samples": SAMPLES, "seed": SEED, "filters": "[]",
                "task": f"{{questions=1400,tasks={{{setting.task}=1}},"
                f"settings={{{setting.task}={format_toml(setting.settings)}}}}}",
                "agents.generator.examples": 0, "student": STUDENT,
                "teachers.main": f"{{model='openai/known',base_url='{address}',max_concurrent=8}}",
            }  # fmt: skip
            words = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
            call("generate", "reasoning", "--resume", "--runs-dir", str(folder), *words)
    (manifest,) = folder.glob("reasoning-*/manifest.json")
    return manifest.parent


def format_toml(values: dict[str, Any]) -> str:
    return "{" + ",".join(f"{name}={json.dumps(value)}" for name, value in values.items()) + "}"


@contextmanager
def serve_known_answers(setting: Setting) -> Iterator[str]:
    """An OpenAI chat endpoint that knows the answers of a setting's questions."""
    from plugins.math.families.reasoning import ReasoningFamily, ReasoningOptions, parse_procedural_question

    options = ReasoningOptions(tasks={setting.task: 1}, settings={setting.task: setting.settings}, questions=1400)
    rows = ReasoningFamily().rows(options, SEED)
    answers = {row["question"]: str(parse_procedural_question(row).entry["answer"]) for row in rows}

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            self.send({"object": "list", "data": [{"id": "known", "object": "model"}]})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked = body["messages"][-1]["content"]
            answer = answers.get(asked) or answers.get(asked.strip()) or "unknown"
            content = json.dumps({"reasoning": "The question leads to it.", "answer": answer})
            message = {"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": "stop"}
            usage = {"prompt_tokens": len(asked) // 4, "completion_tokens": len(content) // 4, "total_tokens": 0}
            self.send(
                {
                    "id": "1",
                    "object": "chat.completion",
                    "created": 0,
                    "model": "known",
                    "choices": [message],
                    "usage": usage,
                }
            )

        def send(self, body: dict[str, Any]) -> None:
            data = json.dumps(body).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    server = ThreadingHTTPServer(("127.0.0.1", PORT), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{PORT}/v1"
    finally:
        server.shutdown()
        server.server_close()


def measure_setting(name: str, folder: Path) -> str:
    """Train and ask what is not measured, and compare: a row of the table."""
    run = RunDir(make_run(SETTINGS[name], folder))
    for sizes, seeds in ((KNOWN, 2), ((FUTURE,), 1)):
        rows = ",".join(map(str, sizes))
        asked = ["--rows", rows, "--seeds", str(seeds), "-n", str(REQUESTS), "--panel", "0"]
        call("ablate", run.name, "--runs-dir", str(folder), "--arms", "d", *asked)
    options = AblationOptions(arms="d", sizes=",".join(map(str, (*KNOWN, FUTURE))), seeds=2, requests=REQUESTS, panel=0)
    task = prepare_ablation(run, options, None, folder, CommandSession())
    answers, by_rows = Answers(task, CommandSession()), dict[int, list[float]]()
    for training in task.list_trainings():
        if found := answers.find(task.digest_training(training)):
            by_rows.setdefault(len(training.drawn.rows), []).append(fmean(found.passed))
    truth = by_rows.pop(FUTURE)[0]
    curve = LearningCurve([MeasuredSize(rows, tuple(rates)) for rows, rates in by_rows.items()], REQUESTS)
    predicted = curve.predict(FUTURE, requests=REQUESTS)
    means = [fmean(by_rows[rows]) for rows in KNOWN]
    cells = [
        name, *(f"{mean:.1%}" for mean in means), f"{truth:.1%}",
        f"{predicted.value:.1%} ({predicted.low:.1%} to {predicted.high:.1%})",
        *(f"{100 * abs(guess - truth):.1f}" for guess in (predicted.value, means[-1], extend_line(means, FUTURE))),
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--settings", default=",".join(SETTINGS))
    parser.add_argument("--simulated", action="store_true")
    asked = parser.parse_args()
    if asked.simulated:
        sys.stdout.write(f"{simulated_table()}\n")
        return
    heads = ["setting", *map(str, KNOWN), str(FUTURE), "predicted", "its error", "of the last value", "of a line"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for name in asked.settings.split(","):
        folder = Path(os.environ["STILLHOUSE_FORECAST"]) / name
        folder.mkdir(parents=True, exist_ok=True)
        lines.append(measure_setting(name, folder))
    sys.stdout.write("\n".join([describe_measurement(), "", *lines]) + "\n")


if __name__ == "__main__":
    main()
