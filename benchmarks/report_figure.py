# SPDX-License-Identifier: Apache-2.0
"""Take the picture of a report's page that the README shows.

    enosc examples/digits.py --target hybrid
    python benchmarks/report_figure.py build/digits-hybrid/report.html docs/figures/report_page.png

Needs a Chromium on the path, or named by ENOS_CHROMIUM, and Pillow.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

_NAMES = ("chromium", "chromium-browser", "google-chrome", "chromium-headless-shell")
_SIZE = (1240, 1640)


def take(page: Path, picture: Path, chromium: str) -> None:
    """Write what a window of the page shows, in the light scheme, as a PNG with a palette."""
    with tempfile.TemporaryDirectory() as folder:
        shot = Path(folder) / "shot.png"
        subprocess.run(
            [
                chromium,
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--hide-scrollbars",
                f"--window-size={_SIZE[0]},{_SIZE[1]}",
                f"--screenshot={shot}",
                page.resolve().as_uri(),
            ],
            check=True,
            capture_output=True,
        )
        with Image.open(shot) as image:
            reduced = image.convert("RGB").quantize(
                256, method=Image.Quantize.MAXCOVERAGE, kmeans=3, dither=Image.Dither.NONE
            )
    reduced.save(picture, optimize=True)


def main() -> int:
    """Run the command; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("page", type=Path, help="a report.html")
    parser.add_argument("picture", type=Path, help="the PNG to write")
    arguments = parser.parse_args()
    found = (shutil.which(name) for name in _NAMES)
    chromium = os.environ.get("ENOS_CHROMIUM") or next(filter(None, found), None)
    if chromium is None:
        print(f"no Chromium on the path ({', '.join(_NAMES)})", file=sys.stderr)
        return 1
    take(arguments.page, arguments.picture, chromium)
    print(f"{arguments.picture}: {arguments.picture.stat().st_size / 1000:.0f} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
