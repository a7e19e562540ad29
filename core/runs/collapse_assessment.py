"""The assessment of a dataset: compared with real text or itself, and with the dataset that it builds on. Knows no text and no
metric.
"""

from pydantic import BaseModel, ConfigDict

from core.runs.records import CollapseRecord, CollapseVerdict
from core.runs.verdict_words import Advice


class CollapseAssessment(BaseModel):
    """A dataset compared with real text, or assessed for repetition only, and compared with its parent."""

    model_config = ConfigDict(frozen=True)

    collapse: CollapseRecord
    parent: CollapseRecord | None = None

    @property
    def verdict(self) -> CollapseVerdict:
        """The graver of the two verdicts, in the order of `CollapseVerdict`."""
        verdicts = {record.verdict for record in (self.collapse, self.parent) if record}
        return next(verdict for verdict in CollapseVerdict if verdict in verdicts)

    @property
    def worse(self) -> CollapseRecord:
        """The comparison that has the verdict."""
        return self.parent if self.parent and self.collapse.verdict is not self.verdict else self.collapse

    @property
    def advice(self) -> list[Advice]:
        """What may help, from the comparisons that have the verdict."""
        records = [record for record in (self.collapse, self.parent) if record and record.verdict is self.verdict]
        return list(dict.fromkeys(advice for record in records for advice in record.advice))

    @property
    def collapse_reasons(self) -> list[str]:
        """The evidence of collapse, a sentence each."""
        records = [
            record for record in (self.collapse, self.parent) if record and record.verdict is CollapseVerdict.collapse
        ]
        return [
            f"compared with {record.reference}: {sentence}" if record.reference else sentence
            for record in records
            for sentence in record.evidence
        ]
