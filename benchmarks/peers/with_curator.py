"""Curator: two `LLM` passes over the dataset and a map, at its defaults but for concurrency and rates.

It starts the critique when the last draft is there. Its rate limits are set out of the way.
"""

import os
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ["TELEMETRY_ENABLED"] = "false"
os.environ.setdefault("OPENAI_API_KEY", "none")

import litellm.litellm_core_utils.default_encoding  # noqa: F401  points tiktoken at a file that is installed
from bespokelabs import curator
from datasets import Dataset

from benchmarks.peers.work import (
    CRITIC,
    DRAFT_PROMPT,
    REVIEW_PROMPT,
    WRITER,
    Draft,
    PeerResult,
    PeerTask,
    Review,
    is_right,
    run_driver,
)

UNLIMITED = 10**9


class Writer(curator.LLM):
    def prompt(self, row: dict[str, Any]) -> str:
        return DRAFT_PROMPT.format(topic=row["topic"])

    def parse(self, row: dict[str, Any], response: Draft) -> dict[str, Any]:
        return {"topic": row["topic"], "answer": response.answer}


class Critic(curator.LLM):
    def prompt(self, row: dict[str, Any]) -> str:
        return REVIEW_PROMPT.format(topic=row["topic"], answer=row["answer"])

    def parse(self, row: dict[str, Any], response: Review) -> dict[str, Any]:
        return {**row, "review": response.model_dump_json()}


def run_pipeline(task: PeerTask) -> PeerResult:
    told = {
        "backend": "openai",
        "generation_params": {"max_tokens": 160},
        "backend_params": {
            "base_url": task.url,
            "max_concurrent_requests": task.concurrency,
            "max_requests_per_minute": UNLIMITED,
            "max_tokens_per_minute": UNLIMITED,
        },
    }
    write = Writer(model_name="model", response_format=Draft, system_prompt=WRITER, **told)
    judge = Critic(model_name="model", response_format=Review, system_prompt=CRITIC, **told)
    drafts = write(Dataset.from_dict({"topic": task.topics}), working_dir=str(task.out))
    judged = judge(drafts.dataset, working_dir=str(task.out))
    rows = judged.dataset.map(lambda row: {"passed": is_right(row["topic"], row["answer"])})
    lost = sum(len(path.read_text().splitlines()) for path in Path(task.out).rglob("failed_requests.jsonl"))
    return PeerResult([(row["topic"], row["answer"]) for row in rows], lost)


if __name__ == "__main__":
    run_driver(run_pipeline, f"bespokelabs-curator {version('bespokelabs-curator')}")
