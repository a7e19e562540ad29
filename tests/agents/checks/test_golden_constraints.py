from typing import Any

from agents.families.constrained_instructions import constraints_check
from tests.agents.checks.rows import Case, check_each, findings_of, rows_of, subject_of

GOLDEN = rows_of("constraints")


def turns_of(case: Case) -> list[list[dict[str, Any]]]:
    return case.get("turns") or [[{"kind": case["kind"], "params": case["params"], "text": case["rule"]}]]


@check_each(GOLDEN)
def test_a_rule_is_kept_or_broken(case: Case) -> None:
    answers = case.get("answers") or [case["answer"]]
    found = findings_of(constraints_check, subject_of({"constraints": turns_of(case)}, answers))
    assert all(finding.passed for finding in found) == case["passes"], found
