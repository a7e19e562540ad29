"""Answers to word problems, and of other families, by checks of mathematics."""

import asyncio
import json
from pathlib import Path
from random import Random
from typing import Any

import pytest

import stillhouse
from agents.checks import Subject
from agents.families.extraction import ExtractionFamily, ExtractionOptions, ValuesDraft
from core.runs.run_dir import RunDir, open_run
from core.sample import Candidate, Message, Sample, SampleStatus, Seed, TokenUsage
from core.storage.sample_files import write_samples
from flows.data.run_storage import RunStorage
from flows.recipes.recipe_catalog import load_recipe_plan
from plugins.math.checks.solution_agreement import agreement_check
from plugins.math.families.reasoning import ReasoningDraft

NOTES = "Ilse Brandt brings 30 bags"


def export(source: str, folder: Path) -> Path:
    """The module of the exported package."""
    interop = pytest.importorskip("plugins.interop.environment_export", reason="needs the plugin `interop`")
    storage = RunStorage(folder / "runs")
    exported = interop.export_environment(source, (), folder / "env", storage, number=6, evaluated=0)
    return exported.folder / exported.name.replace("-", "_")


def score(module: Path, *answers: str) -> list[Any]:
    """The scores of answers, one to each task."""
    scorer, tasks = stillhouse.load_answer_scorer(module), stillhouse.read_answer_tasks(module, "train")

    async def judge() -> list[Any]:
        return [await scorer.score(task, answer) for task, answer in zip(tasks, answers, strict=True)]

    return asyncio.run(judge())


def write_arithmetic_run(folder: Path) -> RunDir:
    """A finished run of three word problems, as a generator writes them."""
    plan = load_recipe_plan("arithmetic", ["teachers.main.model=fake/arithmetic"])
    run = open_run(folder / "runs", plan.recipe, plan.sources, folder=plan.folder, resume=False)
    samples = []
    for number in range(3):
        total = 5 + number
        problem = f"Ann has 5 pens and gets {number} more. How many pens has she?"
        worked = f"5 + {number}"
        fields = {"problem": problem, "solution": f"{worked} = {total}", "expression": worked, "answer": total}
        messages = [Message(role="user", content=problem), Message(role="assistant", content=f"The answer is {total}.")]
        samples.append(
            Sample(
                id=f"{run.name[-8:]}-{number:06d}", seed=Seed(id=f"a-{number:06d}", data={"numbers": [5, number]}),
                state=SampleStatus.kept, candidate=Candidate(messages=messages, fields=fields), revisions=0, turns=[],
                critiques=[], verdicts=[], usage=TokenUsage(),
            )
        )  # fmt: skip
    write_samples(run.shard_file(0), samples)
    write_samples(run.kept_file(0), samples)
    return run


def test_written_requests_of_a_run_are_scored_by_what_their_check_knows(tmp_path: Path) -> None:
    run = write_arithmetic_run(tmp_path)
    module = export(run.name, tmp_path)
    config = json.loads((module / "checks.json").read_text())
    assert config["attempt"] == config["verifiers"][0]["type"]
    assert "Answer: X" in config["hint"]
    answers = ["So she has five.\nAnswer: 5", "5 + 1 = 6. The answer is 6.", "**Answer:** 7"]
    assert [one.passed for one in score(module, *answers)] == [True] * 3
    shuffled = score(module, *answers[1:], answers[0])
    assert [(one.passed, one.check) for one in shuffled] == [(False, config["attempt"])] * 3


@pytest.mark.parametrize(
    ("answer", "agrees"),
    [('{"who":"Ilse Brandt","amount":30}', True), ('{"who":"Ilse Brandt","amount":31}', False), ("", False)],
)
def test_agreement_compares_the_canonical_json(answer: str, agrees: bool) -> None:
    schema = {"type": "object", "properties": {"who": {"type": "string"}, "amount": {"type": "integer"}}}
    data = ExtractionFamily().condition(
        {"text": NOTES}, ExtractionOptions.model_validate({"schema": schema}), Random(0)
    )
    candidate = ExtractionFamily().candidate(
        Seed(id="s-0", data=data), ValuesDraft(values={"amount": 30, "who": "Ilse Brandt"})
    )

    async def ask(role: str, contract: Any, values: Any, **_: Any) -> Any:
        assert "Ilse Brandt brings 30 bags" in values["question"]
        assert candidate.answer not in values["question"]
        return contract(solution="x", answer=answer)

    options = agreement_check.options.model_validate({"votes": 1})
    (finding,) = asyncio.run(agreement_check.findings(Subject(Seed(id="s-0", data=data), candidate, ask), options))
    assert finding.passed == agrees


def test_the_reply_type_keeps_the_title_that_request_digests_contain() -> None:
    assert ReasoningDraft.model_json_schema()["title"] == "Draft"
