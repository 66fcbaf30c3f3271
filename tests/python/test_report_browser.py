"""A report in a browser: drawn, within the width of a phone, in light and in dark.

Needs Chromium (Debian: chromium-headless-shell or chromium); skipped where there is none.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from html import unescape
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread
from synthetic_routing import write_run

import report

NAMES = (
    "chromium-headless-shell",
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
)
BROWSER = next(filter(None, map(shutil.which, NAMES)), None)

pytestmark = pytest.mark.skipif(
    BROWSER is None, reason=f"no browser: none of {', '.join(NAMES)} is on PATH"
)

PHONE, DESK = (360, 740), (1280, 900)  # CSS pixels
COLOURS = {"light": 1, "dark": 0}  # Chromium's preferredColorScheme

# Appended to a copy of the page: it has no script itself.
MEASURE = """
<script>
addEventListener("load", () => {
  const page = document.documentElement, wide = page.clientWidth;
  const beyond = [...document.querySelectorAll("body *")].filter((element) => {
    const scrolls = element.closest(".scroll");
    return (!scrolls || scrolls === element) && element.getBoundingClientRect().right > wide + 1;
  });
  const result = {
    width: wide,
    scroll: page.scrollWidth,
    height: page.scrollHeight,
    beyond: beyond.map((element) => element.outerHTML.slice(0, 80)),
    images: [...document.images].map((image) => [image.naturalWidth, image.clientWidth]),
    smallest: Math.min(...[...document.querySelectorAll("main *")].map(
      (element) => parseFloat(getComputedStyle(element).fontSize))),
    anchors: [...document.querySelectorAll("nav a")].map(
      (link) => document.getElementById(link.hash.slice(1)) !== null),
  };
  const place = document.createElement("pre");
  place.id = "measured";
  place.textContent = JSON.stringify(result);
  document.body.append(place);
});
</script>
"""


def browse(page: Path, size: tuple[int, int], colours: str, *options: str) -> str:
    """Standard output of one call; the profile is the test's own."""
    command = [
        BROWSER,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        f"--user-data-dir={page.parent / 'profile'}",
        f"--window-size={size[0]},{size[1]}",
        f"--blink-settings=preferredColorScheme={COLOURS[colours]}",
        # The page must need no network: there is none.
        "--proxy-server=127.0.0.1:9",
        "--virtual-time-budget=4000",
        *options,
        page.as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    names = ("bible", "python", "a-data-source-with-quite-a-long-name")
    write_run(folder, sources=names, experts=(24, 24), slots=(4, 4), vocabulary=30, extras=True)
    arguments = sys.argv
    sys.argv = ["report.py", str(folder), "--min-count", "8"]
    try:
        assert report.main() == 0
    finally:
        sys.argv = arguments
    return folder / "report.html"


@pytest.mark.parametrize("size", [PHONE, DESK], ids=["phone", "desk"])
def test_fits_the_width(page, size):
    copy = page.with_name(f"measured-{size[0]}.html")
    text = page.read_text(encoding="utf-8")
    copy.write_text(text.replace("</body>", f"{MEASURE}</body>"), encoding="utf-8")
    dom = browse(copy, size, "light", "--dump-dom")
    found = json.loads(unescape(re.search(r'<pre id="measured">(.*?)</pre>', dom, re.S)[1]))
    assert found["width"] == size[0]
    assert found["beyond"] == [] and found["scroll"] <= size[0]
    assert found["height"] > 3000
    assert len(found["images"]) == text.count("<img") == 10
    for natural, shown in found["images"]:
        assert natural > 0 and shown > 0.8 * min(size[0], 600)
    assert found["smallest"] >= 13
    assert found["anchors"] == [True] * 10


@pytest.mark.parametrize("colours", COLOURS)
@pytest.mark.parametrize("size", [PHONE, DESK], ids=["phone", "desk"])
def test_is_drawn(page, size, colours):
    shot = page.with_name(f"{size[0]}-{colours}.png")
    tall = (size[0], 6000)
    browse(page, tall, colours, f"--screenshot={shot}")
    pixels = imread(shot)[..., :3].mean(-1)  # brightness, 0 to 1
    assert pixels.shape == (tall[1], tall[0])
    paper = np.median(pixels)
    assert paper > 0.95 if colours == "light" else paper < 0.15
    # Text and figures stand out from the paper all the way down, and are not one block.
    different = np.abs(pixels - paper) > 0.3
    for part in np.array_split(different, 6):
        assert 0.005 < part.mean() < 0.6
    # No figure is a card of the other scheme: most rows are mostly paper.
    assert (np.abs(pixels - paper) < 0.2).mean() > 0.6
