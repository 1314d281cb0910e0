"""What a solve has found so far, in a checkpoint: eigenvectors, parts of an interval done, the space it searches.

Nothing that was found is believed: a solve that resumes computes residuals and counts afresh, as any does.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from sparsehess.eigen.problem.problem import EigenProblem
from sparsehess.eigen.problem.solve_spec import SolveSpec
from sparsehess.eigen.solvers.search_store import Gather
from sparsehess.runtime import PETSc, agreement, complex_scalars, destroy, forget_frames
from sparsehess.runtime.random_numbers import draw_signed
from sparsehess.storage.checkpoint import Checkpoint
from sparsehess.storage.fingerprints import ROUGH

_STAGE = "search"

# What a save is taken to cost before there was one: bytes a second, of so many vectors for each one asked for.
_SPEED, _VECTORS = 2e8, 3


class SearchCheckpoint:
    """The state of one call of `solve` in a checkpoint: a `SearchStore`.

    Collective to make and to use.

    Parameters
    ----------
    checkpoint
        Where it is saved.
    problem, spec
        What is solved, and what is asked for.
    method
        The one chosen: each saves what only itself can go on from.
    """

    def __init__(self, checkpoint: Checkpoint, problem: EigenProblem, spec: SolveSpec, method: str):
        self.checkpoint, self.problem = checkpoint, problem
        checkpoint.clock.start(8 * problem.n * _VECTORS * (spec.k or 1) / _SPEED)
        asked = dataclasses.asdict(spec)
        for name in ("groups", "backend"):  # do not change what is found
            del asked[name]
        asked["options"] = {name: str(value) for name, value in sorted(spec.options.items())}
        for side, end in zip(("low", "high"), asked.pop("interval") or (), strict=False):
            # The end of the negative ones is what rounding leaves of zero: sums over ranks tell it.
            asked[f"interval, {side}"] = float(end) if np.isfinite(end) else str(float(end))
        self.fingerprint = {
            "n": problem.n,
            "projected out": len(problem.null),
            "method": method,
            **({"scalars": "complex"} if complex_scalars() else {}),
            **_norms("H", problem.A, problem),
            **_norms("M", problem.M, problem),
            **_part_in_null_space(problem),
            **{name: float(value) if isinstance(value, float) else value for name, value in asked.items()},
        }

    def load(self) -> tuple[dict, list[PETSc.Vec]]:
        """Return (facts, vectors) as they were saved, or ({}, []); the caller destroys the vectors. Collective."""
        saved = self.checkpoint.load(_STAGE, self.fingerprint)
        if saved is None:
            return {}, []
        vectors = []
        for column in saved.read_rows("vectors", self.problem.layout.n_local).view(PETSc.ScalarType).T:
            vector = self.problem.A.createVecRight()
            vector.setArray(column)
            vectors.append(vector)
        return saved.meta, vectors

    @property
    def wants_save(self) -> bool:
        """Whether this rank would save now. Not collective."""
        return self.checkpoint.wants_save

    def save_if_due(self, gather: Gather) -> BaseException | None:
        """Save where it is due; return the error that is to end the solve, after a signal `Stopped`.

        Collective. Returned, not raised: callers may be inside a call of SLEPc, which has to end first.
        """
        if not self.checkpoint.is_due():
            return None
        fresh: list[PETSc.Vec] = []
        try:
            facts, vectors, fresh = gather()
            with agreement(self.problem.comm):
                columns = [vector.getArray(readonly=True) for vector in (*vectors, *fresh)]
                rows = np.stack(columns, axis=1) if columns else np.empty((self.problem.layout.n_local, 0))
                # A complex number is stored as two real ones.
                rows = np.ascontiguousarray(rows, PETSc.ScalarType).view(np.float64)
            self.checkpoint.save(_STAGE, self.fingerprint, facts, {"vectors": rows})
            self.checkpoint.clock.end()
            self.checkpoint.finish_save()
        except BaseException as error:  # agreed on: it ends the solve on all ranks
            return forget_frames(error)
        finally:
            destroy(*fresh)
        return None

    def pause(self, gather: Gather) -> None:
        """Save where it is due; after a signal raise `Stopped`. Collective."""
        error = self.save_if_due(gather)
        if error is not None:
            raise error


def _norms(name: str, matrix: PETSc.Mat | None, problem: EigenProblem) -> dict[str, float]:
    """Return norms of a matrix, and of its product with a fixed vector, by which it is known again.

    Collective. Of one whose products alone are known, which differences may have made, no more than a product.
    """
    if matrix is None:
        return {}
    vector, image = matrix.createVecs()
    vector.setArray(draw_signed(problem.layout, 17))
    matrix.mult(vector, image)
    norms = PETSc.NormType
    size = float(image.norm(norms.NORM_2))
    length = size * float(vector.norm(norms.NORM_2))
    # Norms are those of -H too: the cosine, moved away from zero, is not.
    side = 2.0 + (vector.dot(image).real / length if length > 0 else 0.0)
    if "aij" in matrix.getType():
        found = {
            f"entries of {name}": int(matrix.getInfo(PETSc.Mat.InfoType.GLOBAL_SUM)["nz_used"]),
            f"norm of {name}": float(matrix.norm(norms.FROBENIUS)),
            f"a product of {name}": size,
            f"its first norm, {name}": float(image.norm(norms.NORM_1)),
            f"its direction, {name}": side,
        }
    else:
        found = {f"{ROUGH}a product of {name}": size, f"{ROUGH}its direction, {name}": side}
    destroy(vector, image)
    return found


def _part_in_null_space(problem: EigenProblem) -> dict[str, float]:
    """Return the part of a fixed vector in the space of the known null vectors, if there are any. Collective."""
    if not problem.null:
        return {}
    vector = problem.A.createVecRight()
    vector.setArray(draw_signed(problem.layout, 18))
    parts = [vector.dot(one) for one in problem.null]
    destroy(vector)
    return {"part in the null space": float(np.linalg.norm(parts))}
