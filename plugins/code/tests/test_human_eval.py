"""Four problems of HumanEval through the check `code`: `human_eval_rows.jsonl` has them with their source and license (MIT)."""

import asyncio
from pathlib import Path

import pytest

from agents.sandbox.python_sandbox import sandbox_problem
from benchmarks.external_truth import human_eval

pytestmark = pytest.mark.skipif(sandbox_problem() is not None, reason=str(sandbox_problem()))
ROWS = Path(__file__).with_name("human_eval_rows.jsonl")


def test_canonical_solutions_pass_and_versions_that_their_tests_reject_do_not(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert human_eval.main([str(ROWS), "--mutants", "3"]) == 0
    printed = capsys.readouterr().out
    assert "| canonical solutions that pass | 2 |" in printed, printed
    assert "miss mutants, with an input that shows it | 2 |" in printed
    assert "`distance <= threshold`" in printed, "HumanEval/0 has no pair at the threshold"
    assert "check_dict_case({'p': 'pineapple'})" in printed, "HumanEval/95 has no dictionary of one small key"
    assert "| refused falsely | 0 |" in printed
    assert "| of these, passed | 0 |" in printed
    wrong = next(line for line in printed.splitlines() if line.startswith("| wrong versions"))
    assert int(wrong.split("|")[2]) >= 8


def test_a_problem_keeps_the_values_that_its_test_states() -> None:
    rows = {row["task_id"]: row for row in human_eval.read_rows(ROWS)}
    stated = asyncio.run(human_eval.convert_problem(rows["HumanEval/0"]))
    assert stated.own_values == len(stated.tests.splitlines()) == 7
    assert "assert has_close_elements([1.0, 2.0, 3.9, 4.0, 5.0, 2.2], 0.3) == True" in stated.tests
    computed = asyncio.run(human_eval.convert_problem(rows["HumanEval/32"]))
    assert computed.own_values == 0
    assert len(computed.tests.splitlines()) == 40


def test_a_wrong_version_that_passes_is_reported() -> None:
    row = human_eval.read_rows(ROWS)[0]
    problem = asyncio.run(human_eval.convert_problem(row))
    # Tests that no version fails, and a version that HumanEval's own test rejects
    lax = problem._replace(tests=problem.tests.splitlines()[0])
    (version,) = [v for v in human_eval.draw_wrong_versions(problem, 100) if "distance >= threshold" in v]
    assert asyncio.run(human_eval.judge_by_their_test(problem, [version, problem.solution])) == [False, True]
    outcome = human_eval.ProblemOutcome(lax, (), 0, [version])
    assert "wrong pass, HumanEval/0" in human_eval.write_table([outcome])
