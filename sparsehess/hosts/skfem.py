"""Eigenproblems of scikit-fem: a solver for its `solve` and `condense`, whose answers are certified.

>>> import numpy as np
>>> import skfem
>>> from skfem.models.poisson import laplace, mass
>>> from sparsehess.hosts.skfem import solver_eigen
>>> basis = skfem.Basis(skfem.MeshTri.init_symmetric().refined(3), skfem.ElementTriP2())
>>> K, M = laplace.assemble(basis), mass.assemble(basis)
>>> solver = solver_eigen(k=3)
>>> values, vectors = skfem.solve(*skfem.condense(K, M, D=basis.get_dofs()), solver=solver)
>>> print((values / np.pi**2).round(3), vectors.shape == (basis.N, 3), solver.certificate.passed)
[2.    5.001 5.001] True True

Dofs of `condense` are removed, so that they bring no eigenvalues of their own. Every rank has the whole mesh and
gets whole vectors, as scikit-fem has them; matrices and solve are shared out among the ranks of `comm`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mpi4py import MPI

import numpy as np

from sparsehess.derivatives.geometry import Geometry, in_turn
from sparsehess.eigen.certificates.certificate import Certificate, certify
from sparsehess.eigen.solvers import eigs
from sparsehess.errors import InputError
from sparsehess.mechanics.mode_mesh import ModeMesh
from sparsehess.pattern import Layout
from sparsehess.runtime import agreement, communicator
from sparsehess.storage.meshes import Mesh

if TYPE_CHECKING:
    from scipy.sparse import spmatrix
    from skfem import Basis


class EigenSolver:
    """A solver of K x = λ M x as scikit-fem calls one: solver(K, M) -> (values (k,), vectors (n, k)).

    Made by `solver_eigen`.

    Parameters
    ----------
    comm
        Our communicator; all its ranks call the solver.
    how
        Arguments of `eigs`.

    Attributes
    ----------
    certificate
        Of the last answer, recomputed from the vectors that scikit-fem gets; None before the first.
    """

    def __init__(self, comm: MPI.Comm, how: dict[str, Any]):
        self._comm, self._how = comm, how
        self.certificate: Certificate | None = None

    def __call__(self, K: spmatrix, M: spmatrix | None = None, **more: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return eigenvalues (k,), ascending, and vectors (n, k), XᵀMX = 1, the same on every rank.

        Collective.

        Parameters
        ----------
        K, M
            SciPy matrices, (n, n), that every rank holds.
        more
            Arguments that override those of `solver_eigen`, for this call.

        Raises
        ------
        InputError
            The second argument is no matrix: scikit-fem solves a linear system.
        InputError, CheckError, NotConverged
            See `eigs`.
        """
        if M is not None and np.ndim(M) != 2:
            raise InputError("solver_eigen is for K x = λ M x: give scikit-fem's solve two matrices")
        how = {**self._how, **more}
        with eigs(K, mass=M, comm=self._comm, **how) as spectrum:
            self.certificate = certify(K, spectrum, mass=M, tol=how.get("tol", 1e-8), comm=self._comm)
            own = np.zeros((len(spectrum.vectors), Layout.from_size(K.shape[0], self._comm).n_local))
            for row, vector in zip(own, spectrum.vectors, strict=True):
                row[:] = vector.getArray(readonly=True)
            return spectrum.eigenvalues, np.concatenate(self._comm.allgather(own.T))


def surface(basis: Basis, free: np.ndarray | None = None) -> Geometry:
    """Return the vertices of a mesh and the faces of its surface, for the `geometry` of an objective.

    Not collective.

    Parameters
    ----------
    basis
        `skfem.Basis` of elements with one value, or one vector, at each vertex. Cells of a plane mesh are faces.
    free
        (n,) the dofs that are variables, in their order; default all.

    Raises
    ------
    InputError
        Elements of another kind.

    Examples
    --------
    >>> import skfem
    >>> from sparsehess.hosts.skfem import surface
    >>> basis = skfem.Basis(skfem.MeshTri.init_symmetric(), skfem.ElementTriP2())
    >>> surface(basis, basis.complement_dofs(basis.get_dofs()))
    <Geometry: 5 nodes in 2 dimensions, 4 faces>
    """
    mesh, dofs = basis.mesh, basis.nodal_dofs
    dims, each = mesh.dim(), len(dofs)
    if each not in (1, dims) or (each == 1 and dims == 3):
        raise InputError(f"{each} dofs at each vertex in {dims} dimensions are no motion that can be drawn")
    number = np.arange(basis.N) if free is None else np.full(basis.N, -1)
    if free is not None:
        number[free] = np.arange(len(free))
    positions = mesh.p[:, : dofs.shape[1]].T
    edges = mesh.t[:2].T if dims == 1 else None
    faces = [] if dims == 1 else [mesh.t.T if dims == 2 else mesh.facets[:, mesh.boundary_facets()].T]
    return Geometry(positions, number[dofs].T, faces=[in_turn(positions, one) for one in faces], edges=edges)


def mode_mesh(basis: Basis, free: np.ndarray | None = None) -> ModeMesh:
    """Return the vertices and cells of a mesh, and the dofs at them, for `write_modes` and `animate_mode`.

    Not collective.

    Parameters
    ----------
    basis
        `skfem.Basis` of elements with one value, or one vector, at each vertex; a value is drawn upright. What is
        between vertices is left out. Of Hermite's beams slopes are rotations about z.
    free
        (n,) the dofs that are rows of the matrix, in their order; default all.

    Raises
    ------
    InputError
        Elements of another kind.

    Examples
    --------
    >>> import skfem
    >>> from sparsehess.hosts.skfem import mode_mesh
    >>> basis = skfem.Basis(skfem.MeshTri.init_symmetric(), skfem.ElementTriP2())
    >>> mode_mesh(basis, basis.complement_dofs(basis.get_dofs()))
    <ModeMesh: 5 nodes in 2 dimensions, 4 cells, dofs z, 4 of 5 fixed>
    """
    mesh, nodal = basis.mesh, basis.nodal_dofs
    dims, each = mesh.dim(), len(nodal)
    bends = dims == 1 and tuple(basis.elem.dofnames[:2]) == ("u", "u_x")
    if not bends and (each not in (1, dims) or (each == 1 and dims == 3)):
        raise InputError(f"{each} dofs at each vertex in {dims} dimensions are no motion that can be drawn")
    letters = "yc" if bends else {1: "y", 2: "z"}[dims] if each == 1 else "xyz"[:dims]
    number = np.arange(basis.N) if free is None else np.full(basis.N, -1)
    if free is not None:
        number[free] = np.arange(len(free))
    points = np.pad(mesh.p[:, : nodal.shape[1]].T, ((0, 0), (0, 3 - dims)))
    corners = mesh.elem.refdom.p.T.tolist()
    kind, order = _CELLS[dims, len(corners)]
    cells = mesh.t[[corners.index(list(map(float, one))) for one in order]].T.astype(np.int64)
    if kind in _MIRRORED:  # scikit-fem has cells of either orientation
        mirror, (first, second, third) = _MIRRORED[kind]
        sides = (points[cells[:, corner]] - points[cells[:, 0]] for corner in (first, second, third))
        volumes = np.linalg.det(np.stack(list(sides), axis=1))
        cells = np.where(volumes[:, None] < 0, cells[:, mirror], cells)
    n = basis.N if free is None else len(free)
    return ModeMesh.of(Mesh(points, dims, ((kind, cells),)), letters, number[nodal].T, n, "the mesh of the basis")


# Names of cells and their corners in meshio's order, by dimensions and how many corners there are.
_SQUARE = ((0, 0), (1, 0), (1, 1), (0, 1))
_PRISM = ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 0, 1), (0, 1, 1))
_CELLS: dict[tuple[int, int], tuple[str, tuple[tuple[int, ...], ...]]] = {
    (1, 2): ("line", ((0,), (1,))),
    (2, 3): ("triangle", ((0, 0), (1, 0), (0, 1))),
    (2, 4): ("quad", _SQUARE),
    (3, 4): ("tetra", _PRISM[:4]),
    (3, 6): ("wedge", _PRISM),
    (3, 8): ("hexahedron", tuple((*corner, height) for height in (0, 1) for corner in _SQUARE)),
}


# Corners of the mirror image of a solid, and the three beside the first one.
_MIRRORED: dict[str, tuple[list[int], tuple[int, int, int]]] = {
    "tetra": ([1, 0, 2, 3], (1, 2, 3)),
    "wedge": ([3, 4, 5, 0, 1, 2], (1, 2, 3)),
    "hexahedron": ([4, 5, 6, 7, 0, 1, 2, 3], (1, 3, 4)),
}


def solver_eigen(k: int | None = None, *, comm: MPI.Comm | None = None, **how: Any) -> EigenSolver:
    """Return a solver for the `solver=` of scikit-fem's `solve`.

    Collective on `comm`.

    Parameters
    ----------
    k
        How many eigenvalues; default 6, the smallest, unless `how` says otherwise.
    comm
        mpi4py communicator whose ranks all call `solve`; default this process alone.
    how
        Other arguments of `eigs`: `which`, `target`, `interval`, `tol`, `method`, PETSc's `options`.

    Returns
    -------
    EigenSolver
        Called by scikit-fem; it holds the certificate of its last answer.

    Raises
    ------
    InputError
        `mass` among the arguments: it is what `solve` brings. Other arguments are checked by `eigs`.

    Examples
    --------
    >>> import skfem
    >>> from skfem.models.poisson import laplace, mass
    >>> from sparsehess.hosts.skfem import solver_eigen
    >>> basis = skfem.Basis(skfem.MeshLine().refined(5), skfem.ElementLineP2())
    >>> K, M = laplace.assemble(basis), mass.assemble(basis)
    >>> values, _ = skfem.solve(*skfem.condense(K, M, D=basis.get_dofs()), solver=solver_eigen(3))
    >>> print((values / 9.8696).round(3))
    [1. 4. 9.]
    """
    ours = communicator(comm)
    with agreement(ours):
        if "mass" in how:
            raise InputError("the mass matrix is the second matrix of scikit-fem's solve: leave out mass")
    return EigenSolver(ours, how if k is None else {"k": k, **how})
