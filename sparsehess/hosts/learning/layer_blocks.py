"""`LayerBlocks`: a matrix that is zero but for a block of each layer of a model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial

import numpy as np

from sparsehess.errors import InputError
from sparsehess.operators.direct_sum import DirectSum
from sparsehess.operators.eigenvalues import Eigenvalues, Inertia, check_which, select_first
from sparsehess.operators.operator import Operator
from sparsehess.operators.structure import Exact, Spectral
from sparsehess.operators.wanted import Wanted
from sparsehess.runtime import PETSc, destroy
from sparsehess.runtime.row_layout import Layout


class LayerBlocks(Operator):
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
    ) -> None:
        self.parts, self.variables, self.uncovered = dict(parts), dict(variables), tuple(uncovered)
        self._sum = DirectSum([*self.parts.values()], owned=True)
        self._make_shell(Layout.from_size(n, self._sum.comm))
        rows = [self.variables[name][part.layout.start : part.layout.stop] for name, part in self.parts.items()]
        template, self._inside = self.mat.createVecRight(), self._sum.mat.createVecRight()
        index = PETSc.IS().createGeneral(np.concatenate(rows).astype(PETSc.IntType), comm=self.comm)
        self._scatter = PETSc.Scatter().create(template, index, self._inside, None)
        destroy(index, template)

    def _repr_facts(self) -> Iterator[str]:
        """Yield what the line says. Not collective."""
        yield from super()._repr_facts()
        if self.uncovered:
            yield f"zero in {', '.join(self.uncovered[:3])}{' and others' * (len(self.uncovered) > 3)}"

    @property
    def missing(self) -> int:
        """How many variables are in no layer."""
        return self.n - self._sum.n

    def _placed(
        self, function: Callable[[np.ndarray], np.ndarray], vector: np.ndarray, rest: np.ndarray
    ) -> np.ndarray:
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
    def diagonal_is_exact(self) -> bool:
        """Whether those of all layers are. Collective."""
        return self._sum.diagonal_is_exact

    def diagonal_rounding(self) -> np.ndarray:
        """Return (n_local,) how far rounding may have moved `diagonal`.

        Collective.
        """
        zero = np.zeros(self.layout.n_local)
        return self._placed(lambda _: self._sum.diagonal_rounding(), zero, zero)

    def total(self, f: Spectral) -> Exact[float] | None:
        """Return the trace of f(H): those of the layers, and f of a zero for each variable in none.

        Collective.
        """
        told, rest = self._sum.total(f), self._of_missing(f)
        return None if told is None else replace(told, value=told.value + self.missing * rest)

    def entries(self, f: Spectral) -> Exact[np.ndarray] | None:
        """Return the diagonal (n_local,) of f(H): those of the layers, and f of zero for variables in none.

        Collective.
        """
        told, rest = self._sum.entries(f), self._of_missing(f)
        if told is None:
            return None
        zero, others = np.zeros(self.layout.n_local), np.full(self.layout.n_local, rest)
        value, rounding = told.value, told.rounding
        return replace(
            told,
            value=self._placed(lambda _: value, zero, others),
            rounding=self._placed(lambda _: rounding, zero, zero),
        )

    def _of_missing(self, f: Spectral) -> float:
        """Return the function of the zeros that variables in no layer are."""
        return float(f(np.zeros(1))[0]) if self.missing else 0.0

    @property
    def knows_counts(self) -> bool:
        """Whether all layers know theirs. Collective the first time."""
        return self._sum.knows_counts

    def counts(self, below: np.ndarray) -> np.ndarray:
        """Return how many eigenvalues are below each of some numbers.

        Collective.
        """
        return self._sum.counts(below) + self.missing * (np.asarray(below) > 0)

    def count(self, below: float) -> int:
        """Return how many eigenvalues are below a number.

        Collective.
        """
        return int(self.counts(np.array([float(below)]))[0])

    def spectrum(self, k: int = 6, which: str = "smallest") -> np.ndarray:
        """Return k eigenvalues; see `Operator.spectrum`.

        Collective.
        """
        check_which(k, which)
        zeros = np.zeros(min(k, self.missing))
        return select_first(np.concatenate([self._sum.spectrum(k, which), zeros]), k, which)

    def inertia(self, zero: float | None = None) -> Inertia:
        """Return the inertia: that of the layers, and a zero for each variable in none.

        Collective. See `Operator.inertia`.
        """
        found = self._sum.inertia(zero)
        return replace(found, zero=found.zero + self.missing)

    def powers(self, most: int) -> np.ndarray:
        """Return (most + 1,) traces of powers of H from 0 on.

        Collective.
        """
        return self._sum.powers(most) + self.missing * (np.arange(most + 1) == 0)

    @property
    def knows_pairs(self) -> bool:
        """Whether all layers know theirs. Collective the first time."""
        return self._sum.knows_pairs

    def pairs(self, wanted: Wanted) -> tuple[np.ndarray, np.ndarray]:
        """Return (eigenvalues (m,), orthonormal eigenvectors (n_local, m)) that are wanted, ascending.

        Collective. Of variables in no layer each is one, of eigenvalue zero.
        """
        values, columns = self._sum.pairs(wanted)
        zero = np.zeros(self.layout.n_local)
        placed = [self._placed(partial(_given, column), zero, zero) for column in columns.T]
        # Where the first variables in no layer are.
        there = self._placed(np.zeros_like, zero, np.ones(self.layout.n_local)) > 0
        own = np.flatnonzero(there)[: wanted.k] + self.layout.start
        units = np.sort(np.concatenate(self.comm.allgather(own)))[: wanted.k]
        rows = np.arange(self.layout.start, self.layout.stop)
        placed += [(rows == unit).astype(np.float64) for unit in units]
        every = np.concatenate([values, np.zeros(len(units))])
        chosen = wanted.first(every, np.arange(len(every)))
        out = np.empty((self.layout.n_local, len(chosen)), order="F")
        for j, number in enumerate(chosen):
            out[:, j] = placed[number]
        return every[chosen], out

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
        errors = np.append(every.rounding(), 0.0)
        return Eigenvalues(self.comm, np.append(every.values, 0.0), np.append(every.counts, own), errors)

    def logdet(self, shift: float = 0.0) -> float:
        """Return log |det (H + shift I)|, -inf where it is singular; `inertia` tells the sign.

        Collective.
        """
        if self.missing and not shift:
            return -np.inf
        return self._sum.logdet(shift) + (self.missing * float(np.log(abs(shift))) if self.missing else 0.0)

    def function(self, f: Callable[[np.ndarray], np.ndarray]) -> LayerBlocks:
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
        except BaseException:  # raised on every rank
            for one in made.values():
                one.close()
            raise
        return LayerBlocks(made, self.variables, self.n)

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

    @property
    def applies_inverse(self) -> bool:
        """Whether those of all layers are by no iterations. Collective the first time."""
        return self._sum.applies_inverse

    def apply_inverse(self, b: np.ndarray, shift: float) -> np.ndarray:
        """Return about (H + shift I)⁻¹ b (n_local, m), of the layers; see `Operator.apply_inverse`.

        Collective. Variables in no layer are divided by the shift.
        """
        rest = 1 / np.float64(shift)  # infinite where there is none
        return np.stack(
            [
                self._placed(lambda own: self._sum.apply_inverse(own[:, None], shift)[:, 0], column, rest * column)
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


def _given(own: np.ndarray, _: np.ndarray) -> np.ndarray:
    """Return numbers that are there already, whatever the layers' variables are."""
    return own
