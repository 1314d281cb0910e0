"""Random vectors are of their rows alone."""

from types import SimpleNamespace

import numpy as np
import pytest

import sparsehess as sh
from sparsehess.runtime import (
    random_numbers,
)


def test_random_vectors_are_of_their_row_alone():
    def layout(rank, starts):
        return sh.Layout(SimpleNamespace(rank=rank, size=len(starts) - 1), np.array(starts))

    one, two = layout(0, [0, 300, 1000]), layout(1, [0, 300, 1000])
    whole = layout(0, [0, 1000])
    joined = np.concatenate([random_numbers.draw_uniform(one, 5), random_numbers.draw_uniform(two, 5)])
    values = random_numbers.draw_uniform(whole, 5)
    assert np.array_equal(joined, values)
    assert -1 < values.min() < -0.98 and 0.98 < values.max() < 1
    assert abs(values.mean()) < 0.05 and np.var(values) == pytest.approx(1 / 3, rel=0.1)
    assert abs(np.corrcoef(values, random_numbers.draw_uniform(whole, 6))[0, 1]) < 0.1
    assert np.abs(random_numbers.draw_signed(whole, 1)).min() >= 0.5
