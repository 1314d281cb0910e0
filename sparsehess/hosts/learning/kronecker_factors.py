"""Curvature of a model layer by layer: `Layers`, and the Kronecker factors that all hosts of learning share.

A layer s = W a (with the bias as a last column of W and a 1 as last entry of a) that a sample goes through at R
positions has the gradient Σ_r g_r a_rᵀ by W, g_r the gradient by s_r. With row-major vectors it is Σ_r g_r ⊗ a_r.

Sources: Martens, Grosse 2015 (linear layers); Grosse, Martens 2016 (convolutions); George et al. 2018 (eigenvalues
corrected); Eschenhagen et al. 2023, section 3 (positions: expand, reduce).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping

import numpy as np

from sparsehess.errors import InputError
from sparsehess.hosts.learning.sample_shares import REDUCTIONS
from sparsehess.operators.direct_sum import DirectSum
from sparsehess.operators.eigen_corrected import EigenCorrected, eigenbasis
from sparsehess.operators.eigenvalues import Eigenvalues
from sparsehess.operators.kronecker import Kronecker
from sparsehess.operators.matrix_vectors import Grid
from sparsehess.operators.operator import Operator
from sparsehess.operators.tall_skinny_qr import summed
from sparsehess.pattern import Layout
from sparsehess.runtime import PETSc, agreement, destroy
from sparsehess.runtime.citations import cite
from sparsehess.runtime.validation import whole_number

CURVATURES = ("gauss-newton", "empirical fisher")
SHARING = ("expand", "reduce")

# Arrays of the size of a layer's inputs and slopes at a time.
ARRAYS = 4


class Factors(ABC):
    """Factors of all layers from this rank's samples, summed over ranks.

    A host finds the layers and shows what they see. Of its arrays `@`, `T`, `swapaxes`, `sum`, `mean` are used.

    Parameters
    ----------
    comm
        Communicator.
    curvature, sharing, reduction, memory
        As for `torch_factors.kfac`.

    Attributes
    ----------
    layers
        For each layer an object with `name`; `outer` and `inner`, the sizes of G and A; `variables`
        (outer × inner,), which of the model's they are; and `covered`, the names of its parameters.
    names, n
        Of the parameters that are the variables; how many variables there are.
    total
        Samples of all ranks.
    weight
        By what the loss of one sample is multiplied in the whole.
    """

    layers: list
    names: list[str]
    n: int
    total: int
    weight: float

    def __init__(self, comm, *, curvature: str, sharing: str, reduction: str, memory: int):
        with agreement(comm):
            for value, known in ((curvature, CURVATURES), (sharing, SHARING), (reduction, REDUCTIONS)):
                if value not in known:
                    raise InputError(f"{value!r} is none of {', '.join(known)}")
            whole_number(memory, "memory", 1)
        self.comm, self._curvature, self._sharing, self._memory = comm, curvature, sharing, memory

    @abstractmethod
    def _passes(self, visit: Callable) -> None:
        """Call visit(number, a, every g) of each layer for each chunk: a (samples, positions, inner), g alike."""

    @abstractmethod
    def _brought(self, array: np.ndarray):
        """Return an array of the host's."""

    @abstractmethod
    def _fetched(self, array) -> np.ndarray:
        """Return an array of the host's as one of NumPy's."""

    def _gram(self, a) -> np.ndarray:
        """Return the sum of a aᵀ over samples and positions."""
        flat = a.reshape(-1, a.shape[-1])
        return self._fetched(flat.T @ flat)

    def _factors(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return (G, A) of each layer."""
        pairs = [(np.zeros((one.outer,) * 2), np.zeros((one.inner,) * 2)) for one in self.layers]

        def add(number, a, every):
            G, A = pairs[number]
            positions = a.shape[1]
            if self._sharing == "reduce":
                a, positions, every = a.mean(1, keepdims=True), 1, [g.sum(1, keepdims=True) for g in every]
            A += self._gram(a) / (self.total * positions)
            for g in every:
                G += self.weight * self._gram(g)

        with agreement(self.comm):
            self._passes(add)
        return [(summed(self.comm, G), summed(self.comm, A)) for G, A in pairs]

    def kfac(self) -> Layers:
        """Return G ⊗ A of every layer.

        Collective.
        """
        cite("kfac")
        return self._placed([Kronecker((G, A), comm=self.comm) for G, A in self._factors()])

    def ekfac(self) -> Layers:
        """Return the same eigenvectors with the diagonal of QᵀHQ.

        Collective.
        """
        cite("ekfac")
        bases = [(eigenbasis(self.comm, G, "G")[1], eigenbasis(self.comm, A, "A")[1]) for G, A in self._factors()]
        squares = [np.zeros((layer.outer, layer.inner)) for layer in self.layers]
        turned = [[self._brought(Q) for Q in pair] for pair in bases]

        def add(number, a, every):
            QG, QA = turned[number]
            a = a @ QA
            for g in every:
                squares[number] += self.weight * self._fetched(self._squares(g @ QG, a))

        with agreement(self.comm):
            self._passes(add)
        made = []
        for (QG, QA), s in zip(bases, squares, strict=True):
            own = Grid(len(QG), len(QA), self.comm).own_rows
            made.append(EigenCorrected(QG, QA, summed(self.comm, s)[own].ravel(), comm=self.comm))
        return self._placed(made)

    def _squares(self, g, a):
        """Return the sum over samples of (Σ_r g_r a_rᵀ)², entry by entry."""
        if a.shape[1] == 1:
            return (g[:, 0] ** 2).T @ a[:, 0] ** 2
        size = max(1, self._memory // (ARRAYS * 8 * g.shape[2] * a.shape[2]))
        parts = (slice(begin, begin + size) for begin in range(0, len(a), size))
        return sum(((g[part].swapaxes(1, 2) @ a[part]) ** 2).sum(0) for part in parts)

    def _placed(self, made: list) -> Layers:
        covered = {name for layer in self.layers for name in layer.covered}
        return Layers(
            {layer.name: part for layer, part in zip(self.layers, made, strict=True)},
            {layer.name: layer.variables for layer in self.layers},
            self.n,
            uncovered=tuple(name for name in self.names if name not in covered),
        )


def roots(L: np.ndarray) -> np.ndarray:
    """Return vectors v (k, samples, c) with Σ v vᵀ = L (samples, c, c), of each sample the loss's Hessian.

    Not collective.

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


class Layers(Operator):
    """H is zero but for a block of each layer, and in the order of the model's variables.

    Collective to make and to use. Eigenvalues, solves and determinants are those of the blocks. K-FAC and EKFAC
    have this form; with a shift it is a preconditioner of the model's curvature.

    Parameters
    ----------
    parts
        An operator for each layer; they belong to this.
    variables
        (m,) for each layer: which of the model's variables the rows of its operator are, the same on every rank.
    n
        Variables of the model.
    uncovered
        Names of parameters that are in no layer, whose rows are zero.

    Attributes
    ----------
    parts, variables, uncovered
        As given.
    """

    def __init__(
        self,
        parts: Mapping[str, Operator],
        variables: Mapping[str, np.ndarray],
        n: int,
        *,
        uncovered: tuple[str, ...] = (),
    ):
        self.parts, self.variables, self.uncovered = dict(parts), dict(variables), tuple(uncovered)
        self._sum = DirectSum([*self.parts.values()], owned=True)
        self._shell(Layout.from_size(n, self._sum.comm))
        rows = [self.variables[name][part.layout.start : part.layout.stop] for name, part in self.parts.items()]
        template, self._inside = self.mat.createVecRight(), self._sum.mat.createVecRight()
        index = PETSc.IS().createGeneral(np.concatenate(rows).astype(PETSc.IntType), comm=self.comm)
        self._scatter = PETSc.Scatter().create(template, index, self._inside, None)
        destroy(index, template)

    @property
    def missing(self) -> int:
        """How many variables are in no layer."""
        return self.n - self._sum.n

    def _placed(self, function: Callable[[np.ndarray], np.ndarray], vector: np.ndarray, rest: np.ndarray):
        """Return a map of the layers' variables, and something else (n_local,) for the others."""
        x, y = self._vec(vector), self._vec(rest)
        self._scatter.scatter(x, self._inside, mode=PETSc.ScatterMode.FORWARD)
        self._inside.setArray(function(self._inside.getArray().copy()))
        self._scatter.scatter(self._inside, y, mode=PETSc.ScatterMode.REVERSE)
        out = y.getArray().copy()
        destroy(x, y)
        return out

    def product(self, vector: np.ndarray) -> np.ndarray:
        """Return H v (n_local,).

        Collective.
        """
        return self._placed(self._sum.product, vector, np.zeros_like(vector))

    def diagonal(self) -> np.ndarray:
        """Return the diagonal (n_local,).

        Collective.
        """
        zero = np.zeros(self.layout.n_local)
        return self._placed(lambda _: self._sum.diagonal(), zero, zero)

    def trace(self) -> float:
        """Return the trace.

        Collective.
        """
        return self._sum.trace()

    @property
    def knows_eigenvalues(self) -> bool:
        """Whether all layers know theirs. Collective the first time."""
        return self._sum.knows_eigenvalues

    def eigenvalues(self) -> Eigenvalues:
        """Return all eigenvalues: those of the layers, and a zero for each variable in none.

        Collective.

        Raises
        ------
        InputError
            A layer does not know its own.
        """
        every = self._sum.eigenvalues()
        if not self.missing:
            return every
        own = self.missing if self.comm.rank == 0 else 0
        return Eigenvalues(self.comm, np.append(every.values, 0.0), np.append(every.counts, own))

    def logdet(self, shift: float = 0.0) -> float:
        """Return log |det (H + shift I)|, -inf where it is singular; `inertia` tells the sign.

        Collective.
        """
        if self.missing and not shift:
            return -np.inf
        return self._sum.logdet(shift) + (self.missing * float(np.log(abs(shift))) if self.missing else 0.0)

    def function(self, f: Callable[[np.ndarray], np.ndarray]) -> Layers:
        """Return f(H) as such layers: f of their operators.

        Collective.

        Raises
        ------
        InputError
            Variables in no layer: there the matrix is zero, and f of it is of no use.
        """
        if self.missing:
            raise InputError(
                f"{self.missing} variables are in no layer ({', '.join(self.uncovered)}): choose `parameters` "
                "without them"
            )
        made: dict[str, Operator] = {}
        try:
            for name, part in self.parts.items():
                made[name] = part.function(f)
        except Exception:  # raised on every rank
            for one in made.values():
                one.close()
            raise
        return Layers(made, self.variables, self.n)

    def _solve(self, b: np.ndarray, shift: float) -> np.ndarray:
        if self.missing and not shift:
            raise InputError(
                f"{self.missing} variables are in no layer ({', '.join(self.uncovered)}), where the matrix "
                "is zero: take a shift"
            )
        return np.stack(
            [
                self._placed(lambda own: self._sum.solve(own, shift), column, column / shift if shift else column)
                for column in np.ascontiguousarray(b.T)
            ],
            axis=1,
        )

    def close(self) -> None:
        """Destroy the matrix, and the layers' operators.

        Collective.
        """
        destroy(self._scatter, self._inside)
        self._scatter = self._inside = None
        self._sum.close()
        super().close()
