"""The forecast of `stillhouse forecast`, compared with students that were trained: from 30, 60, 120 and 240 rows to 480.

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
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np

from benchmarks.ablation import call
from benchmarks.machine import describe_measurement
from core.runs.run_dir import RunDir
from flows.terminal.console import CommandSession
from plugins.ablation.answers import Answers
from plugins.ablation.learning_curve import LearningCurve, MeasuredSize
from plugins.ablation.task import AblationOptions, prepare_ablation

SEED, SAMPLES = 7, 560
KNOWN, FUTURE = (30, 60, 120, 240), 480
REQUESTS = 200


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
    """The run of a setting, made if it is not there."""
    if not list(folder.glob("reasoning-*/manifest.json")):
        with serve_known_answers(setting) as address:
            settings = {
                "samples": SAMPLES, "seed": SEED, "filters": "[]",
                "task": f"{{questions=1400,tasks={{{setting.task}=1}},"
                f"settings={{{setting.task}={format_toml(setting.settings)}}}}}",
                "agents.generator.examples": 0, "student": STUDENT,
                "teachers.main": f"{{model='openai/known',base_url='{address}',max_concurrent=8}}",
            }  # fmt: skip
            words = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
            call("generate", "reasoning", "--runs-dir", str(folder), *words)
    (manifest,) = folder.glob("reasoning-*/manifest.json")
    return manifest.parent


def format_toml(values: dict[str, Any]) -> str:
    return "{" + ",".join(f"{name}={json.dumps(value)}" for name, value in values.items()) + "}"


@contextmanager
def serve_known_answers(setting: Setting) -> Iterator[str]:
    """An OpenAI chat endpoint that knows the answers of a setting's questions."""
    from plugins.math.families.reasoning import ReasoningFamily, ReasoningOptions, _parse_procedural_question

    options = ReasoningOptions(tasks={setting.task: 1}, settings={setting.task: setting.settings}, questions=1400)
    rows = ReasoningFamily().rows(options, SEED)
    answers = {row["question"]: str(_parse_procedural_question(row).entry["answer"]) for row in rows}

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

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    finally:
        server.shutdown()


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
    slope, offset = np.polyfit(np.log(KNOWN), means, 1)
    line = min(1.0, max(0.0, slope * math.log(FUTURE) + offset))
    cells = [
        name, *(f"{mean:.1%}" for mean in means), f"{truth:.1%}",
        f"{predicted.value:.1%} ({predicted.low:.1%} to {predicted.high:.1%})",
        *(f"{100 * abs(guess - truth):.1f}" for guess in (predicted.value, means[-1], line)),
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--settings", default=",".join(SETTINGS))
    heads = ["setting", *map(str, KNOWN), str(FUTURE), "predicted", "its error", "of the last value", "of a line"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for name in parser.parse_args().settings.split(","):
        folder = Path(os.environ["STILLHOUSE_FORECAST"]) / name
        folder.mkdir(parents=True, exist_ok=True)
        lines.append(measure_setting(name, folder))
    sys.stdout.write("\n".join([describe_measurement(), "", *lines]) + "\n")


if __name__ == "__main__":
    main()
