import pytest

from core.runs.records import CollapseRecord, CollapseVerdict


@pytest.mark.parametrize("word", ["inconclusive", "under-powered"])
def test_an_inconclusive_verdict_of_any_version_is_read(word: str) -> None:
    fields = {"verdict": word, "reference": "real.jsonl", "documents": 23, "tokens": 900, "metrics": [], "note": ""}
    record = CollapseRecord.model_validate(fields)
    assert record.verdict is CollapseVerdict.inconclusive
    assert record.model_dump(mode="json")["verdict"] == "inconclusive"


def test_an_unknown_verdict_is_refused() -> None:
    with pytest.raises(ValueError, match="maybe"):
        CollapseVerdict("maybe")
