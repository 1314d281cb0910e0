"""Pages in a real browser: headless Chromium, without a network."""

import re
import shutil
import subprocess

import pytest

BINARIES = ("chromium", "chromium-browser", "google-chrome")
QUIET = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--enable-logging=stderr")
SETTLED = ("--virtual-time-budget=2000",)


def chromium():
    """Return the browser's path; the test is skipped where there is none."""
    found = next(filter(None, map(shutil.which, BINARIES)), None)
    if found is None:
        pytest.skip("needs chromium")
    return found


def _run(page, folder, *words):
    command = [chromium(), *QUIET, f"--user-data-dir={folder / 'browser'}", *words]
    done = subprocess.run([*command, page.as_uri()], capture_output=True, text=True, timeout=120, check=True)
    told = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return done.stdout, told


def opened(page, folder, milliseconds=2000):
    """Return the page as it is after its scripts have run for a while, and the lines of its console."""
    return _run(page, folder, "--dump-dom", f"--virtual-time-budget={milliseconds}")


def screenshot(page, folder, height=3000):
    """Return (rows, columns, 3) the page as it is seen."""
    from matplotlib import image

    picture = folder / "screen.png"
    _run(page, folder, *SETTLED, f"--screenshot={picture}", f"--window-size=1000,{height}")
    return image.imread(picture)[..., :3]


def printed(page, folder):
    """Return the number of pages on paper."""
    paper = folder / "paper.pdf"
    _run(page, folder, *SETTLED, f"--print-to-pdf={paper}", "--no-pdf-header-footer")
    return len(re.findall(rb"/Type\s*/Page\b", paper.read_bytes()))
