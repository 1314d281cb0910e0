"""Sizes that limits are given in."""

import pytest

from sparsehess.errors import InputError
from sparsehess.service.resident.limits import parse_size


def test_sizes():
    sizes = {"500M": 500 * 2**20, "4G": 4 * 2**30, "1GiB": 2**30, "3k": 3 * 2**10}
    assert {text: parse_size(text) for text in sizes} == sizes
    # A mere number would be bytes: nobody who writes 4 means that.
    for text in ("", "G", "4", "7340032", "0", "-1M", "1e3", "4 G", "٣"):
        with pytest.raises(InputError):
            parse_size(text)
