"""Reads the images of a dataset one at a time, and assesses them: duplicates, style, and pictures that another dataset has too.
Knows no text but questions, and no verdict.
"""

import base64
import io
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from core.config.filters import ImageDuplicatesFilter, ImagesFilter
from core.errors import StoreError
from core.intervals import estimate_share
from core.project_files import NAMED_REFERENCES, find_referenced_file
from core.runs.image_assessment import (
    UNUSABLE_WORDS,
    ImageAssessment,
    ImageComparison,
    ImageStyle,
    MeasureRange,
    PictureGroup,
    PicturePlace,
)
from core.storage.fitted_images import UnreadableImage, find_images_problem
from core.storage.image_files import find_image_file, is_stored_image
from filters.base import RowImage
from flows.rows.dataset_rows import find_dataset_files, read_file_rows
from flows.rows.row_forms import FILTER_COLUMNS, build_row_document
from flows.rows.row_images import has_row_images, read_row_images
from flows.terminal.console import SESSION
from flows.terminal.text_format import format_count

if TYPE_CHECKING:
    from filters.image_styles import PictureFeatures

IMAGES = ImagesFilter(type="images")
DUPLICATES = ImageDuplicatesFilter(type="image_duplicates")
"""The filters whose rules and limits decide here, with their defaults."""
SHOWN_PICTURES = 12
SHOWN_OF_GROUP = 4
THUMBNAIL_SIDE = 160
"""Pixels of the longer side: some kilobytes each."""


class PicturedRow(NamedTuple):
    """A row with images."""

    pictures: tuple[int, ...]
    """The numbers of those that are of use, in order."""
    asked: int | None
    """The hash of its question; of its text if it has none. None if an image is of no use, so that the row is like no other."""


class PictureSet:
    """What is kept of a dataset's images: the features of each picture, and where it occurs first."""

    def __init__(self, problem: str | None) -> None:
        self.problem = problem
        """Why images are counted only."""
        self.rows = 0
        self.image_rows = 0
        self.images = 0
        self.questions = 0
        """Rows with usable images only, and with a question."""
        self.unusable: Counter[str] = Counter()
        self.pictures: list[PictureFeatures] = []
        self.places: list[PicturePlace] = []
        self.pictured_rows: list[PicturedRow] = []
        self._by_content: dict[bytes, int | str] = {}
        """The number of the picture, or what is wrong with the image, by the hash of its bytes."""
        self._by_pixels: dict[bytes, int] = {}

    def add_image(self, content: RowImage, place: PicturePlace) -> int | None:
        """The number of the picture; None if the image is of no use, or not decoded here."""
        self.images += 1
        if self.problem:
            return None
        key = _hash_content(content)
        if key not in self._by_content:
            self._by_content[key] = self._measure(content, place)
        found = self._by_content[key]
        if isinstance(found, str):
            self.unusable[found] += 1
            return None
        return found

    def _measure(self, content: RowImage, place: PicturePlace) -> int | str:
        from filters.image_styles import PictureFeatures, measure_picture

        features = measure_picture(content, IMAGES)
        if not isinstance(features, PictureFeatures):
            return str(features.kind)
        number = self._by_pixels.setdefault(features.digest, len(self.pictures))
        if number == len(self.pictures):
            self.pictures.append(features)
            self.places.append(place)
        return number


def _hash_content(content: RowImage) -> bytes:
    """Equal for equal images. The name of a stored image is the hash of its bytes, so its file is not read."""
    raw = content if isinstance(content, bytes) else f"{type(content).__name__} {content}".encode("utf-8", "replace")
    return blake2b(raw, digest_size=16).digest()


def read_pictures(source: Path) -> PictureSet:
    """The pictures of a dataset, of which one image is in memory at a time. An image that is of no use is counted, and no error.

    Raises:
        UsageError: if the dataset cannot be read.
        UserInterrupt: if the user asked to stop.
    """
    from filters.duplicates.shingles import hash_word
    from filters.text_normalization import normalize_words

    found = PictureSet(find_images_problem())
    for row, images in _read_image_rows(source):
        found.rows += 1
        if not images:
            continue
        found.image_rows += 1
        numbers = [found.add_image(content, place) for content, place in images]
        asked = None
        if None not in numbers:
            document = build_row_document(row)
            found.questions += bool(document.asked)
            asked = hash_word(" ".join(normalize_words(document.asked or document.text)))
        usable = tuple(number for number in numbers if number is not None)
        found.pictured_rows.append(PicturedRow(usable, asked))
        SESSION.show_unless_stopped(f"{source}: images of {format_count(found.image_rows, 'row')} read")
    return found


def _read_image_rows(source: Path) -> Iterator[tuple[Mapping[str, Any], list[tuple[RowImage, PicturePlace]]]]:
    """Each row with its images and their places."""
    files = find_dataset_files(source)
    folders = tuple(dict.fromkeys(file.parent.parent for file in files))
    for found in read_file_rows(files, dict, FILTER_COLUMNS, SESSION.check_stopped):
        name = files[found.file].name
        images = [
            (_find_content(content, folders), PicturePlace(file=name, row=found.number, image=number))
            for number, content in enumerate(_list_images(found.value), 1)
        ]
        yield found.value, images


def _list_images(row: Mapping[str, Any]) -> list[RowImage]:
    if not has_row_images(row):
        return []
    try:
        return list(read_row_images(row))
    except ValueError:  # a turn whose text can be read, and whose images cannot
        return [b""]


def _find_content(content: RowImage, folders: Sequence[Path]) -> RowImage:
    """A stored image as its file; without one, its name stays."""
    if isinstance(content, str) and is_stored_image(content):
        try:
            return find_image_file(content, folders)
        except StoreError:
            return content
    return content


def assess_images(source: Path, reference: str | None = None, parent: Path | None = None) -> ImageAssessment | None:
    """Assess the images of a dataset, also next to those of its reference and its parent. None if it has no images. Without
    Pillow, they are counted only.

    Raises:
        UsageError: if a dataset cannot be read.
        UserInterrupt: if the user asked to stop.
    """
    found = read_pictures(source)
    if not found.images:
        return None
    if found.problem:
        return ImageAssessment(rows=found.rows, image_rows=found.image_rows, images=found.images, problem=found.problem)
    assessment = _assess_pictures(found)
    if not found.pictures:
        return assessment
    update: dict[str, Any] = {}
    if reference and reference not in NAMED_REFERENCES:
        others = read_pictures(find_referenced_file(reference, Path.cwd()))
        update["reference"] = compare_pictures(found.pictures, others.pictures, reference)
    if parent:
        earlier = read_pictures(parent).pictures
        known = {picture.digest for picture in earlier}
        added = [picture for picture in found.pictures if picture.digest not in known]
        update["parent"] = compare_pictures(added, earlier, str(parent))
    return assessment.model_copy(update=update)


def _assess_pictures(found: PictureSet) -> ImageAssessment:
    from filters.decoded_images import HASH_WORDS
    from filters.duplicates.image_duplicates import compare_images
    from filters.ragged_arrays import RaggedArray

    total = len(found.pictures)
    values = np.concatenate([np.empty(0, dtype=np.uint64), *(picture.hash for picture in found.pictures)])
    matches = compare_images(RaggedArray(values, np.arange(total + 1) * HASH_WORDS), DUPLICATES, Path())
    originals = dict(zip(matches.repeated.tolist(), matches.original.tolist(), strict=True))
    shown, rows = Counter[tuple[int, ...]](), Counter[tuple[tuple[int, ...], int]]()
    shared = repeated = 0
    for row in found.pictured_rows:
        if row.asked is None:
            continue
        alike = tuple(originals.get(number, number) for number in row.pictures)
        repeats = bool(rows[alike, row.asked])
        repeated += repeats
        shared += bool(shown[row.pictures]) and not repeats
        rows[alike, row.asked] += 1
        shown[row.pictures] += 1
    return ImageAssessment(
        rows=found.rows,
        image_rows=found.image_rows,
        images=found.images,
        unusable={kind: found.unusable[kind] for kind in UNUSABLE_WORDS if found.unusable[kind]},
        pictures=total,
        near_duplicates=len(originals),
        near_duplicate_share=estimate_share(len(originals), total),
        near_duplicate_rows=sum(not originals.keys().isdisjoint(row.pictures) for row in found.pictured_rows),
        questions=found.questions,
        shared_rows=shared,
        repeated_rows=repeated,
        groups=_choose_groups(found, originals),
        style=measure_style(found.pictures) if found.pictures else None,
    )


def _choose_groups(found: PictureSet, originals: Mapping[int, int]) -> tuple[PictureGroup, ...]:
    """At most `SHOWN_PICTURES` pictures: near-duplicates of the largest groups, else evenly spaced by how typical they are."""
    from filters.image_styles import rank_by_typicality

    if not originals:
        ranked = rank_by_typicality(found.pictures) if found.pictures else []
        spaced = np.linspace(0, len(ranked) - 1, min(SHOWN_PICTURES, len(ranked))).round().astype(int)
        return tuple(PictureGroup(pictures=1, places=(found.places[ranked[place]],)) for place in spaced)
    groups: dict[int, list[int]] = {}
    for number, original in originals.items():
        groups.setdefault(original, [original]).append(number)
    largest = sorted(groups.values(), key=lambda group: (-len(group), group[0]))[: SHOWN_PICTURES // 2]
    chosen: list[PictureGroup] = []
    left = SHOWN_PICTURES
    for group in largest:
        first = group[: min(SHOWN_OF_GROUP, left)]
        if len(first) < 2:
            break
        left -= len(first)
        chosen.append(PictureGroup(pictures=len(group), places=tuple(found.places[number] for number in first)))
    return tuple(chosen)


def compare_pictures(
    pictures: Sequence["PictureFeatures"], others: Sequence["PictureFeatures"], name: str
) -> ImageComparison:
    """How many pictures nearly repeat one of another dataset, and the style of both at equal numbers of pictures."""
    from filters.duplicates.image_duplicates import mark_similar_hashes

    near = 0
    if pictures and others:
        hashes, known = (np.stack([picture.hash for picture in side]) for side in (pictures, others))
        near = int(mark_similar_hashes(hashes, known, DUPLICATES.threshold).sum())
    size = min(len(pictures), len(others))
    here, there = (measure_style(draw_pictures(side, size)) if size else None for side in (pictures, others))
    return ImageComparison(
        name=name, pictures=len(others), compared=len(pictures), near_duplicates=near,
        near_duplicate_share=estimate_share(near, len(pictures)) if others else None, here=here, there=there,
    )  # fmt: skip


def draw_pictures(pictures: Sequence["PictureFeatures"], size: int) -> list["PictureFeatures"]:
    """A random sample that does not depend on the order of the rows: the pictures with the smallest hashes of their pixels."""
    return sorted(pictures, key=lambda picture: picture.digest)[:size]


def measure_style(pictures: Sequence["PictureFeatures"]) -> ImageStyle:
    """What one picture at least looks like. The order of the pictures changes no number."""
    from filters.image_styles import PictureMeasures, count_effective_layouts, count_effective_palettes

    ordered = draw_pictures(pictures, len(pictures))
    sizes = Counter(picture.size for picture in ordered)
    size, count = max(sizes.items(), key=lambda item: (item[1], item[0]))
    low, median, high = np.percentile([picture.measures for picture in ordered], (5, 50, 95), axis=0)
    ranges = {
        name: MeasureRange(median=float(median[place]), low=float(low[place]), high=float(high[place]))
        for place, name in enumerate(PictureMeasures._fields)
    }
    return ImageStyle(
        pictures=len(ordered),
        sizes=len(sizes),
        commonest_size=size,
        commonest_size_share=count / len(ordered),
        effective_palettes=count_effective_palettes(ordered),
        effective_layouts=count_effective_layouts(ordered),
        **ranges,
    )


class Thumbnail(NamedTuple):
    """A picture of a page."""

    place: PicturePlace
    png: str
    """In base64, written anew."""
    width: int
    height: int


class ThumbnailGroup(NamedTuple):
    """Near-duplicates next to each other, or a picture alone."""

    pictures: int
    thumbnails: list[Thumbnail]


def read_thumbnails(source: Path, assessment: ImageAssessment) -> list[ThumbnailGroup]:
    """The pictures of `assessment.groups`, read again from the dataset. One that can no longer be decoded is left out."""
    wanted = {place for group in assessment.groups for place in group.places}
    drawn: dict[PicturePlace, Thumbnail] = {}
    for _, images in _read_image_rows(source):
        for content, place in images:
            if place in wanted and place not in drawn and (thumbnail := _draw_thumbnail(content, place)):
                drawn[place] = thumbnail
        if len(drawn) == len(wanted):
            break
    groups = [
        ThumbnailGroup(group.pictures, [drawn[place] for place in group.places if place in drawn])
        for group in assessment.groups
    ]
    return [group for group in groups if group.thumbnails]


def _draw_thumbnail(content: RowImage, place: PicturePlace) -> Thumbnail | None:
    from filters.decoded_images import open_image, reduce_image

    try:
        with open_image(content, IMAGES.max_pixels) as image:
            small = reduce_image(image, THUMBNAIL_SIDE)
    except UnreadableImage:
        return None
    written = io.BytesIO()
    small.save(written, "PNG")
    return Thumbnail(place, base64.b64encode(written.getvalue()).decode(), small.width, small.height)
