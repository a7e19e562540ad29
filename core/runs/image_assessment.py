"""The assessment of a dataset's images: duplicates and style, shown and not gating. Knows no image and measures nothing."""

from pydantic import BaseModel, ConfigDict

from core.intervals import IntervalEstimate
from core.runs.noun_counts import format_count

UNUSABLE_WORDS = {
    "absent": "named by an address or a path, which is never opened",
    "unreadable": "cannot be decoded",
    "tiny": "too small",
    "blank": "blank",
}
"""Why an image is of no use, in words, in the order in which they are shown."""
UNCALIBRATED = "These numbers are shown and not gating: their limits were not calibrated on real datasets."


class PicturePlace(BaseModel):
    """Where an image is in a dataset."""

    model_config = ConfigDict(frozen=True)

    file: str
    row: int
    """The line or row number in the file, from 1 on."""
    image: int
    """The number among the images of its row, from 1 on."""

    def __str__(self) -> str:
        return f"{self.file}:{self.row}"


class PictureGroup(BaseModel):
    """A picture with those that nearly repeat it."""

    model_config = ConfigDict(frozen=True)

    pictures: int
    places: tuple[PicturePlace, ...]
    """Of the first few pictures, each where it occurs first."""


class MeasureRange(BaseModel):
    """A measure over many pictures."""

    model_config = ConfigDict(frozen=True)

    median: float
    low: float
    """The fifth percentile."""
    high: float
    """The 95th percentile."""


class ImageStyle(BaseModel):
    """What the pictures of a dataset look like (`filters.image_styles`)."""

    model_config = ConfigDict(frozen=True)

    pictures: int
    sizes: int
    """Different sizes."""
    commonest_size: tuple[int, int]
    """Width and height in pixels."""
    commonest_size_share: float
    brightness: MeasureRange
    contrast: MeasureRange
    colorfulness: MeasureRange
    ink: MeasureRange
    effective_palettes: float
    effective_layouts: float


class ImageComparison(BaseModel):
    """Pictures compared with those of another dataset."""

    model_config = ConfigDict(frozen=True)

    name: str
    pictures: int
    """Different pictures of the other dataset."""
    compared: int
    """Different pictures of this dataset; of one with a parent, those that it adds."""
    near_duplicates: int
    """Of the compared pictures, those that a picture of the other dataset nearly or exactly repeats."""
    near_duplicate_share: IntervalEstimate | None
    here: ImageStyle | None
    """At the same number of pictures as `there`, since effective numbers grow with it. None if one side has no picture."""
    there: ImageStyle | None


class ImageAssessment(BaseModel):
    """The images of a dataset. A *picture* is an image that is of use, counted once however often it occurs."""

    model_config = ConfigDict(frozen=True)

    rows: int
    """All rows of the dataset."""
    image_rows: int
    """Rows with images."""
    images: int
    problem: str | None = None
    """Why the images were not assessed; all other numbers are 0 then."""
    unusable: dict[str, int] = {}
    """Images of no use by a key of `UNUSABLE_WORDS`."""
    pictures: int = 0
    near_duplicates: int = 0
    """Pictures that are near-duplicates of an earlier one, by the hash and the threshold of the filter `image_duplicates`."""
    near_duplicate_share: IntervalEstimate | None = None
    near_duplicate_rows: int = 0
    """Rows with such a picture."""
    questions: int = 0
    """Rows with usable images only, and with a question."""
    shared_rows: int = 0
    """Rows with the same pictures as an earlier row and another question, or text if it has none: this is normal."""
    repeated_rows: int = 0
    """Rows with nearly or exactly the pictures of an earlier row, and the same question."""
    groups: tuple[PictureGroup, ...] = ()
    """The largest groups of near-duplicates; without near-duplicates, pictures from the most typical to the least typical one."""
    style: ImageStyle | None = None
    """None without a picture."""
    reference: ImageComparison | None = None
    parent: ImageComparison | None = None

    @property
    def is_mostly_images(self) -> bool:
        """Whether most rows have images, so that rows with equal texts are no copies."""
        return bool(self.pictures) and 2 * self.image_rows > self.rows

    @property
    def filters(self) -> str:
        """The filters that remove what was found, as `--filters` or `--set filters=` takes them; empty if none does.

        Where more rows share a picture than have near-duplicates, several questions about one picture are meant to be there.
        """
        if not self.pictures:
            return ""
        if self.shared_rows <= self.near_duplicate_rows:
            return "images,image_duplicates" if self.unusable or self.near_duplicates or self.repeated_rows else ""
        if self.repeated_rows and self.questions:
            return '[{type="images"}, {type="image_duplicates", same_question=true}]'
        return "images" if self.unusable else ""

    @property
    def headline(self) -> str:
        counts = f"{format_count(self.images, 'image')} in {format_count(self.image_rows, 'row')}"
        return counts if self.problem else f"{counts}, {format_count(self.pictures, 'different picture')}"

    @property
    def findings(self) -> list[str]:
        """A sentence each."""
        if self.problem:
            return [f"The images were not assessed: this {self.problem}."]
        found = []
        if self.unusable:
            kinds = "; ".join(
                f"{self.unusable[kind]:,} {words}" for kind, words in UNUSABLE_WORDS.items() if kind in self.unusable
            )
            found.append(f"{format_count(sum(self.unusable.values()), 'image')} of no use: {kinds}.")
        if self.near_duplicate_share:
            found.append(self._describe_near_duplicates(self.near_duplicate_share))
        if self.repeated_rows:
            found.append(
                f"{format_count(self.repeated_rows, 'row')} with the pictures and the question of an earlier row."
            )
        if self.shared_rows:
            found.append(
                f"{format_count(self.shared_rows, 'row')} with the pictures of an earlier row and another question: no duplicate."
            )
        return found + [describe_image_comparison(one) for one in (self.reference, self.parent) if one]

    def _describe_near_duplicates(self, share: IntervalEstimate) -> str:
        if not self.near_duplicates:
            return f"No picture is a near-duplicate of an earlier one ({100 * share.high:.1f} % at most)."
        largest = self.groups[0]
        places = ", ".join(map(str, largest.places)) + (", …" if largest.pictures > len(largest.places) else "")
        return (
            f"Near-duplicates of an earlier picture: {self.near_duplicates:,} of {self.pictures:,}, "
            f"{_format_interval(share)}, in {format_count(self.near_duplicate_rows, 'row')}. The largest group has "
            f"{format_count(largest.pictures, 'picture')}: {places}."
        )


def describe_image_comparison(comparison: ImageComparison) -> str:
    """How many pictures another dataset has too."""
    share = comparison.near_duplicate_share
    if not comparison.pictures:
        return f"{comparison.name} has no image of use to compare with."
    if share is None:
        return f"All pictures are in {comparison.name} too."
    return (
        f"Near or exact duplicates of a picture of {comparison.name}: {comparison.near_duplicates:,} of "
        f"{comparison.compared:,}, {_format_interval(share)}."
    )


def _format_interval(share: IntervalEstimate) -> str:
    return f"{100 * share.value:.1f} % ({100 * share.low:.1f} to {100 * share.high:.1f} %)"
