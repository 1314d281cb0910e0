"""`EigenProblem`: H x = λ M x with what is known of it, from whatever a caller has.

Matrices are symmetric; where PETSc's scalars are complex, Hermitian, and ᵀ stands for the conjugate transpose.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

from mpi4py import MPI

import numpy as np

from sparsehess.derivatives.units import Units
from sparsehess.eigen.problem.brought_facts import HOPELESS, SYMMETRY, known_of, lost_in_noise
from sparsehess.eigen.problem.diagonal_floors import diagonal_floor
from sparsehess.eigen.problem.equilibration import (
    PencilScales,
    add_light_mass,
    fill_diagonal,
    find_scales,
    find_sizeless,
    median,
    scaled_copy,
)
from sparsehess.eigen.problem.factor_cost import FactorCost, analyze
from sparsehess.eigen.problem.infinite_eigenvalues import Infinite, count_infinite
from sparsehess.eigen.problem.lanczos_bounds import spectral_bounds
from sparsehess.eigen.problem.mass_facts import UNIT, MassFacts, facts_of_mass
from sparsehess.eigen.problem.matrix_inputs import MatrixLike, VectorsLike, as_mat, as_vectors, check_symmetric
from sparsehess.eigen.problem.nearby_matrix import nearby_matrix, scaled_nearby_matrix
from sparsehess.eigen.problem.null_space import NullSpace, check_null_vectors, orthonormal_null_vectors
from sparsehess.eigen.problem.solver_pool import SolverPool
from sparsehess.eigen.problem.starting_vectors import starting_vectors
from sparsehess.errors import InputError
from sparsehess.hessian.entry_errors import EntryErrors
from sparsehess.hessian.hessian import Hessian
from sparsehess.hessian.matrix_free import MatrixFree
from sparsehess.operators.matrix_like import as_operator
from sparsehess.operators.operator import Operator
from sparsehess.operators.structure import NOTHING, Structure
from sparsehess.pattern import Layout
from sparsehess.runtime import PETSc, collect_garbage, communicator, complex_scalars, destroy, has_package
from sparsehess.runtime.memory import require_room
from sparsehess.runtime.petsc_matrices import diagonal_of, is_assembled
from sparsehess.runtime.short_repr import ShortRepr, number_of

_EPS = float(np.finfo(float).eps)

# Times the error of its products that a residual of a matrix without entries is held to: each product has another;
# steps of Lanczos that tell the size of a matrix of which only products are known.
_PRODUCTS, STEPS = 4.0, 12


@dataclass(eq=False, kw_only=True, repr=False)
class EigenProblem(ShortRepr):
    """A symmetric eigenproblem, standard or generalised.

    *Collective* to make, with `of`, and to use. A context manager; `close()` destroys what it had to make itself.

    Attributes
    ----------
    A
        The Hessian, a symmetric Mat.
    M
        The mass matrix, symmetric positive semidefinite, or None.
    null
        Known null vectors, Vecs of A's layout, orthonormal in the mass; what is solved is the problem on what is
        orthogonal to them, see `null_space`.
    projected
        Whether they are projected out whatever A says of them: they are null vectors of PᵀAP alone.
    near_null
        Vecs that A hardly resists, such as rigid-body modes of a body that is held, for multigrid.
    preconditioner
        An assembled matrix near A, an `Operator` of a structure near it, or None.
    guess
        Vecs near the eigenvectors that are wanted.
    structure
        What A tells exactly of itself, an `Operator` by its structure; nothing where there is a mass.
    relative_error
        Error of A's entries, relative to its norm, where it is known: of differences, of asymmetry, of products
        that are not linear.
    hopeless
        Such an error that leaves nothing of A; infinite where what is inexact may be a matrix of zeros.
    entry_errors
        Estimates of the errors of A's entries, or None.
    sizeless
        (n_local,) bool: rows that tell nothing of the size of an eigenvalue, or None; see `find_sizeless`.
    units
        What an eigenvalue means, or None.
    solver_pool
        Where solvers that factorize come from.
    scaled_by
        D, where A and M are those of another problem scaled; see `equilibrated`.
    seen_reach
        Least and largest Ritz value of A that solves by products have seen, None before the first.

    Examples
    --------
    >>> import numpy as np
    >>> import sparsehess as sh
    >>> with sh.EigenProblem.of(np.diag([2.0, 8.0]), mass=np.array([2.0, 4.0])) as problem:
    ...     print(problem.n, problem.assembled, round(sh.curvature(problem).value, 6))
    2 True 1.0
    """

    A: PETSc.Mat
    M: PETSc.Mat | None = None
    null: list[PETSc.Vec]
    projected: bool = False
    near_null: list[PETSc.Vec] = field(default_factory=list)
    preconditioner: PETSc.Mat | Operator | None = None
    guess: list[PETSc.Vec] = field(default_factory=list)
    structure: Structure = NOTHING
    relative_error: float = 0.0
    hopeless: float = np.inf
    entry_errors: EntryErrors | None = None
    sizeless: np.ndarray | None = None
    units: Units | None = None
    solver_pool: SolverPool = field(default_factory=SolverPool)
    scaled_by: PETSc.Vec | None = None
    owned: list
    seen_reach: tuple[float, float] | None = field(default=None, init=False, repr=False)
    _made: list[NullSpace] = field(default_factory=list, init=False, repr=False)
    copies = 1  # how often each eigenvalue stands in A: twice in the real form of a complex matrix

    def _repr_facts(self) -> Iterator[str]:
        """Yield what the line says. Not collective."""
        layout = self.__dict__.get("layout")
        if layout is not None:
            yield number_of(layout.n, "row")
        yield "standard" if self.M is None else "with a mass"
        if self.null:
            yield number_of(len(self.null), "null vector")
        if self.relative_error:
            yield f"error {self.relative_error:.1e}"
        if self.units is not None:
            yield f"frequencies in {self.units.frequency}"

    @classmethod
    def of(
        cls,
        matrix: Hessian | MatrixFree | Operator | MatrixLike,
        *,
        mass: MatrixLike | None = None,
        nullspace: VectorsLike | None = None,
        near_null: VectorsLike | None = None,
        preconditioner: Hessian | Operator | MatrixLike | None = None,
        guess: VectorsLike | None = None,
        comm: MPI.Comm | None = None,
        relative_error: float = 0.0,
        units: Units | None = None,
        solver_pool: SolverPool | None = None,
    ) -> EigenProblem:
        """Return the problem for a Hessian, assembled or not, a PETSc Mat, or what of SciPy's every rank holds.

        Collective.

        Parameters
        ----------
        matrix
            H. A `Hessian` or `MatrixFree` brings mass, null vectors and units of its objective; an `Operator`
            tells what its structure knows; a Mat may be a shell, of which products alone are asked, and so is a
            SciPy linear operator. SciPy's matrices and arrays may be of any format.
        mass
            Mat, SciPy matrix, or (n,) diagonal.
        nullspace, near_null, guess
            List of Vecs, or (m, n) array that every rank holds.
        preconditioner
            A `Hessian`, Mat or SciPy matrix, or an `Operator`, which must live as long as the problem.
        comm
            For SciPy matrices; PETSc objects have their own.
        relative_error, units, solver_pool
            As the attributes.

        Raises
        ------
        InputError
            Not square, not symmetric, not finite, or sizes that do not fit.
        CheckError
            A null vector is none.
        """
        owned: list = []
        try:
            known = known_of(as_operator(matrix, comm, owned))
            given_mass = known.mass if mass is None else mass
            structure = known.structure if given_mass is None else NOTHING
            A = as_mat(known.matrix, comm, None, owned, "the Hessian")
            layout = Layout.from_local(A.getLocalSize()[0], A.comm)
            M = None if given_mass is None else as_mat(given_mass, None, layout, owned, "the mass matrix")
            if M is not None and not is_assembled(M):
                raise InputError("the mass matrix must be assembled, and not a shell: its entries are needed")
            near = nearby_matrix(preconditioner, layout, owned)
            null = known.null if nullspace is None else nullspace
            soft = known.near_null if near_null is None else near_null
            collect_garbage(layout.comm)
            problem = cls(
                A=A,
                M=M,
                null=as_vectors(null, A, layout, owned, "null vectors"),
                projected=known.projected and nullspace is None,
                near_null=as_vectors(soft, A, layout, owned, "near-null vectors"),
                preconditioner=near,
                guess=starting_vectors(guess, A, layout, owned),
                structure=structure,
                relative_error=max(relative_error, known.relative_error),
                hopeless=HOPELESS if known.noisy else np.inf,
                entry_errors=known.entry_errors,
                units=known.units if units is None else units,
                solver_pool=solver_pool or SolverPool(),
                owned=owned,
            )
            problem._check(known.symmetry)
            check_null_vectors(problem)
            problem.null = orthonormal_null_vectors(problem.null, M, problem.masses[0], owned)
            if problem.assembled:
                problem.sizeless = find_sizeless(A, M, layout, problem.entry_errors, problem.null)
            if problem.sizeless is not None:
                del problem.scales  # which `_check` has asked for
            return problem
        except BaseException:
            destroy(*owned)  # every rank is here: all that raises above raises on all
            raise

    # --- facts, each computed once; collective the first time ---

    @cached_property
    def comm(self) -> MPI.Comm:
        """Communicator of the matrices."""
        return communicator(self.A.comm)

    @property
    def n(self) -> int:
        """Number of rows."""
        return self.A.getSize()[0]

    @cached_property
    def layout(self) -> Layout:
        """Rows of each rank."""
        return Layout.from_local(self.A.getLocalSize()[0], self.comm)

    @cached_property
    def null_space(self) -> NullSpace:
        """Span of the known null vectors, and the projections off it."""
        found = NullSpace(self.null, self.M)
        self._made.append(found)
        return found

    @property
    def assembled(self) -> bool:
        """Whether A has entries, which a factorization needs."""
        return is_assembled(self.A)

    @property
    def told(self) -> Structure:
        """What is known exactly of the problem: of A, where nothing is beside it."""
        return NOTHING if self.null else self.structure

    @property
    def factorizes(self) -> bool:
        """Whether A - shift M can be factorized."""
        return self.assembled and has_package("mumps")

    @cached_property
    def factor_cost(self) -> FactorCost:
        """What a factorization takes, by MUMPS's analysis. Collective the first time; see `analyze`."""
        return analyze(self.A)

    @property
    def uncounted(self) -> str:
        """Why no factorization of A - shift M can count eigenvalues; empty where it can."""
        if not self.assembled:
            return "a matrix-free Hessian has no factorization to count with"
        if not has_package("mumps"):
            return "this PETSc has no MUMPS to count with"
        if complex_scalars():
            return (
                "scalars of this PETSc are complex, and its factorizations of Hermitian matrices tell no inertia"
            )
        return ""

    @cached_property
    def scales(self) -> PencilScales:
        """How rows are scaled alike, and sizes of rows and of eigenvalues; shells stay as they are."""
        if self.assembled:
            return find_scales(self.A, self.M, self.layout, self.sizeless)
        low, high, error = self.ritz
        size, ones = max(abs(low), abs(high)), np.ones(self.layout.n_local)
        masses = ones if self.M is None else np.abs(self._mass_diagonal())
        middle = (size + error) / (median(masses, self.comm) or 1.0)
        norm_m = 1.0 if self.M is None else self.M.norm(PETSc.NormType.FROBENIUS)
        rows = np.full(self.layout.n_local, size + error)
        return PencilScales(ones, 0, rows, masses, middle, middle, (size, norm_m), np.empty(0, np.int64))

    @cached_property
    def equilibrated(self) -> EigenProblem:
        """The problem with rows of about one size, D A D x̂ = λ' D M D x̂; itself where they are so already.

        Collective. Where directions have no mass but for rounding they get one of a few last digits of M, with
        which a Lanczos basis stays bounded. It is closed with this one. Eigenvalues are 2^`scales.power` times
        those of it, vectors x = D x̂. A variable that has neither an entry of A nor one of M is held there.
        """
        if not self.assembled and self.massless == 0:
            return self
        scales = self.scales
        hidden = self.massless > self.comm.allreduce(int(np.count_nonzero(scales.rows_m == 0)))
        if scales.alike(self.comm) and not hidden:
            return self
        d = self.A.createVecRight()
        d.setArray(scales.d)
        A = scaled_copy(self.A, d, scales.power)
        if len(scales.empty):
            fill_diagonal(A, scales.empty)
        near = scaled_nearby_matrix(self.preconditioner, d, scales.power)
        plain = self.M is None and all(self.comm.allgather(bool((scales.d == 1.0).all())))
        M = None if plain else scaled_copy(self.M, d)
        if hidden:
            add_light_mass(M, scales.rows_m)
        null, soft, guess = (self.scale_vectors(vectors) for vectors in (self.null, self.near_null, self.guess))
        made = EigenProblem(
            A=A, M=M, null=null, projected=self.projected, near_null=soft, preconditioner=near, guess=guess,
            scaled_by=d, sizeless=self.sizeless,
            relative_error=self.relative_error, units=self.units, solver_pool=self.solver_pool,
            owned=[A, M, near, d, *null, *soft, *guess],
        )  # fmt: skip
        made.__dict__.update(equilibrated=made, mass_facts=self.mass_facts)
        return made

    def share_facts(self, copy: EigenProblem) -> EigenProblem:
        """Return a copy of this problem on other matrices, of which the same facts hold. Collective."""
        copy.__dict__.update(equilibrated=copy, mass_facts=self.mass_facts, infinite=self.infinite)
        return copy

    def scale_vectors(self, vectors: list[PETSc.Vec]) -> list[PETSc.Vec]:
        """Return copies D⁻¹ x of vectors, for the equilibrated problem. The caller destroys them. Collective."""
        copies = [vector.copy() for vector in vectors]
        for copy in copies:
            copy.setArray(copy.getArray() / self.scales.d)
        return copies

    @property
    def norms(self) -> tuple[float, float]:
        """Norms of A and of M (1 for the identity where A is no matrix): Frobenius, or no larger."""
        return self.scales.norms

    @cached_property
    def ritz(self) -> tuple[float, float, float]:
        """Least and largest Ritz value of A, within its spectrum, and a residual norm.

        Those that a solve has seen; where there was none some Lanczos steps find them.
        """
        if self.seen_reach is not None:
            return *self.seen_reach, 0.0
        return spectral_bounds(self.A, self.layout, STEPS)

    def note_reach(self, reach: tuple[float, float]) -> None:
        """Keep the least and largest Ritz value that a solve has seen. Collective."""
        low, high = self.comm.bcast(reach)
        seen = self.seen_reach or (low, high)
        self.seen_reach = min(low, seen[0]), max(high, seen[1])

    @property
    def power(self) -> int:
        """Eigenvalues are two to this power times those of the scaled problem; shells stay as they are."""
        return self.scales.power if self.assembled else 0

    @cached_property
    def masses(self) -> tuple[float, float]:
        """Median and least entry of the diagonal of M: 1 for the identity."""
        if self.M is None:
            return 1.0, 1.0
        diagonal = self._mass_diagonal()
        least = self.comm.allreduce(float(diagonal.min(initial=np.inf)), MPI.MIN)
        return median(diagonal, self.comm), least

    def _mass_diagonal(self) -> np.ndarray:
        """Return the diagonal of M (n_local,). Collective."""
        diagonal = None if self.M is None else diagonal_of(self.M)
        if diagonal is None:
            raise InputError("the mass matrix must be assembled: its diagonal is needed")
        return diagonal

    @cached_property
    def mass_facts(self) -> MassFacts:
        """How many directions have no mass, and how far the others are from that."""
        return UNIT if self.M is None else facts_of_mass(self.M, self.layout)

    @property
    def massless(self) -> int:
        """Dimension of the null space of M."""
        return self.mass_facts.massless

    @cached_property
    def floors(self) -> tuple[np.ndarray, np.ndarray]:
        """(n_local,) diagonals that M and A are no less than, zeros where none is known."""
        return diagonal_floor(self.M, self.layout, self.mass_facts.least), diagonal_floor(self.A, self.layout)

    @cached_property
    def infinite(self) -> Infinite:
        """How many eigenvalues are infinite, and which pivots are theirs."""
        if not self.massless or self.M is None:
            return Infinite(0, 0)
        if self.uncounted:
            return Infinite(0, self.massless)
        if self.equilibrated is not self:
            return self.equilibrated.infinite
        scales = self.scales
        return count_infinite(
            self.A, self.M, self.layout, self.massless, scales.typical, (scales.rows_a, scales.rows_m)
        )

    @property
    def scale(self) -> float:
        """Size of an eigenvalue: the median, over the variables, of the sum of a row of |A| over that of |M|.

        Few rows do not move it, however large they are.
        """
        return float(np.ldexp(self.scales.middle, self.scales.power))

    @property
    def typical(self) -> float:
        """Size of an eigenvalue in the middle: the median of |a_ii| / m_ii."""
        return float(np.ldexp(self.scales.typical, self.scales.power))

    @property
    def finite(self) -> int:
        """Number of finite eigenvalues."""
        return self.n - self.infinite.number

    @property
    def sought(self) -> int:
        """Number of finite eigenvalues beside those of the known null vectors."""
        return self.finite - len(self.null)

    @property
    def zero(self) -> float:
        """An eigenvalue below this size is zero to the accuracy of the matrix, if its vector has no large rows."""
        return max(1e3 * _EPS, 10 * self.relative_error) * self.scale

    def held_to(self, tol: float) -> float:
        """Return the backward error that pairs are held to where `tol` is asked for: no product is more exact.

        Not collective. An assembled matrix is what it is: its pairs can be had to any tolerance, and are.
        """
        return tol if self.assembled else max(tol, _PRODUCTS * self.relative_error)

    def check_hope(self, error: float) -> None:
        """Raise CheckError where noise, with this error of products or entries, leaves nothing of the Hessian.

        Not collective; the same on every rank.
        """
        if not error <= self.hopeless:
            raise lost_in_noise(error)

    def _check(self, symmetry: float) -> None:
        require_room(self.comm)
        size = self.scales.d if self.assembled else np.ones(self.layout.n_local)
        found = check_symmetric("the Hessian", self.A, size, self.layout, symmetry, not self.assembled)
        if not self.assembled:  # how exact its products are, nothing else tells
            self.relative_error = max(self.relative_error, 10 * found.asymmetry, found.noise)
            self.hopeless = min(self.hopeless, HOPELESS if found.noise else np.inf)
            self.check_hope(self.relative_error)
        if self.M is not None:
            sizes = np.abs(self._mass_diagonal())
            sizes[~(sizes > 0)] = 1.0
            check_symmetric("the mass matrix", self.M, 1 / np.sqrt(sizes), self.layout, SYMMETRY)
        self.massless  # noqa: B018  refuses a mass that is none

    def close(self) -> None:
        """Destroy the PETSc objects that were made here.

        Collective.
        """
        scaled = self.__dict__.pop("equilibrated", self)
        if scaled is not self:
            scaled.close()
        for one in self._made:
            one.close()
        self._made.clear()
        destroy(*self.owned)
        self.owned.clear()

    def __enter__(self) -> EigenProblem:
        """Return the problem itself."""
        return self

    def __exit__(self, *reason: object) -> None:
        """Destroy what was made here. Collective."""
        self.close()


def slepc_tolerance(problem: EigenProblem, tol: float) -> float:
    """Return a tolerance for SLEPc: two digits beyond the one asked for, as far as products are so exact.

    Not collective. Clusters need them, and a Krylov space gains them in a step.
    """
    return max(1e-2 * tol, 1e-13, 0.0 if problem.assembled else problem.relative_error)
