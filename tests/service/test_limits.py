"""Sizes that limits are given in."""

import pytest

from sparsehess.errors import InputError
from sparsehess.service.limits import parse_size


def test_sizes():
    assert [parse_size(text) for text in ("500M", "4G", "7340032", "1GiB")] == [
        500 * 2**20,
        4 * 2**30,
        7 * 2**20,
        2**30,
    ]
    for text in ("", "G", "0", "-1M", "1e3", "4 G", "٣"):
        with pytest.raises(InputError):
            parse_size(text)
