"""All eigenvalues of an interval: subintervals of known inertia, each solved by shift-and-invert in its middle.

SLEPc's own slicing takes neither deflation nor a stopping test, aborts where the mass matrix is
singular, and gives up where inertia and eigenpairs disagree. Here a subinterval is halved until it
holds few eigenvalues (Grimes, Lewis, Simon 1994); the factorization that halves the last one solves it;
and what is missing is sought with the found pairs deflated, then nearer. A count is believed where that of
another shift agrees with it: the eigenvalues found in between are as many as the two differ by.
"""

from __future__ import annotations

import numpy as np

from sparsehess.eigen.problem.problem import EigenProblem
from sparsehess.eigen.problem.rayleigh_ritz import rayleigh_ritz
from sparsehess.eigen.solvers.krylov_schur import KrylovSchur
from sparsehess.eigen.solvers.spectrum_targets import separation
from sparsehess.eigen.solvers.subintervals import Found, Piece
from sparsehess.errors import InputError
from sparsehess.runtime import destroy
from sparsehess.runtime.citations import cite

# A subinterval with more eigenvalues is halved: the basis of a solve grows with them.
MOST = 120

# Basis vectors beyond two for each wanted pair, as a part of those: so that most solves need no restart.
_ROOM = 5

# Halvings that leave all eigenvalues on one side before they are taken for one cluster.
_FRUITLESS = 4

# Further solves in a subinterval before it is halved, or given up.
_AGAIN = 3


class Slicing:
    """Finds all eigenvalues of intervals of a problem; `close()` destroys its factorization.

    Attributes
    ----------
    repairs
        Solves beyond the first of a subinterval so far.
    elsewhere
        Iterations of others that solved pieces of this one.
    unresolved
        The subintervals in which fewer were found than the inertia counts, with the number found.
    """

    def __init__(
        self, problem: EigenProblem, options: dict, *, tol: float, seed: int = 0, on_progress=None, on_restart=None
    ):
        self.problem, self.tol, self.seed = problem, tol, seed
        self._solver = KrylovSchur(problem, True, options, tol=tol, on_restart=on_restart)
        self._on_progress = on_progress or (lambda done, total: None)
        self.repairs = self.elsewhere = 0
        self.unresolved: list[tuple[Piece, int]] = []

    @property
    def seconds(self) -> dict[str, float]:
        return self._solver.seconds

    @property
    def iterations(self) -> int:
        return self._solver.iterations + self.elsewhere

    def used_defaults(self) -> dict:
        """Return the options of the solves. Not collective."""
        return self._solver.used_defaults()

    def ends(self, low: float, high: float, confirm: bool) -> Piece:
        """Return the piece from just below `low` to just above `high`; see `end`. Collective."""
        if high == np.inf:
            high, below_high = self._beyond(low, 1.0)
        else:
            high, below_high = self._end(high, 1.0, confirm)
        if below_high == 0 and low == -np.inf:
            return Piece(low, high, 0, 0)
        low, below_low = self._beyond(high, -1.0) if low == -np.inf else self._end(low, -1.0, confirm)
        return Piece(low, high, below_low, below_high)

    def _end(self, wanted: float, outward: float, confirm: bool) -> tuple[float, int]:
        """Return a shift just outside an end of an interval, and how many eigenvalues lie below it.

        Collective. An eigenvalue at the end itself is inside. Pivots that vanish are no count: the shift
        moves outward then, as it does until two shifts agree if they are to `confirm` each other.

        Parameters
        ----------
        wanted
            The end.
        outward
            -1 for the lower end, 1 for the upper.
        """
        problem = self.problem
        step, last = separation(problem, wanted), None
        for rung in range(12):
            shift = wanted + outward * step * 2.0**rung
            below, zero, _ = self._solver.shift_to(shift)
            if not zero and (last == below or not confirm):
                return shift, below
            last = below if not zero else None
        raise InputError(
            f"the inertia at {wanted:.12g} cannot be told: factorizations nearby do not agree; choose another end"
        )

    def _beyond(self, other: float, outward: float) -> tuple[float, int]:
        """Return a shift beyond all eigenvalues on one side, not much farther from the other end than need be.

        Collective.
        """
        problem = self.problem
        scale, start = problem.scale or 1.0, other if np.isfinite(other) else 0.0
        step = 1.1 * max(abs(start), 1e-6 * scale) if np.isfinite(other) else scale
        for _ in range(40):
            shift = start + outward * step
            below, zero, _ = self._solver.shift_to(shift)
            if not zero and below == (0 if outward < 0 else problem.finite):
                return shift, below
            step *= 8
        side = "below the spectrum" if outward < 0 else "above the finite eigenvalues"
        raise InputError(f"no shift {'down' if outward < 0 else 'up'} to {shift:.3g} is {side}")

    def find(self, so_far: Found) -> list:
        """Return eigenvectors of all eigenvalues found in the pieces that wait; `unresolved` says where some lack.

        Collective. The caller destroys them; they are those of `so_far`, which is brought forward. Before anything
        is said to be missing, the counts at the ends are confirmed by a second shift each; where they are not, all
        is done again with those that are.
        """
        cite("slicing")
        sure, resolved = False, len(self.unresolved)
        while so_far.waiting:
            piece, whole = so_far.waiting[-1], so_far.whole
            expected = self.expected(piece)
            vectors, halves, agrees = self._solved(piece, expected) if expected else ([], [], True)
            so_far.waiting.pop()
            so_far.vectors += vectors
            so_far.waiting += halves[::-1]  # from below
            if not (agrees or sure):
                sure, confirmed = True, self.ends(whole.low, whole.high, True)
                if confirmed.inertia != whole.inertia or confirmed.below_low != whole.below_low:
                    destroy(*so_far.vectors)
                    so_far.vectors.clear()
                    del self.unresolved[resolved:]
                    so_far.whole, so_far.waiting = confirmed, [confirmed]
                    continue
            so_far.unresolved, so_far.repairs = self.unresolved, self.repairs
            self._on_progress(min(len(so_far.vectors), whole.inertia), whole.inertia)
            so_far.pause()
        return so_far.vectors

    def pieces(self, whole: Piece, most: float) -> list[Piece]:
        """Return parts of a piece, from below, each with at most so many eigenvalues to be found, none with none.

        Collective. A part that halving leaves as it is, a multiple eigenvalue, may have more.
        """
        done, waiting = [], [whole]
        while waiting:
            piece = waiting.pop()
            expected = self.expected(piece)
            if expected > most and piece.fruitless < _FRUITLESS:
                waiting += piece.halves(*self._middle(piece))[::-1]
            elif expected:
                done.append(piece)
        return done

    def expected(self, piece: Piece) -> int:
        """Return how many eigenvalues are to be found: without those of the known null vectors.

        Not collective.
        """
        return piece.inertia - (len(self.problem.null) if piece.low < 0 < piece.high else 0)

    def _solved(self, piece: Piece, expected: int) -> tuple[list, list[Piece], bool]:
        """Return (vectors, []) of a piece, or ([], its halves), and whether nothing speaks against its counts.

        Collective.
        """
        middle, below = self._middle(piece)
        narrow = piece.high - piece.low <= 16 * separation(self.problem, middle)
        if expected > MOST and not narrow and piece.fruitless < _FRUITLESS:
            return [], piece.halves(middle, below), True
        values, vectors = np.empty(0), []
        for attempt in range(1 + _AGAIN):
            deflate = [*self.problem.null, *vectors]
            missing = min(expected - len(vectors), self.problem.finite - len(deflate))
            if missing <= 0:
                break
            self.repairs += attempt > 0
            new = self._solver.solve(
                "nearest",
                missing,
                deflate=deflate,
                seed=self.seed + attempt,
                wider=missing // _ROOM + 20 * attempt,
            )
            values, vectors = self.inside(piece, [*vectors, *new])
        halves = piece.halves(middle, below)
        if self._agrees(piece, values):
            return vectors, [], narrow or all(self._agrees(half, values) for half in halves)
        if not narrow:
            destroy(*vectors)
            return [], halves, False
        self.unresolved.append((piece, len(vectors)))
        return vectors, [], False

    def _middle(self, piece: Piece) -> tuple[float, int]:
        """Factorize near the middle of a piece; return where, and how many eigenvalues lie below."""
        step = separation(self.problem, 0.5 * (piece.low + piece.high))
        for rung in range(12):
            # To both sides in turn, and never out of the piece.
            away = min(step * 2.0**rung, 0.2 * (piece.high - piece.low)) * (-1) ** rung if rung else 0.0
            middle = 0.5 * (piece.low + piece.high) + away
            below, zero, _ = self._solver.shift_to(middle)
            if not zero:
                break
        # Pivots that vanish everywhere tried make a count that may be out of order: no piece has fewer than none.
        return middle, min(max(below, piece.below_low), piece.below_high)

    def inside(self, piece: Piece, vectors: list) -> tuple[np.ndarray, list]:
        """Return the eigenvalues that may belong to a piece, and their orthonormal vectors.

        Collective. Takes over those given. An eigenvalue within rounding of an end may be counted at either side.
        """
        values, vectors, _, _ = rayleigh_ritz(self.problem, vectors)
        below, above = self._rounding(piece)
        inside = (values > piece.low - below) & (values < piece.high + above)
        destroy(*(vector for vector, keep in zip(vectors, inside, strict=True) if not keep))
        return values[inside], [vector for vector, keep in zip(vectors, inside, strict=True) if keep]

    def _agrees(self, piece: Piece, values: np.ndarray) -> bool:
        """Return whether the counts at a piece's ends differ by as many as these values in between."""
        below, above = self._rounding(piece)
        surely = np.count_nonzero((values > piece.low + below) & (values < piece.high - above))
        maybe = np.count_nonzero((values > piece.low - below) & (values < piece.high + above))
        return surely <= self.expected(piece) <= maybe

    def _rounding(self, piece: Piece) -> tuple[float, float]:
        return separation(self.problem, piece.low), separation(self.problem, piece.high)

    def close(self) -> None:
        """Destroy the solver. Collective."""
        self._solver.close()
