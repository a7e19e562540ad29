"""No reply of a teacher ends a run: a check that breaks costs its sample, and what leaves the sandbox is valid text."""

import json
from pathlib import Path
from typing import Any

import pytest

from agents.reply_schema import InvalidReply, ReplySchema, parse_reply
from core.errors import ChecksBroke
from core.sample import RejectionReason, Sample, SampleStatus
from flows.data.curated_run import read_finished_samples
from flows.recipes.recipe_catalog import load_recipe_plan
from teachers.base import TeacherQuestion
from tests.support.produce_run import produce_run
from tests.support.scripted_teacher import ScriptedTeacher, produce_scripted


@pytest.mark.attack(
    "90,000 brackets as a regular expression",
    "the sample is dropped",
)
def test_a_pattern_of_90000_brackets_costs_its_sample_alone(tmp_path: Path) -> None:
    schema = {"type": "object", "properties": {"code": {"type": "string", "format": "regex"}}, "required": ["code"]}
    (tmp_path / "seeds.jsonl").write_text(json.dumps({"topic": "locks", "schema": schema}) + "\n")
    reply = {"text": "The lock of the shed opens by this pattern, and by no other.", "values": {"code": "(" * 90_000}}
    checks = "verifiers=[{type='schema'}]"
    settings = ["samples=1", "task.decoys=0.0", "task.missing=0.0", "agents.critic=false", checks]
    plan = load_recipe_plan("extraction", [*settings, f"seeds.path={tmp_path / 'seeds.jsonl'}"])
    [sample] = produce_scripted(plan, ScriptedTeacher(lambda _: json.dumps(reply)), tmp_path)
    assert (sample.state, sample.reason) == (SampleStatus.dropped, RejectionReason.verifier)
    assert sample.verdicts[-1].evidence.startswith("values must follow the schema: code: '((((")


FRAGILE = """
from agents.checks import Options, Subject, check

def explode(subject):
    if "{when}" in subject.candidate.answer:
        {what}

@check("fragile")
def fragile(subject: Subject, options: Options) -> str | None:
    \"\"\"Must not break.\"\"\"
    explode(subject)
    return None

@check("echo")
def echo(subject: Subject, options: Options) -> str | None:
    \"\"\"Says what it read.\"\"\"
    return chr(0xD800) + subject.candidate.answer
"""


def own(tmp_path: Path, what: str = "pass", when: str = "bad", *names: str) -> list[str]:
    (tmp_path / "checks.py").write_text(FRAGILE.replace("{when}", when).replace("{what}", what))
    checks = ", ".join(f"{{type='{name}', path='{tmp_path / 'checks.py'}'}}" for name in names or ("fragile",))
    return ["task.kinds={no_digits=1}", "task.constraints=[1]", f"verifiers=[{checks}]"]


def alternating(question: TeacherQuestion) -> str:
    """One draft of a bad kind, all others good."""
    if question.contract == "Review":
        return json.dumps({"scores": {"sense": 5, "style": 5}, "faults": [], "advice": "Keep it."})
    return json.dumps({"answer": "A bad day." if "bees" in question.messages[-1].content else "A good day."})


@pytest.mark.attack(
    "replies that make a check raise anything, SystemExit included, once or always",
    "the sample fails, with check and line as evidence, in every topology with a verifier; the run ends only "
    "beyond `max_failed`, naming the check",
)
@pytest.mark.parametrize(
    "what",
    ["raise KeyError('colour')", "raise RecursionError", "raise MemoryError", "raise SystemExit(3)", "import nowhere",
     "raise OSError(2, 'no file')", "raise Exception(chr(0xD800))", "assert False"],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["centralized", "independent"])
def test_a_check_that_breaks_costs_its_sample_and_names_its_line(what: str, kind: str, tmp_path: Path) -> None:
    (tmp_path / "seeds.jsonl").write_text(
        '{"topic": "bees", "words": ["hive", "bee"]}\n{"topic": "tea", "words": ["cup", "leaf"]}\n'
    )
    settings = [*own(tmp_path, what), f"seeds.path={tmp_path / 'seeds.jsonl'}", f"topology.kind={kind}", "samples=4"]
    samples = produce_scripted(load_recipe_plan("smoke", settings), ScriptedTeacher(alternating), tmp_path)
    assert [one.state for one in samples].count(SampleStatus.failed) == 2
    for one in samples:
        assert (one.state == SampleStatus.failed) == (one.seed.data["topic"] == "bees")
        if one.state == SampleStatus.failed:
            assert one.reason == RejectionReason.contract
            assert one.detail.startswith("check 'fragile' broke (checks.py, line 6): ")
            [verdict] = one.verdicts
            assert (verdict.check, verdict.passed) == ("fragile", False)
            assert verdict.evidence.startswith("check broke (checks.py, line 6): ")
            assert Sample.model_validate_json(one.model_dump_json()) == one


def test_evidence_with_invalid_unicode_is_repaired_before_it_is_stored(tmp_path: Path) -> None:
    settings = [*own(tmp_path, "pass", "bad", "echo"), "samples=1", "topology.max_revisions=1", "agents.critic=false"]
    [sample] = produce_scripted(load_recipe_plan("smoke", settings), ScriptedTeacher(alternating), tmp_path)
    assert (sample.state, sample.revisions, sample.detail) == (SampleStatus.dropped, 1, "echo")
    assert sample.verdicts[0].evidence == "?A good day."


def test_a_run_ends_by_broken_checks_only_past_max_failed(tmp_path: Path) -> None:
    settings = ["samples=40", "agents.critic=false", "teachers.main.model=fake/writer"]
    rare = [*settings, *own(tmp_path, "raise ValueError('once')", "oo"), "max_failed=1.0"]
    run, missing = produce_run(str(tmp_path / "runs"), "smoke", rare)
    samples = list(read_finished_samples(run))
    broken = [one for one in samples if one.state == SampleStatus.failed]
    assert len(samples) == 40
    assert broken
    assert {(one.reason, "oo" in one.answer) for one in broken} == {(RejectionReason.contract, True)}
    assert f"{len(broken)} samples could not be judged: a check broke" in missing.lost
    often = [*settings, *own(tmp_path, "raise ValueError('always')", ""), "max_failed=0.2", "seed=8"]
    message = (
        r"more than max_failed = 0\.2 allows; most often contract:check 'fragile' broke \(checks.py, line 6\): "
        r"ValueError: \w+ \(\d+\); correct the check, then preview"
    )
    with pytest.raises(ChecksBroke, match=message):
        produce_run(str(tmp_path / "runs"), "smoke", often)


class Anything(ReplySchema):
    values: dict[str, Any]


@pytest.mark.attack(
    "reply JSON with surrogate halves, 5,000-digit integers, 10,000 levels",
    "invalid; requested again",
)
@pytest.mark.parametrize("text", ['{"values": {"a": "\\ud800"}}', '{"values": {"a": %s}}' % ("9" * 5000), "[" * 10_000])
def test_what_python_reads_and_cannot_write_is_no_reply(text: str) -> None:
    with pytest.raises(InvalidReply, match="invalid json"):
        parse_reply(Anything, text)
