"""The `[[filters]]` tables of a recipe: which samples are dropped. Knows settings only; filtering is in `filters`."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import Field, PlainValidator, SerializeAsAny, TypeAdapter, ValidationError
from pydantic_core import PydanticCustomError

from core.config.base import RecipeTable, put_below, read_table_type
from core.extensions import EXTENSION_ERROR, Extension, ExtensionPoint
from core.plugins import UnusablePlugin


class FilterTable(RecipeTable):
    about: ClassVar[str]
    """What the filter removes, as reports and tables print it after the name."""
    type: str
    reads_images: ClassVar[bool] = False
    """Whether its documents need the images of their rows, which are read only then."""
    modules: ClassVar[tuple[str, ...]] = ()
    """Of a plugin's filter: modules of the plugin's extra without which it cannot run."""
    judges: ClassVar[tuple[str, ...]] = ()
    """Of a plugin's filter: the languages that it can judge (ISO 639-1). Empty: all."""

    def open_meter(self, folder: Path) -> Callable[[Mapping[str, Any], Any], Any] | None:
        """What adds to the document of a run's sample (`filters.base.Document.measured`), given its row with its seed, what the
        filter decides by. None if the text is enough. Relative paths start from `folder`.
        """
        return None


class LengthFilter(FilterTable):
    about = "removes texts that are too short or too long"
    type: Literal["length"]
    min_words: int = Field(3, ge=0)
    max_words: int = Field(2000, ge=1)


class RefusalFilter(FilterTable):
    about = "removes refusals and talk about being a model"
    type: Literal["refusal"]


class BoilerplateFilter(FilterTable):
    about = "removes answers that begin with an assistant's phrases instead of the answer"
    type: Literal["boilerplate"]


class RepetitionFilter(FilterTable):
    about = "removes texts that repeat themselves, by the rules of Rae et al. 2021, table A1"
    type: Literal["repetition"]
    scale: float = Field(1.0, gt=0)
    """Multiplies Gopher's thresholds (Rae et al. 2021, table A1). Larger is more lenient."""


class KeepOneFilter(FilterTable):
    """A filter that keeps one document of a group of similar ones."""

    compares: ClassVar[str] = ""
    """What it compares, as reports print it; "" where `of` says it."""
    keep: Literal["first", "longest", "best"] = "first"
    """Of a group: the first, the longest answer, or the best mean score of the critic."""


class DuplicateFilter(KeepOneFilter):
    of: Literal["answer", "conversation"] = "conversation"
    """All turns, or only the assistant's answers. Plain `text` is compared whole."""


class ExactFilter(DuplicateFilter):
    about = "removes exact duplicates"
    type: Literal["exact"]


class MinHashFilter(DuplicateFilter):
    about = "removes near-duplicates, by Jaccard similarity of word shingles"
    type: Literal["minhash"]
    threshold: float = Field(0.8, gt=0, le=1)
    """Jaccard similarity of shingles from which samples are near-duplicates."""
    ngram: int = Field(5, ge=1, le=20)
    """Words in a shingle."""
    index: str | None = None
    """Also drop near-duplicates of earlier releases, in the folder that `stillhouse index` wrote."""

    def list_files(self) -> Sequence[str]:
        return [f"{self.index}/index.json"] if self.index else []


class NoveltyFilter(KeepOneFilter):
    about = "removes prompts similar to an earlier prompt, by ROUGE-L"
    compares = "what is asked"
    type: Literal["novelty"]
    threshold: float = Field(0.7, gt=0, le=1)
    """ROUGE-L from which a later prompt is not new (Self-Instruct, section 2.2)."""


class SemanticFilter(DuplicateFilter):
    about = "removes near-duplicates by meaning, by the cosine of sentence embeddings (all-MiniLM-L6-v2)"
    type: Literal["semantic"]
    threshold: float = Field(0.9, gt=0, le=1)
    """Cosine of sentence embeddings from which meanings are equal (SemHash's default)."""
    numbers: bool = True
    """Whether documents with different numbers always differ."""


QualityRule = Literal[
    "gopher_min_words", "gopher_max_words", "gopher_min_word_length", "gopher_max_word_length", "gopher_hashes",
    "gopher_ellipses", "gopher_bullet_lines", "gopher_ellipsis_lines", "gopher_alphabetic_words", "gopher_stop_words",
    "c4_lorem_ipsum", "c4_curly_brackets", "c4_sentences",
    "fineweb_punctuated_lines", "fineweb_duplicate_line_characters", "fineweb_short_lines",
]  # fmt: skip
"""A rule for the quality of web pages, prefixed by its paper."""


class QualityFilter(FilterTable):
    about = "removes texts by rules for the quality of web pages (Gopher, C4, FineWeb)"
    type: Literal["quality"]
    sets: tuple[Literal["answers", "gopher", "c4", "fineweb"], ...] = ("answers",)
    """All rules of a paper, or `answers`: those that do not reject short answers."""
    rules: tuple[QualityRule, ...] = ()
    """In addition."""
    without: tuple[QualityRule, ...] = ()
    """Left out of the sets."""
    limits: dict[QualityRule, float] = Field({})
    """In place of the published ones."""


class LanguageFilter(FilterTable):
    about = "removes texts in other languages"
    type: Literal["language"]
    languages: tuple[Annotated[str, Field(pattern=r"^[a-z]{2}$")], ...] = Field(("en",), min_length=1)
    """ISO 639-1 codes to keep."""


class ContaminationFilter(FilterTable):
    about = "removes samples that share n-grams with evaluation sets"
    type: Literal["contamination"]
    sets: tuple[str, ...] = Field(min_length=1)
    """Files of evaluation sets: JSONL, Parquet, or txt with one row per line."""
    columns: tuple[str, ...] = ("text", "question", "prompt", "problem", "instruction", "input", "query", "messages")
    """To compare, where a set has them."""
    ngram: int = Field(13, ge=5, le=50)
    """Shared consecutive words (GPT-3: 13). A shorter row of eight or more is compared whole."""
    coverage: float = Field(0.0, ge=0, le=1)
    """Share of words in shared n-grams. 0: one n-gram. With `ngram = 8`, PaLM uses 0.7, Tülu 3 0.5."""

    def list_files(self) -> Sequence[str]:
        return self.sets


PersonalDataKind = Literal["email", "iban", "card", "id", "ip", "phone"]


class PersonalDataFilter(FilterTable):
    about = "masks or removes personal data: addresses, phone, card, account and identity numbers"
    type: Literal["pii"]
    action: Literal["mask", "drop"] = "mask"
    """`mask` writes `[EMAIL]`, `[PHONE]` and so on; `drop` drops the sample."""
    kinds: tuple[PersonalDataKind, ...] = Field(("email", "iban", "card", "id", "ip", "phone"), min_length=1)
    region: str = Field("US", pattern=r"^([A-Z]{2})?$")
    """Country (ISO 3166) of phone numbers without a country code. Empty: they are not found."""


BuiltInFilter = Annotated[
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
FILTER_TABLES: dict[str, type[FilterTable]] = {
    get_args(table.model_fields["type"].annotation)[0]: table for table in get_args(get_args(BuiltInFilter)[0])
}
"""The table of every built-in filter by its `type`."""
_BUILT_IN: TypeAdapter[FilterTable] = TypeAdapter(BuiltInFilter)


FILTER_EXTENSIONS: ExtensionPoint[type[FilterTable]] = ExtensionPoint(
    "filter", FilterTable, lambda: FILTER_TABLES, read_table_type
)


def _parse_filter_table(values: Any) -> FilterTable:
    """A table of `[[filters]]` as the table of its built-in filter, or of an installed or registered one.

    Raises:
        ValidationError: as pydantic, with the filter's name before each key.
        PydanticCustomError: if there is no usable filter of this name.
    """
    name = values.get("type") if isinstance(values, Mapping) else None
    if isinstance(values, FilterTable) or not isinstance(name, str):
        return values if isinstance(values, FilterTable) else _BUILT_IN.validate_python(values)
    try:
        table = find_filter_table(name)
    except UnusablePlugin as error:
        raise PydanticCustomError(EXTENSION_ERROR, "{sentence}", {"sentence": str(error)}) from None
    if name in FILTER_TABLES:
        return _BUILT_IN.validate_python(values)
    try:
        return table.model_validate(values)
    except ValidationError as error:
        raise put_below(error, name) from None


def find_filter_table(name: str) -> type[FilterTable]:
    """The table of a filter. Raises UnusablePlugin if there is no usable filter of this name."""
    extension = FILTER_EXTENSIONS.find(name)
    if name in FILTER_TABLES:
        return FILTER_TABLES[name]
    return extension.value if extension else FILTER_EXTENSIONS.require(name).value


def describe_filter(name: str) -> str:
    """The words that reports print after the filter's name; "" if the filter is not installed here."""
    with suppress(UnusablePlugin):
        return find_filter_table(name).about
    return ""


def list_filter_extensions(filters: Sequence[FilterTable]) -> list[Extension[type[FilterTable]]]:
    """Those of the filters that are not built-in."""
    return [
        FILTER_EXTENSIONS.require(name)
        for name in dict.fromkeys(config.type for config in filters)
        if name not in FILTER_TABLES
    ]


FilterConfig = Annotated[SerializeAsAny[FilterTable], PlainValidator(_parse_filter_table)]
"""The table of any filter."""


def list_filter_files(filters: Sequence[FilterTable]) -> list[str]:
    """The files that filters read, by their names in the recipe."""
    return [name for config in filters for name in config.list_files()]


DEFAULT_FILTERS: tuple[FilterConfig, ...] = (
    LengthFilter(type="length"),
    RefusalFilter(type="refusal"),
    RepetitionFilter(type="repetition"),
    ExactFilter(type="exact"),
    MinHashFilter(type="minhash"),
)
