"""Kronecker factors of a model's layers, from which every host's K-FAC and EKFAC are made.

A layer s = W a (with the bias as a last column of W and a 1 as last entry of a) that a sample goes through at R
positions has the gradient Σ_r g_r a_rᵀ by W, g_r the gradient by s_r. With row-major vectors it is Σ_r g_r ⊗ a_r.

Sources: Martens, Grosse 2015 (linear layers); Grosse, Martens 2016 (convolutions); George et al. 2018 (eigenvalues
corrected); Eschenhagen et al. 2023, section 3 (positions: expand, reduce).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypedDict

import numpy as np

from sparsehess.errors import InputError
from sparsehess.hosts.learning.host_errors import explain_host_errors
from sparsehess.hosts.learning.layer_blocks import LayerBlocks
from sparsehess.hosts.learning.model_share import Share, weigh_shares
from sparsehess.hosts.learning.parameter_groups import Selection
from sparsehess.hosts.learning.product_modes import REDUCTIONS, require_one_of
from sparsehess.hosts.learning.sample_weights import WeighingOptions, weigh_samples
from sparsehess.operators.eigen_corrected import EigenCorrected, eigenbasis
from sparsehess.operators.kronecker import Kronecker
from sparsehess.operators.matrix_vectors import Grid
from sparsehess.operators.operator import Operator
from sparsehess.operators.tall_skinny_qr import sum_over_ranks
from sparsehess.runtime import agreement, communicator
from sparsehess.runtime.citations import cite
from sparsehess.runtime.validation import whole_number

if TYPE_CHECKING:
    from mpi4py import MPI

CURVATURES = ("gauss-newton", "empirical fisher")
SHARING = ("expand", "reduce")

# Arrays of the size of a layer's inputs and slopes at a time.
ARRAYS = 4

# An array of the host's, of which `@`, `T`, `swapaxes`, `sum`, `mean` are used.
HostArray = Any


class FactoredLayer(Protocol):
    """A linear or convolution layer."""

    @property
    def name(self) -> str:
        """Name of the layer."""

    @property
    def outer(self) -> int:
        """Size of G."""

    @property
    def inner(self) -> int:
        """Size of A."""

    @property
    def variables(self) -> np.ndarray:
        """(outer × inner,) which of the model's variables the layer's parameters are."""

    @property
    def covered(self) -> tuple[str, ...]:
        """Names of the layer's parameters among the variables."""


class FactorOptions(TypedDict, total=False):
    """Options of `KroneckerFactors`, which the hosts pass on; their `kfac` describes them."""

    curvature: str
    sharing: str
    reduction: str
    memory: int
    comm: MPI.Comm | None


class ModelFactorOptions(FactorOptions, total=False):
    """Options of the hosts' `kfac` and `ekfac`."""

    parameters: Selection
    device: Any


class KroneckerFactors(ABC, Generic[Share]):
    """Factors of all layers from this rank's samples, sum_over_ranks over ranks.

    Collective to make. A host finds the layers, sets `layers`, and shows what they see.

    Parameters
    ----------
    make_share
        `make_share() -> ModelShare`, the model with this rank's samples.
    name
        Name of the model, for messages.
    curvature, sharing, reduction, memory, comm
        As for `torch.kfac.kfac`.

    Attributes
    ----------
    share
        The model with this rank's samples.
    layers
        The model's layers, the same on every rank.
    total
        Number of samples of all ranks.
    """

    layers: Sequence[FactoredLayer]

    def __init__(
        self,
        make_share: Callable[[], Share],
        name: str,
        *,
        curvature: str = "gauss-newton",
        sharing: str = "expand",
        reduction: str = "mean",
        memory: int = 2**29,
        comm: MPI.Comm | None = None,
    ) -> None:
        self.comm, self.name = communicator(comm), name
        self._curvature, self._sharing, self._reduction, self._memory = curvature, sharing, reduction, memory
        with agreement(self.comm):
            for value, known in ((curvature, CURVATURES), (sharing, SHARING), (reduction, REDUCTIONS)):
                require_one_of(known, value)
            whole_number(memory, "memory", 1)
        with agreement(self.comm), explain_host_errors(name):
            self.share: Share = make_share()
            self.share.settle_loss(True)
        self.total = weigh_shares(self.comm, reduction, self.share)
        self._weight = self.share.sample_weight

    def _check_loss(self) -> None:
        """Refuse a loss that is no plain mean, or sum, over samples. Collective."""
        chunks = [*self.share.chunks()]
        weigh_samples(self.comm, self.share, [chunks], WeighingOptions(self._reduction, plain=True), self.name)

    @abstractmethod
    def _visit_chunks(self, visit: Callable[[int, HostArray, list[HostArray]], None]) -> None:
        """Call visit(number, a, every g) of each layer for each chunk: a (samples, positions, inner), g alike."""

    @abstractmethod
    def _to_host(self, array: np.ndarray) -> HostArray:
        """Return an array of the host's."""

    @abstractmethod
    def _to_numpy(self, array: HostArray) -> np.ndarray:
        """Return an array of the host's as one of NumPy's."""

    def _gram(self, a: HostArray) -> np.ndarray:
        """Return the sum of a aᵀ over samples and positions."""
        flat = a.reshape(-1, a.shape[-1])
        return self._to_numpy(flat.T @ flat)

    def _factors(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return (G, A) of each layer."""
        pairs = [(np.zeros((one.outer,) * 2), np.zeros((one.inner,) * 2)) for one in self.layers]

        def add(number: int, a: HostArray, every: list[HostArray]) -> None:
            G, A = pairs[number]
            positions = a.shape[1]
            if self._sharing == "reduce":
                a, positions, every = a.mean(1, keepdims=True), 1, [g.sum(1, keepdims=True) for g in every]
            A += self._gram(a) / (self.total * positions)
            for g in every:
                G += self._weight * self._gram(g)

        with agreement(self.comm):
            self._visit_chunks(add)
        return [(sum_over_ranks(self.comm, G), sum_over_ranks(self.comm, A)) for G, A in pairs]

    def kfac(self) -> LayerBlocks:
        """Return G ⊗ A of every layer.

        Collective.
        """
        cite("kfac")
        return self._placed([Kronecker((G, A), comm=self.comm) for G, A in self._factors()])

    def ekfac(self) -> LayerBlocks:
        """Return blocks with the eigenvectors of K-FAC's and the diagonal of QᵀHQ as eigenvalues.

        Collective.
        """
        cite("ekfac")
        bases = [(eigenbasis(self.comm, G, "G")[1], eigenbasis(self.comm, A, "A")[1]) for G, A in self._factors()]
        squares = [np.zeros((layer.outer, layer.inner)) for layer in self.layers]
        turned = [[self._to_host(Q) for Q in pair] for pair in bases]

        def add(number: int, a: HostArray, every: list[HostArray]) -> None:
            QG, QA = turned[number]
            a = a @ QA
            for g in every:
                squares[number] += self._weight * self._to_numpy(self._squares(g @ QG, a))

        with agreement(self.comm):
            self._visit_chunks(add)
        made: list[Operator] = []
        for (QG, QA), s in zip(bases, squares, strict=True):
            own = Grid(len(QG), len(QA), self.comm).own_rows
            made.append(EigenCorrected(QG, QA, sum_over_ranks(self.comm, s)[own].ravel(), comm=self.comm))
        return self._placed(made)

    def _squares(self, g: HostArray, a: HostArray) -> HostArray:
        """Return the sum over samples of (Σ_r g_r a_rᵀ)², entry by entry."""
        if a.shape[1] == 1:
            return (g[:, 0] ** 2).T @ a[:, 0] ** 2
        size = max(1, self._memory // (ARRAYS * 8 * g.shape[2] * a.shape[2]))
        parts = (slice(begin, begin + size) for begin in range(0, len(a), size))
        return sum(((g[part].swapaxes(1, 2) @ a[part]) ** 2).sum(0) for part in parts)

    def _placed(self, made: Sequence[Operator]) -> LayerBlocks:
        covered = {name for layer in self.layers for name in layer.covered}
        return LayerBlocks(
            {layer.name: part for layer, part in zip(self.layers, made, strict=True)},
            {layer.name: layer.variables for layer in self.layers},
            len(self.share.x),
            uncovered=tuple(name for name in self.share.slices if name not in covered),
        )


def root_vectors(L: np.ndarray) -> np.ndarray:
    """Return vectors v (k, samples, c) with Σ v vᵀ = L, the Hessian of each sample's loss by its outputs.

    Not collective.

    Parameters
    ----------
    L
        (samples, c, c), symmetric but for rounding.

    Raises
    ------
    InputError
        The loss is not convex in the outputs.
    """
    sizes, Q = np.linalg.eigh((L + L.swapaxes(1, 2)) / 2)
    largest = np.abs(sizes).max()
    if sizes.min() < -1e-9 * largest:
        raise InputError(
            "the loss is not convex in the outputs, and has no Gauss–Newton factors: take the empirical Fisher's"
        )
    used = (sizes > 1e-15 * largest).any(0)
    used[-1] = True  # of a loss that is linear: one vector, of zeros
    scaled = Q * np.sqrt(np.maximum(sizes, 0))[:, None, :]
    return np.moveaxis(scaled[:, :, used], 2, 0)
