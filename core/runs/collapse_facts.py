"""What a collapse assessment found, as stored: verdict, findings, metrics, examples, spread; and the limits that its words name.
Knows no text and no advice.
"""

from enum import StrEnum

from pydantic import BaseModel

Z_LIMIT = 4.0
"""In standard deviations of real text compared with real text. Sixty comparisons estimate the deviation within a fifth, so 4 is
at least Student's 3.2, one in a thousand, for each of fourteen correlated numbers."""
MIN_CONCLUSIVE_DOCUMENTS = 1_000
"""Below this number, a loss of rare words may not show (and can look like a gain), so the verdict with a reference is
inconclusive."""
MIN_REPETITION_DOCUMENTS = 500
"""From this number on, twice the smallest limit (a tenth of copies) is found in 19 of 20 datasets; below it, a dataset without a
finding is inconclusive."""


class MetricRecord(BaseModel):
    """One collapse metric: of the kept samples, of the reference at equal size, and the range of real text."""

    name: str
    candidate: float
    reference: float
    """Of real text; without a reference, of the candidate's own words in random order, and 0 for exact duplicates, outlines and
    records."""
    low: float
    high: float
    """The range of real text; without a reference, what is not called repetition."""
    meaning: str
    family: str | None = None
    """TAIL, REPEAT, FIDELITY or COVERAGE for metrics that decide the verdict; None for others, which are only shown. Without a
    reference, `templates` has none where structure cannot be judged."""
    z: float | None = None
    """Distance in standard deviations of real text against real text, positive if worse; for metrics that decide."""
    interval: tuple[float, float] | None = None
    """95 % interval of `candidate`, with a document as the unit (`filters.collapse.sampling_error`); None for metrics but
    repeats and beginnings."""


class CollapseVerdict(StrEnum):
    collapse = "collapse"
    """Poorer than the reference: in rare words, by repetition, or by likely text only."""
    inconclusive = "inconclusive"
    """No collapse was found, but there are too few documents to detect it: not a pass."""
    shift = "shift"
    """On other topics than the reference, or otherwise different; whether it is also poorer is unknown."""
    unrepeated = "no repetition"
    """No repetition, without a reference: a loss of rare words was not measured."""
    passed = "pass"


class PhraseRecord(BaseModel):
    """A phrase at the start of documents."""

    text: str
    candidate: float
    """Share of the compared documents that begin with it."""
    reference: float | None = None
    """Share of real text that begins with it; None without a reference."""


class ExampleRecord(BaseModel):
    """Text of the dataset that shows a finding."""

    metric: str
    """The metric that it raises."""
    text: str
    """The compared units, shortened."""
    count: int
    """Documents that have it."""


class AttributeSpread(BaseModel):
    """How evenly the kept samples cover the values that were drawn for one attribute of the seeds."""

    name: str
    values: int
    """Different values among the tried seeds."""
    kept_values: int
    """Those with a kept sample."""
    drawn_effective: float
    """Effective number of values among the tried seeds: exp of their entropy."""
    kept_effective: float
    """The same among the seeds with a kept sample."""
    interval: tuple[float, float]
    """95 % interval of `kept_effective`."""
    value: str
    """The value that is kept least, compared with how often it was drawn."""
    drawn_share: float
    """Share of this value among the tried seeds."""
    kept_share: float
    """The same among the seeds with a kept sample."""
    p: float | None
    """Probability that random drops leave any value of any attribute so rare; None where quotas decide what is
    kept, or the values are too many to test."""

    @property
    def is_uneven(self) -> bool:
        """Whether random drops explain the least kept value with a probability of at most 5 %."""
        return self.p is not None and self.p <= MAX_SPREAD_PROBABILITY

    @property
    def summary(self) -> str:
        """Its values, and the least kept one if that is more than chance."""
        covered = f"{self.kept_values} of {self.values} values of {self.name}"
        if not self.is_uneven:
            return covered
        return (
            f"{covered}; `{self.value}` {100 * self.kept_share:.0f} % of kept, {100 * self.drawn_share:.0f} % of seeds"
        )


MAX_SPREAD_PROBABILITY = 0.05
MAX_SUMMARIZED_ATTRIBUTES = 4


class SpreadRecord(BaseModel):
    """How evenly the kept samples of a run cover what was drawn for its seeds. No part of the verdict."""

    tried: int
    """Seeds with a finished sample. Samples that only the recipe's goal left over do not count."""
    kept: int
    """Seeds with a kept sample."""
    attributes: list[AttributeSpread]
    """The most uneven first."""

    @property
    def uneven(self) -> list[AttributeSpread]:
        return [attribute for attribute in self.attributes if attribute.is_uneven]

    @property
    def summary(self) -> str:
        """One sentence without a full stop: the uneven attributes, or the first ones."""
        if self.uneven:
            shown = "; ".join(attribute.summary for attribute in self.uneven[:MAX_SUMMARIZED_ATTRIBUTES])
            left_out = len(self.uneven) - MAX_SUMMARIZED_ATTRIBUTES
            return f"{shown}; {left_out} more are uneven" if left_out > 0 else shown
        shown = ", ".join(attribute.summary for attribute in self.attributes[:MAX_SUMMARIZED_ATTRIBUTES])
        left_out = len(self.attributes) - MAX_SUMMARIZED_ATTRIBUTES
        more = f", and {left_out} more on the page" if left_out > 0 else ""
        return f"{shown}{more}; no value is rarer than by chance"


class SamenessRecord(BaseModel):
    """How alike the questions or the answers of a dataset are. No part of the verdict."""

    of: str
    """`questions` or `answers`."""
    texts: int
    opening: str
    """The most frequent first two words."""
    opening_share: float
    template: str
    """The most frequent beginning, with a gap (`…`) for numbers, names and rare words."""
    template_share: float
    self_bleu: float | None
    """From 0 to 1; rises with the number of texts."""


class CollapseFacts(BaseModel):
    """Metrics of the kept samples and of a real reference with the same number of tokens; without one, of their repetition."""

    verdict: CollapseVerdict = CollapseVerdict.inconclusive
    kind: str = "prose"
    """What was counted (`filters.collapse.text_kinds`)."""
    unit: str = "word"
    """What was counted, in the singular."""
    turns: str | None = None
    """Of dialogues: the role whose turns the numbers are of, that with the worse verdict."""
    evidence: list[str] = []
    """Evidence for the verdict, one sentence each, the strongest first."""
    reference: str | None
    """None if only repetition within the dataset was measured."""
    parent: str | None = None
    """Without a reference: the release that the samples were also compared with, which the verdict includes."""
    documents: int
    tokens: int
    """Tokens to which both sides were cut for the comparison."""
    tail: float | None = None
    """Loss of rare words, in deviations of real text. Its rise over generations distinguishes replacing from accumulating."""
    metrics: list[MetricRecord]
    openers: list[PhraseRecord] = []
    """The most frequent first three words."""
    templates: list[PhraseRecord] = []
    """The most frequent openings as common words and gaps, structures, or values of fields."""
    sameness: list[SamenessRecord] = []
    """Of questions and answers, however many there are."""
    findings: dict[str, list[str]] = {}
    """What was found, by name (`core.runs.verdict_words`), each with its metrics."""
    examples: list[ExampleRecord] = []
    """Of repeated text."""
    needed: int | None = None
    """Compared documents at which the main losses are found."""
    smallest_loss: float | None = None
    """Smallest share of the rare words whose loss is found with a probability of 95 % (`filters.collapse.power`); None without a
    reference of the same origin."""
    dataset_documents: int | None = None
    """Documents of the dataset with a unit in them."""
    reference_documents: int | None = None
    """Documents of the reference with a unit in them; None without a reference."""
    shared_documents: int = 0
    """Documents of the reference that the dataset also has, which were not compared."""
    reference_kind: str | None = None
    """The kind of the reference, if it is another than that of the dataset: then nothing was compared."""
    generated: bool = True
    """Whether a teacher is known to have written the documents."""
    roles: dict[str, CollapseVerdict] = {}
    """Of dialogues: the verdict on each role's turns."""
    spread: SpreadRecord | None = None
    """Of a run whose seeds have attributes with several values."""
