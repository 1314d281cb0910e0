"""`ModelShare`: a model at one precision, with this rank's samples and the loss on them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import numpy as np

from sparsehess.errors import InputError
from sparsehess.runtime.replicated_arrays import of_all_ranks

if TYPE_CHECKING:
    from mpi4py import MPI

# (first, last) of samples that are worked on at a time.
Chunk: TypeAlias = tuple[int, int]

# Arrays of some samples: the inputs, the targets last.
SampleArrays: TypeAlias = list[np.ndarray]


class ModelShare(ABC):
    """A model at one precision, with this rank's samples and the loss on them.

    Vectors are NumPy's, of float64. Until `weigh` is called, the loss is a sum over samples.

    Parameters
    ----------
    slices
        Which variables the chosen parameters are: a slice for each name, one after another.
    x
        (n,) where the parameters are at first.
    samples
        How many samples this rank has.

    Attributes
    ----------
    slices, x, samples
        As given.
    chunk
        How many samples are worked on at a time, at most.
    is_sum
        Whether the loss is a sum over samples, not a mean.
    """

    def __init__(self, slices: Mapping[str, slice], x: np.ndarray, samples: int) -> None:
        self.slices, self.x = dict(slices), x
        self.samples = self.chunk = samples
        self.is_sum, self._part = True, 1.0
        self._weights: dict[Chunk, float] | None = None

    def weigh(self, total: int, reduction: str) -> None:
        """Set the weight of a sample from the number of samples of all ranks and the kind of the loss."""
        self.is_sum = reduction == "sum"
        self._part = 1 / total

    def set_weights(self, weights: Mapping[Chunk, float]) -> None:
        """Set what part of the whole the loss of each chunk is; those without a weight are left out."""
        self._weights = dict(weights)

    @property
    def sample_weight(self) -> float:
        """By what the loss of one sample is multiplied in the whole, where all have the same weight."""
        return 1.0 if self.is_sum else self._part

    def weight(self, first: int, last: int) -> float:
        """Return by what the loss of a chunk of samples is multiplied in the whole."""
        if self._weights is not None:
            return self._weights[first, last]
        return 1.0 if self.is_sum else (last - first) * self._part

    def chunks(self) -> list[Chunk]:
        """Return (first, last) of chunks of samples that have a weight, about as large as each other."""
        if not self.samples:
            return []
        edges = np.linspace(0, self.samples, -(-self.samples // self.chunk) + 1).astype(int).tolist()
        return [chunk for chunk in pairwise(edges) if self._weights is None or self._weights[chunk] != 0]

    @abstractmethod
    def settle_loss(self, of_outputs: bool) -> None:
        """Refuse a loss that depends on the parameters by what does not move with them, or by itself."""

    @abstractmethod
    def constants(self) -> dict[str, np.ndarray]:
        """Return frozen parameters, buffers and the like, by name, each as (m,) float64."""

    @abstractmethod
    def pick(self, samples: np.ndarray) -> SampleArrays:
        """Return the arrays of some samples (m,), the targets last."""

    @abstractmethod
    def value(self, x: np.ndarray, arrays: SampleArrays) -> float:
        """Return the loss at x (n,) of samples, of this rank or others, as the user's function has it."""

    def value_anew(self, x: np.ndarray, arrays: SampleArrays) -> float:
        """Return `value` by calling the user's functions anew, not what was compiled of them."""
        return self.value(x, arrays)

    @abstractmethod
    def value_and_slope(self, x: np.ndarray, arrays: SampleArrays) -> tuple[float, np.ndarray]:
        """Return the loss at x (n,) of such samples, and its gradient (n,)."""

    @abstractmethod
    def weight_of(self, weight: Callable[[Any], Any], arrays: SampleArrays) -> Any:
        """Return weight(targets) of such samples."""

    @abstractmethod
    def energy(self, x: np.ndarray) -> float:
        """Return this rank's part of the whole loss at x (n,)."""

    @abstractmethod
    def gradient(self, x: np.ndarray) -> np.ndarray:
        """Return (n,) this rank's part of the gradient at x (n,)."""

    def advice(self) -> str:
        """Return what in the model makes samples depend on chance or on each other; or nothing."""
        return ""


# A host's kind of share.
Share = TypeVar("Share", bound=ModelShare)


def weigh_shares(comm: MPI.Comm, reduction: str, *shares: ModelShare) -> int:
    """Weigh the samples of shares that differ by precision alone; return how many all ranks have.

    Collective.

    Raises
    ------
    InputError
        No rank has a sample; or ranks have other models than each other.
    """
    _require_one_model(comm, shares[0])
    total: int = comm.allreduce(shares[0].samples)
    if not total:
        raise InputError("no rank has a sample")
    for share in shares:
        share.weigh(total, reduction)
    return total


def _require_one_model(comm: MPI.Comm, share: ModelShare) -> None:
    """Raise InputError on all ranks where they have other models. Collective."""
    pieces = {name: share.x[piece] for name, piece in share.slices.items()} | share.constants()
    ends = np.cumsum([len(piece) for piece in pieces.values()])
    of_all_ranks(
        comm,
        np.concatenate([*pieces.values(), np.zeros(0)]),
        "the models",
        "every rank gives the same parameters: make them with the same seed, or load them from one file",
        lambda at: f"a value of {[*pieces][int(np.searchsorted(ends, at, side='right'))]}",
    )


def linear_cost(cost: Callable[[int], int], few: int, many: int) -> tuple[int, int]:
    """Return (fixed, each) of a cost that is linear in the number of samples, from two of its values.

    Not collective.
    """
    low, high = cost(few), cost(many)
    each = max(1, (high - low) // max(1, many - few))
    return max(0, low - each * few), each
