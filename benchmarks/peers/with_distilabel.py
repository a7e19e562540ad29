"""distilabel: two tasks with structured output (instructor) and a step, at its defaults but for the batch size.

A task sends one batch at a time and waits for the last answer of it, so the batch size is its concurrency.
"""

import json
import os
from importlib.metadata import version
from typing import Any

from distilabel.models import OpenAILLM
from distilabel.pipeline import Pipeline
from distilabel.steps import LoadDataFromDicts, StepInput, step
from distilabel.steps.tasks import Task as LLMTask
from distilabel.typing import StepOutput

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


class DraftTask(LLMTask):
    @property
    def inputs(self) -> list[str]:
        return ["topic"]

    @property
    def outputs(self) -> list[str]:
        return ["answer"]

    def format_input(self, input: dict[str, Any]) -> list[dict[str, str]]:
        asked = DRAFT_PROMPT.format(**input)
        return [{"role": "system", "content": WRITER}, {"role": "user", "content": asked}]

    def format_output(self, output: str | None, input: dict[str, Any] | None = None) -> dict[str, Any]:
        return {"answer": json.loads(output)["answer"] if output else None}


class ReviewTask(LLMTask):
    @property
    def inputs(self) -> list[str]:
        return ["topic", "answer"]

    @property
    def outputs(self) -> list[str]:
        return ["review"]

    def format_input(self, input: dict[str, Any]) -> list[dict[str, str]]:
        asked = REVIEW_PROMPT.format(**input)
        return [{"role": "system", "content": CRITIC}, {"role": "user", "content": asked}]

    def format_output(self, output: str | None, input: dict[str, Any] | None = None) -> dict[str, Any]:
        return {"review": output}


@step(inputs=["topic", "answer"], outputs=["passed"])
def check_rows(inputs: StepInput) -> StepOutput:
    for row in inputs:
        row["passed"] = is_right(row["topic"], row["answer"])
    yield inputs


def run_pipeline(task: PeerTask) -> PeerResult:
    size = task.concurrency
    rows = [{"topic": topic} for topic in task.topics]

    def teacher(contract: type) -> OpenAILLM:
        return OpenAILLM(model="model", base_url=task.url, api_key="none", structured_output={"schema": contract})

    with Pipeline(name="work", cache_dir=task.out) as made:
        load = LoadDataFromDicts(data=rows, batch_size=size)
        draft = DraftTask(llm=teacher(Draft), input_batch_size=size)
        review = ReviewTask(llm=teacher(Review), input_batch_size=size)
        load >> draft >> review >> check_rows(input_batch_size=size)
    found = made.run(use_cache=True)["default"]["train"]
    return PeerResult([(row["topic"], row["answer"] if row["review"] else None) for row in found])


if __name__ == "__main__":
    os.environ["HF_HUB_OFFLINE"] = "1"
    run_driver(run_pipeline, f"distilabel {version('distilabel')}")
