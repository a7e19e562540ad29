"""The tables of a recipe that say which samples go: `[[filters]]`."""

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field

from core.config import Config


class LengthFilter(Config):
    type: Literal["length"]
    min_words: int = Field(3, ge=0)
    max_words: int = Field(2000, ge=1)


class RefusalFilter(Config):
    type: Literal["refusal"]


class BoilerplateFilter(Config):
    type: Literal["boilerplate"]


class RepetitionFilter(Config):
    type: Literal["repetition"]
    scale: float = Field(1.0, gt=0)
    """Multiplies every threshold of the rule set (Gopher, Rae et al. 2021, table A1); larger is more lenient."""


class KeepOneFilter(Config):
    """A filter that keeps one of several documents which are alike."""

    keep: Literal["first", "longest", "best"] = "first"
    """Which one: the first in order, the one with the longest answer, or the one with the best mean score of the critic (a
    `score` column, where a dataset is filtered). Among equals, and among those without a score, the first."""


class DuplicateFilter(KeepOneFilter):
    of: Literal["answer", "conversation"] = "answer"
    """What is compared: all that the assistant says, or all that is said. Where different questions may well have one answer,
    the conversation is what must not be there twice."""


class ExactFilter(DuplicateFilter):
    type: Literal["exact"]


class MinHashFilter(DuplicateFilter):
    type: Literal["minhash"]
    threshold: float = Field(0.8, gt=0, le=1)
    """Jaccard similarity of shingle sets from which two samples are near-duplicates."""
    ngram: int = Field(5, ge=1, le=20)
    """Words in a shingle."""
    permutations: int = Field(128, ge=16, le=512)
    index: str | None = None
    """The folder of an index of earlier releases (`stillhouse index`): what repeats one of those goes too, by similarities
    whose standard error is about 0.01."""


class NoveltyFilter(KeepOneFilter):
    type: Literal["novelty"]
    threshold: float = Field(0.7, gt=0, le=1)
    """ROUGE-L of what is asked, from which it is not new (Self-Instruct, Wang et al. 2023, section 2.2)."""


class SemanticFilter(DuplicateFilter):
    type: Literal["semantic"]
    threshold: float = Field(0.9, gt=0, le=1)
    """Cosine of sentence embeddings from which two documents mean the same (the default of SemHash 0.5)."""
    numbers: bool = True
    """Whether documents with other numbers in them always mean something else: embeddings hardly see a number."""


QualityRule = Literal[
    "gopher_min_words", "gopher_max_words", "gopher_min_word_length", "gopher_max_word_length", "gopher_hashes",
    "gopher_ellipses", "gopher_bullet_lines", "gopher_ellipsis_lines", "gopher_alphabetic_words", "gopher_stop_words",
    "c4_lorem_ipsum", "c4_curly_brackets", "c4_sentences",
    "fineweb_punctuated_lines", "fineweb_duplicate_line_characters", "fineweb_short_lines",
]  # fmt: skip
"""A rule for the quality of web pages, by the paper that has it."""


class QualityFilter(Config):
    type: Literal["quality"]
    sets: tuple[Literal["answers", "gopher", "c4", "fineweb"], ...] = ("answers",)
    """Rules by the paper that they come from, or `answers`: those of them that short answers do not break for being short."""
    rules: tuple[QualityRule, ...] = ()
    """More rules, by name."""
    without: tuple[QualityRule, ...] = ()
    """Rules of the sets that are left out."""
    limits: dict[QualityRule, float] = Field({})
    """Other limits than the published ones."""


class LanguageFilter(Config):
    type: Literal["language"]
    languages: tuple[Annotated[str, Field(pattern=r"^[a-z]{2}$")], ...] = Field(("en",), min_length=1)
    """ISO 639-1 codes of the languages to keep."""
    min_confidence: float = Field(0.2, gt=0, lt=1)
    """Probability that it is in one of them rather than in the likeliest other language, under which a text is dropped."""
    min_letters: int = Field(20, ge=0)
    """What has fewer letters, code and addresses not counted, passes: too little to tell."""


class ContaminationFilter(Config):
    type: Literal["contamination"]
    sets: tuple[str, ...] = Field(min_length=1)
    """Files of evaluation sets (JSONL, Parquet or txt, one row a line); taken from the recipe's folder, the working directory
    or the project."""
    columns: tuple[str, ...] = ("text", "question", "prompt", "problem", "instruction", "input", "query", "messages")
    """Columns whose text counts, those that a set has."""
    ngram: int = Field(13, ge=5, le=50)
    """Words in a row that must not be shared (13 in GPT-3, Brown et al. 2020, appendix C). A row with fewer is compared
    whole, if it has eight or more, the least N there."""
    coverage: float = Field(0.0, ge=0, le=1)
    """Share of a row's words that shared n-grams must cover. With 0 one n-gram is enough (GPT-3); with `ngram = 8`, 0.7 is
    the rule of PaLM (Chowdhery et al. 2022, section 8) and 0.5 that of Tülu 3 (Lambert et al. 2024)."""


PersonalData = Literal["email", "iban", "card", "id", "ip", "phone"]


class PersonalDataFilter(Config):
    type: Literal["pii"]
    action: Literal["mask", "drop"] = "mask"
    """`mask` writes `[EMAIL]`, `[PHONE]` and so on in the place of what is found; `drop` drops the sample."""
    kinds: tuple[PersonalData, ...] = Field(("email", "iban", "card", "id", "ip", "phone"), min_length=1)
    region: str = Field("US", pattern=r"^([A-Z]{2})?$")
    """Where phone numbers without a country code are from (ISO 3166); empty finds only those with one."""


FilterConfig = Annotated[
    LengthFilter
    | RefusalFilter
    | BoilerplateFilter
    | RepetitionFilter
    | ExactFilter
    | MinHashFilter
    | NoveltyFilter
    | SemanticFilter
    | QualityFilter
    | LanguageFilter
    | ContaminationFilter
    | PersonalDataFilter,
    Field(discriminator="type"),
]


def filter_files(filters: Sequence[FilterConfig]) -> list[str]:
    """The files that filters read, as the recipe names them."""
    sets = [name for config in filters if isinstance(config, ContaminationFilter) for name in config.sets]
    indexes = [config.index for config in filters if isinstance(config, MinHashFilter) and config.index]
    return [*sets, *(f"{index}/index.json" for index in indexes)]


DEFAULT_FILTERS: tuple[FilterConfig, ...] = (
    LengthFilter(type="length"),
    RefusalFilter(type="refusal"),
    RepetitionFilter(type="repetition"),
    ExactFilter(type="exact"),
    MinHashFilter(type="minhash"),
)
