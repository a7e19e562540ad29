import pytest

from core.runs.collapse_facts import CollapseVerdict
from plugins.references.self_test import SelfTestResult, SelfTestSample


@pytest.mark.parametrize(("alarms", "compatible"), [(0, True), (2, True), (4, True), (5, False), (200, False)])
def test_a_rate_is_compatible_unless_its_interval_is_over_one_percent(alarms: int, *, compatible: bool) -> None:
    verdicts = [CollapseVerdict.collapse] * alarms + [CollapseVerdict.passed] * (200 - alarms)
    result = SelfTestResult(500, [SelfTestSample(500, verdict, ()) for verdict in verdicts])
    assert result.is_compatible == compatible
    assert result.rate.high >= 0.0188
