"""Files appear whole: written beside, then renamed."""

from __future__ import annotations

import os
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replaced(path: Path):
    """Yield a name beside `path` that becomes `path` when the block ends without an error.

    Not collective.
    """
    beside = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        yield beside
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
