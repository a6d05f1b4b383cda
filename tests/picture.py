"""Take the picture of the committed page's top for the README: ``python tests/picture.py``.

Needs Chromium. The picture carries the evidence digest of the page, and ``tests/test_page.py`` holds it to the records.
"""

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo

ROOT = Path(__file__).parents[1]
PICTURE = ROOT / "docs" / "report.png"
PAGE = ROOT / "reports" / "index.html"
KEY = "evidence-digest"
SIZE = (1280, 1037)  # pixels: as wide as a desk's window, down to the first tools of the table


def digest() -> str | None:
    """Return the evidence digest of the page that the picture was taken of, None where it carries none."""
    with Image.open(PICTURE) as picture:
        return picture.info.get(KEY)


def take(browser: str) -> None:
    """Write the picture of the committed page, by day. Raises CalledProcessError where the browser fails."""
    (evidence,) = re.findall(rf'<meta name="{KEY}" content="([0-9a-f]+)">', PAGE.read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as folder:
        shot = Path(folder) / "shot.png"
        subprocess.run(
            [browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
             f"--user-data-dir={folder}/profile", f"--window-size={SIZE[0]},{SIZE[1]}", f"--screenshot={shot}",
             PAGE.as_uri()],
            check=True, capture_output=True, timeout=120,
        )  # fmt: skip
        carried = PngInfo()
        carried.add_text(KEY, evidence)
        with Image.open(shot) as picture:
            picture.convert("RGB").save(PICTURE, pnginfo=carried, optimize=True)


if __name__ == "__main__":
    found = shutil.which("chromium") or shutil.which("google-chrome")
    if found is None:
        sys.exit("no browser here: on Debian and Ubuntu, apt install chromium")
    take(found)
