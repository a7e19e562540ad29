import asyncio
import json
from datetime import date
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from agents.checks import Subject
from agents.checks.json_schema import InvalidSchema
from agents.checks.text.quantities import WrittenText
from agents.checks.text.value_in_text import occurs_check, validate_evidence
from core.sample import Candidate, Message, Seed
from tests.agents.checks.rows import check_each

GOLDEN = [json.loads(line) for line in (Path(__file__).parent / "golden/occurs.jsonl").read_text().splitlines()]


def verdict(values: Any, text: str, schema: Any, options: dict[str, Any] | None = None) -> tuple[bool, str]:
    async def ask(*_: Any, **__: Any) -> Any:
        raise AssertionError("no teacher is asked")

    said = [Message(role="user", content=text), Message(role="assistant", content="a")]
    candidate = Candidate(messages=said, fields={"values": values, "text": text})
    subject = Subject(Seed(id="s-0", data={"schema": schema}), candidate, ask)
    (finding,) = asyncio.run(occurs_check.findings(subject, occurs_check.options.model_validate(options or {})))
    return finding.passed, finding.evidence


@check_each(GOLDEN)
def test_a_value_occurs_or_not(case: dict[str, Any]) -> None:
    share = 0.9 if len(case["text"]) < 40 else 0.5
    passed, evidence = verdict(case["values"], case["text"], case["schema"], {"share": share})
    assert passed == case["passes"], evidence
    assert len(evidence) < 400


@pytest.mark.parametrize(
    ("part", "problem"),
    [
        ({"x-evidence": "phone"}, "must be a list of words"),
        ({"x-evidence": []}, "must be a list of words"),
        ({"x-evidence": {}}, "must be a list of words"),
        ({"x-evidence": ["-"]}, "must be a list of words"),
        ({"x-evidence": {"a": "b"}}, "must be a list of words"),
        ({"x-evidence": {"a": [1]}}, "must be a list of words"),
        ({"enum": ["a", "b"], "x-evidence": {"c": ["d"]}}, "names 'c', which is not one of a, b"),
        ({"type": "boolean", "x-evidence": {"yes": ["d"]}}, "names 'yes', which is not one of false, true"),
    ],
)
def test_evidence_of_a_wrong_form_is_reported(part: dict[str, Any], problem: str) -> None:
    with pytest.raises(InvalidSchema, match=r"^properties\.v: x-evidence") as raised:
        validate_evidence({"properties": {"v": part}})
    assert problem in str(raised.value)


NUMBERS = [
    ("€1,250.50 for 3 cats and 12kg", ["1250.5", "3", "12"]),
    ("40–50 people or 10-12", ["40", "50", "10", "12"]),
    ("call 555-1234, (555) 010-2234 or 0151 234 5678", []),
    ("-5 °C, minus 4, −3", ["-5", "-4", "-3"]),
    ("8 million, 2.5k, 3M, €5m, 7m", ["8000000", "2500", "3000000", "5000000", "7"]),
    ("½ cup, 1½, 2 1/4, 3/4", ["1/2", "3/2", "9/4", "3/4"]),
    ("twenty-one, two hundred and five, twelve hundred", ["21", "205", "1200"]),
    ("two and a half, half a dozen", ["5/2", "6"]),
    ("twenty-first, two thirds, six o'clock, half past seven", []),
    ("B12, INV-1042, 5e3, 0x1F, 2.3.1, 192.168.0.1", []),
]


@pytest.mark.parametrize(("text", "numbers"), NUMBERS, ids=[text for text, _ in NUMBERS])
def test_numbers_are_read_as_people_write_them(text: str, numbers: list[str]) -> None:
    assert WrittenText(text).numbers == {Fraction(number) for number in numbers}


@pytest.mark.parametrize("month", range(1, 13))
def test_every_day_is_found_in_every_usual_form(month: int) -> None:
    for day in (1, 2, 11, 13, 22, 28):
        when = date(2031, month, day)
        end = {1: "st", 2: "nd", 22: "nd"}.get(day, "th")
        for form in ("%d %B %Y", f"%-d{end} of %B, %Y", "%B %-d, %Y", f"%b. %-d{end} %Y", "%Y-%m-%d", "%d.%m.%Y"):
            written = WrittenText(f"It was on {when.strftime(form)}, they say.")
            assert written.dates == {when}, written.text
            assert written.numbers == {2031}, written.text


@pytest.mark.parametrize(
    "text",
    ["1" * 50_000, "1," * 20_000, "one " * 20_000, "3 May " * 10_000, "a-" * 20_000, "12:" * 20_000, "€" * 50_000],
)
def test_long_texts_of_any_kind_are_read_in_time(text: str) -> None:
    written = WrittenText(text)
    assert written.numbers is not None
    assert written.dates is not None
    assert written.contains_phrase("Ann") is False
    assert written.mentioned_terms({"a": ["b"]}) == set()
