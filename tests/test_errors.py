"""Which mistakes are the user's."""

import pytest

from sparsehess import errors
from sparsehess.errors import InputError, StackError


@pytest.mark.parametrize("error, kind", [(OSError(28, "No space left"), InputError), (MemoryError(), StackError)])
def test_a_full_disk_or_memory_is_no_bug(error, kind):
    told = errors.rebuild(*errors.describe(error, 3))
    assert isinstance(told, kind) and told.status == 2 and str(told).startswith(f"rank 3: {type(error).__name__}")
