import pytest

from core.runs.records import CollapseRecord, CollapseVerdict


def test_an_inconclusive_verdict_is_read() -> None:
    fields = {
        "verdict": "inconclusive",
        "reference": "real.jsonl",
        "documents": 23,
        "tokens": 900,
        "metrics": [],
        "note": "",
    }
    record = CollapseRecord.model_validate(fields)
    assert record.verdict is CollapseVerdict.inconclusive
    assert record.model_dump(mode="json")["verdict"] == "inconclusive"


def test_an_unknown_verdict_is_refused() -> None:
    with pytest.raises(ValueError, match="maybe"):
        CollapseVerdict("maybe")
