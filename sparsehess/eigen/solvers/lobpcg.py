"""LOBPCG: the ends of a spectrum by a preconditioner, block by block, without a factorization.

SLEPc's multiplies A and M with all three of its blocks in every iteration, and PETSc's multigrid takes one vector
after the other. Here images follow by combination, products and V-cycles take a whole block, and a solve takes
less than half of the time (`benchmarks/eigenpairs_vs_peers.py elasticity`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np

from sparsehess.eigen.problem.block_vectors import combine, dots, norms, orthonormalize
from sparsehess.eigen.problem.panel_products import product
from sparsehess.eigen.problem.petsc_options import PREFIX
from sparsehess.eigen.problem.problem import EigenProblem
from sparsehess.eigen.problem.slepc_blocks import require_finite
from sparsehess.eigen.solvers.preconditioned_solver import PreconditionedSolver
from sparsehess.eigen.solvers.solve_monitor import OnRestart
from sparsehess.errors import InputError
from sparsehess.runtime import PETSc, agreement, on_root
from sparsehess.runtime.citations import cite
from sparsehess.runtime.random_numbers import draw_uniform

# More vectors than this in a block cost more in dense algebra than they save in iterations.
_BLOCK = 64

# So many iterations one after the other in which the preconditioner leaves fewer than this part of the
# directions independent: it is too near to singular.
_STUCK, _INDEPENDENT = 3, 0.25

# New directions of which no more than this part is new have lost so much of their orthogonality to rounding.
_CONTAINED = 1e-2

# Directions of the basis that are weaker than this are copies of others.
_COPY = 1e-10


class Lobpcg(PreconditionedSolver):
    """Locally optimal block preconditioned conjugate gradients.

    Knyazev 2001, with the orthonormal basis of Hetmaniuk and Lehoucq 2006 (section 4). Converged vectors stay in
    the basis and get no new directions; where more are wanted than a block has, they are deflated portion by
    portion.
    """

    _in_mass = True

    def _settings(self) -> dict:
        return {"eps_max_it": 2000}

    def _sizes(self, k: int, deflated: int, wider: int, guesses: int) -> dict:
        """Return the size of the block, and the part of it that is deflated at a time.

        Guard vectors beyond the wanted ones take part: the block converges as the gap behind the last allows.
        """
        block = min(
            guarded(k) + wider,
            max(_BLOCK, k if k <= _BLOCK else 0) + wider,
            self.problem.n - deflated,
        )
        return {"eps_lobpcg_blocksize": block, "eps_lobpcg_restart": 0.7}

    @property
    def products(self) -> int:
        """About how many products all solves took."""
        return self.iterations * int(self.used_defaults()["eps_lobpcg_blocksize"])

    def _starts(self) -> int:
        block = int(self.used_defaults()["eps_lobpcg_blocksize"])
        if block < 1:
            raise InputError(f"-eps_lobpcg_blocksize {block}: a block has one vector at least")
        return block

    def _iterate(
        self,
        which: str,
        k: int,
        away: list[PETSc.Vec],
        guess: list[PETSc.Vec],
        fresh: list[PETSc.Vec],
        on_restart: OnRestart,
    ) -> list[PETSc.Vec]:
        cite("lobpcg")
        began = time.perf_counter()
        told = PETSc.Options(PREFIX)
        part, most = told.getReal("eps_lobpcg_restart"), self.iterations + told.getInt("eps_max_it")
        block = min(told.getInt("eps_lobpcg_blocksize"), self.problem.n - len(away))
        precondition = self._preconditioners[which].on_panels(self.options)
        set_up = time.perf_counter()
        self.seconds["factorization"] += set_up - began
        basis = Basis(self.problem, block, which == "largest", _rows(self.problem, away))
        self._broke = False
        try:
            basis.add(_rows(self.problem, guess))
            basis.reduce()
            if fresh:
                basis.add(precondition(_rows(self.problem, fresh)))  # smooth: of use at once
                basis.reduce()
            while True:
                left = k - basis.locked
                portion = left if left <= block else max(1, round(part * block))
                if self._converge(basis, precondition, portion, k, most, on_restart) < portion or portion == left:
                    return basis.vectors()
                basis.lock(portion)
                basis.add(precondition(self._more(portion)))
                basis.reduce()
        finally:
            basis.close()
            self.seconds["solve"] += time.perf_counter() - set_up

    def _more(self, number: int) -> np.ndarray:
        """Return random vectors, others every time."""
        seed = 15485863 * self.iterations
        return np.stack([draw_uniform(self.problem.layout, seed + j) for j in range(number)])

    def _converge(
        self,
        basis: Basis,
        precondition: Callable[[np.ndarray], np.ndarray],
        portion: int,
        k: int,
        most: int,
        on_restart: OnRestart,
    ) -> int:
        """Iterate until so many leading vectors have converged; return how many have."""
        stuck = 0
        while True:
            residuals, sizes = basis.residuals()
            good = sizes <= [self._allowed(value) for value in basis.values]
            leading = len(good) if good.all() else int(np.argmin(good))
            self.on_progress(min(basis.locked + leading, k), k)
            error = on_restart(basis.vectors)
            if error is not None:
                raise error
            if leading >= portion and basis.exact:
                return leading
            if leading >= portion:
                basis.refresh()
                continue
            if self.iterations >= most or self._broke:
                return leading
            self.iterations += 1
            active = np.flatnonzero(~good)
            independent = basis.add(precondition(residuals[active]))
            stuck = stuck + 1 if independent < _INDEPENDENT * len(active) else 0
            self._broke = independent == 0 or stuck == _STUCK
            basis.reduce(active)


def guarded(k: int) -> int:
    """Return how many vectors a block has for k pairs: some more, or the last ones would converge slowly."""
    return k + max(3, k // 4)


class Basis:
    """What LOBPCG searches in: vectors X, directions P that they came by, new ones W, and all of their images.

    Collective to make and to use; orthonormal in the mass, and orthogonal to what is deflated.

    Parameters
    ----------
    problem
        What is solved.
    block
        Most vectors of X, and of P, and of W.
    descending
        Whether X is for the largest eigenvalues.
    away
        (m, n_local) vectors to deflate.

    Attributes
    ----------
    values
        (x,) Ritz values of X.
    exact
        Whether the images of X are products, not combinations of such.
    """

    def __init__(self, problem: EigenProblem, block: int, descending: bool, away: np.ndarray):
        self.comm, self.block, self.descending = problem.comm, block, descending
        self._problem = problem
        self._A, self._M = product(problem.A), None if problem.M is None else product(problem.M)
        room = (3 * block, problem.layout.n_local)
        with agreement(self.comm):  # one rank may have no room
            self.S, self.AS = np.empty(room, PETSc.ScalarType), np.empty(room, PETSc.ScalarType)
            self.MS = self.S if self._M is None else np.empty(room, PETSc.ScalarType)
        self.x = self.p = self.w = 0
        self.values, self.exact = np.empty(0), False
        self._Y = away
        self._MY = away if self._M is None else self._M(away).copy()
        self._apart = orthonormalize(self.comm, self._Y, self._MY)[0] if len(away) else 0
        self._Y, self._MY = self._Y[: self._apart], self._MY[: self._apart]

    @property
    def locked(self) -> int:
        """How many vectors of X are deflated by now."""
        return len(self._Y) - self._apart

    def add(self, panel: np.ndarray) -> int:
        """Take what is new in a panel as W; return how many directions that is. Collective."""
        first = self.x + self.p
        S, MS = self.S[first : first + len(panel)], self.MS[first : first + len(panel)]
        size = norms(self.comm, panel)
        S[:] = panel
        S /= np.where(size > 0, size, 1.0)[:, None]
        self._clear(S)
        if self._M is not None:
            MS[:] = self._M(S)
        left = norms(self.comm, S).min(initial=1.0)
        self.w, weakest = orthonormalize(self.comm, S, MS)
        if self.w and not min(left, np.sqrt(weakest)) > _CONTAINED:
            # What was nearly contained in the others is by now what rounding has left of them.
            self._clear(S[: self.w], None if self._M is None else MS[: self.w])
            self.w, _ = orthonormalize(self.comm, S[: self.w], MS[: self.w])
        if self.w:
            self.AS[first : first + self.w] = self._image(S[: self.w])
        return self.w

    def _image(self, panel: np.ndarray) -> np.ndarray:
        """Return A X without its part in the known null vectors."""
        return self._problem.null_space.project_images(self._A(panel).T).T

    def _clear(self, S: np.ndarray, MS: np.ndarray | None = None) -> None:
        """Make vectors, and their images, orthogonal in the mass to what is deflated, and to X and P."""
        old = slice(0, self.x + self.p)
        for panel, images in ((self._Y, self._MY), (self.S[old], self.MS[old])):
            if len(panel):
                part = dots(self.comm, images, S).T
                S -= part @ panel
                if MS is not None:
                    MS -= part @ images

    def reduce(self, active: Sequence[int] | np.ndarray = ()) -> None:
        """Rayleigh-Ritz: have X be the block's best vectors of the basis, and P the rest of those `active`.

        Collective.
        """
        rows = self.x + self.p + self.w
        small = dots(self.comm, self.S[:rows], self.MS[:rows], self.AS[:rows])
        found = on_root(self.comm, self._ritz, small[:, :rows], small[:, rows:], active)
        self.values, C, self.x = found
        self.p, self.w, self.exact = C.shape[1] - self.x, 0, False
        for panel in (self.S, self.AS) if self._M is None else (self.S, self.AS, self.MS):
            combine(panel[: max(C.shape)], C)

    def _ritz(
        self, G: np.ndarray, H: np.ndarray, active: Sequence[int] | np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, int]:
        """Return Ritz values, coefficients of X and P, and the size of X."""
        require_finite(G)
        require_finite(H)
        weights, V = np.linalg.eigh((G + G.conj().T) / 2)
        strong = weights > _COPY
        W = V[:, strong] / np.sqrt(weights[strong])
        values, Z = np.linalg.eigh(W.conj().T @ (H + H.conj().T) / 2 @ W)
        if self.descending:
            values, Z = values[::-1], Z[:, ::-1]
        x = min(self.block, len(values))
        C = (W @ Z)[:, :x]
        P = C[:, [j for j in active if j < x]]
        P[: self.x] = 0
        # Orthogonal to X in the basis, so in the mass.
        P -= C @ (C.conj().T @ (G @ P))
        weights, V = np.linalg.eigh(P.conj().T @ G @ P)
        strong = weights > _COPY * weights.max(initial=0.0)
        return values[:x], np.concatenate([C, P @ (V[:, strong] / np.sqrt(weights[strong]))], axis=1), x

    def residuals(self) -> tuple[np.ndarray, np.ndarray]:
        """Return A x - λ M x (x, n_local) and their norms. Collective."""
        panel = self.MS[: self.x] * -self.values[:, None]
        panel += self.AS[: self.x]
        return panel, norms(self.comm, panel)

    def refresh(self) -> None:
        """Multiply X anew, and forget P. Collective."""
        x, self.p = slice(0, self.x), 0
        if self._M is not None:
            self.MS[x] = self._M(self.S[x])
        self.AS[x] = self._image(self.S[x])
        self.reduce()
        self.exact = True

    def lock(self, number: int) -> None:
        """Deflate the first vectors of X, and forget P. Not collective."""
        self._Y = np.concatenate([self._Y, self.S[:number]])
        self._MY = self._Y if self._M is None else np.concatenate([self._MY, self.MS[:number]])
        for panel in (self.S, self.AS) if self._M is None else (self.S, self.AS, self.MS):
            panel[: self.x - number] = panel[number : self.x].copy()
        self.x, self.p = self.x - number, 0

    def vectors(self) -> list[PETSc.Vec]:
        """Return copies of all that has been found, and is being searched. Collective."""
        found = []
        for row in (*self._Y[self._apart :], *self.S[: self.x]):
            found.append(self._problem.A.createVecRight())
            found[-1].setArray(row)
        return found

    def close(self) -> None:
        """Free what products keep. Collective."""
        for one in (self._A, self._M):
            if one is not None:
                one.close()


def _rows(problem: EigenProblem, vectors: list[PETSc.Vec]) -> np.ndarray:
    rows = np.empty((len(vectors), problem.layout.n_local), PETSc.ScalarType)
    for row, vector in zip(rows, vectors, strict=True):
        row[:] = vector.getArray(readonly=True)
    return rows
