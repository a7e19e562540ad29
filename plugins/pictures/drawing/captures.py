"""A drawn picture as a scanner or a camera would see it, and where its texts are then. Knows no draft."""

import io
from collections.abc import Sequence
from random import Random
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL.Image import Image

Corners = Sequence[Sequence[float]]
MAX_SKEW = 0.014
"""Of a scan: the tangent of its angle."""
MAX_TILT = 0.03
"""Of a photo: how far a corner is from its place, in sides."""
MARGIN = 0.05
"""Of the table around a sheet on a photo, in sides."""
DESKS = ((96, 74, 55), (150, 120, 90), (70, 75, 82), (180, 178, 172), (40, 42, 48))
"""Colors of tables."""
JPEG_QUALITIES = {"scan": (50, 80), "photo": (60, 88)}


def capture_picture(picture: "Image", kind: str, seed: int, texts: list[dict[str, Any]], *, gray: bool) -> bytes:
    """The picture as a JPEG, a scan in gray if asked for. The `corners` of its texts are moved with them."""
    rng = Random(seed)
    width, height = picture.size
    ends = _draw_scan_ends(rng, width, height) if kind == "scan" else _draw_photo_ends(rng, width, height)
    matrix = _solve_homography(_list_corners(width, height), ends)
    seen = _project(picture, matrix, (255, 255, 255) if kind == "scan" else rng.choice(DESKS))
    for text in texts:
        text["corners"] = [[round(c, 1) for c in _apply(matrix, x, y)] for x, y in text["corners"]]
    seen = _add_light_and_noise(seen.convert("L").convert("RGB") if gray else seen, rng, kind)
    seen.save(out := io.BytesIO(), "JPEG", quality=rng.randint(*JPEG_QUALITIES[kind]))
    return out.getvalue()


def _draw_scan_ends(rng: Random, width: int, height: int) -> list[tuple[float, float]]:
    """Where the corners are of a sheet that is not quite level, moved as little as keeps them inside."""
    skew = rng.uniform(-MAX_SKEW, MAX_SKEW)
    moved = [(x - skew * (y - height / 2), y + skew * (x - width / 2)) for x, y in _list_corners(width, height)]
    shrink = 1 - abs(skew) * max(width / height, height / width)
    return [(width / 2 + (x - width / 2) * shrink, height / 2 + (y - height / 2) * shrink) for x, y in moved]


def _draw_photo_ends(rng: Random, width: int, height: int) -> list[tuple[float, float]]:
    """Where the corners are of a sheet that is seen from aside."""
    inner = [
        (x * (1 - 2 * MARGIN) + width * MARGIN, y * (1 - 2 * MARGIN) + height * MARGIN)
        for x, y in _list_corners(width, height)
    ]
    return [
        (x + rng.uniform(-MAX_TILT, MAX_TILT) * width, y + rng.uniform(-MAX_TILT, MAX_TILT) * height) for x, y in inner
    ]


def _list_corners(width: int, height: int) -> list[tuple[float, float]]:
    return [(0, 0), (width, 0), (width, height), (0, height)]


def _solve_homography(starts: Corners, ends: Corners) -> Any:
    """The 3 x 3 matrix that takes four points to four others."""
    import numpy as np

    rows, sides = [], []
    for (x, y), (u, v) in zip(starts, ends, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        sides += [u, v]
    return np.append(np.linalg.solve(np.array(rows, float), np.array(sides, float)), 1.0).reshape(3, 3)


def _apply(matrix: Any, x: float, y: float) -> tuple[float, float]:
    u, v, w = matrix @ (x, y, 1.0)
    return float(u / w), float(v / w)


def _project(picture: "Image", matrix: Any, around: tuple[int, int, int]) -> "Image":
    """The picture through the matrix, on a ground of one color."""
    import numpy as np
    from PIL import Image

    back = np.linalg.inv(matrix)
    how: dict[str, Any] = {"method": Image.Transform.PERSPECTIVE, "data": (back / back[2, 2]).flatten()[:8].tolist()}
    seen = picture.transform(picture.size, resample=Image.Resampling.BICUBIC, **how)
    sheet = Image.new("L", picture.size, 255).transform(picture.size, **how)
    return Image.composite(seen, Image.new("RGB", picture.size, around), sheet)


def _add_light_and_noise(seen: "Image", rng: Random, kind: str) -> "Image":
    """Uneven light on a photo, less contrast of a scan; the blur of a lens, and grain."""
    import numpy as np
    from PIL import Image, ImageFilter

    blurred = seen.filter(ImageFilter.GaussianBlur(rng.uniform(0.2, 0.6)))
    level = np.asarray(blurred, float)
    rows, columns = np.mgrid[0 : seen.height, 0 : seen.width]
    slope = rng.uniform(-0.12, 0.12) * rows / seen.height + rng.uniform(-0.12, 0.12) * columns / seen.width
    light = (0.93 + slope)[..., None] if kind == "photo" else rng.uniform(0.94, 1.0)
    grain = np.random.default_rng(rng.getrandbits(32)).normal(0, rng.uniform(1.5, 5), level.shape[:2])[..., None]
    return Image.fromarray(np.clip(level * light + grain + (0 if kind == "photo" else 8), 0, 255).astype("uint8"))
