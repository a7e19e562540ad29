"""Takes README's picture of a run's page: python docs/screenshot.py RUN/report.html > docs/report.png

Needs Chromium on PATH and the extra `pictures`. The picture has at most 200 kB: 64 colors are enough for a page of text.
"""

import io
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

SIZE = (1180, 1000)


def main() -> None:
    from PIL import Image

    page = Path(sys.argv[1]).resolve(strict=True)
    browser = next(
        (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
    )
    if browser is None:
        sys.exit("no Chromium on PATH: install chromium or google-chrome")
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder) / "page.png"
        command = (browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
                   f"--window-size={SIZE[0]},{SIZE[1]}", f"--screenshot={picture}", page.as_uri())  # fmt: skip
        subprocess.run(command, check=True, capture_output=True)
        with Image.open(picture) as taken:
            small = taken.convert("RGB").quantize(64)
    written = io.BytesIO()
    small.save(written, "PNG", optimize=True)
    if len(written.getvalue()) > 200_000:
        sys.exit(
            f"the picture has {len(written.getvalue()):,} bytes, more than 200,000: take a smaller part of the page"
        )
    sys.stdout.buffer.write(written.getvalue())


if __name__ == "__main__":
    main()
