"""What T is in a congruence TᵀHT: sub-blocks, shared and scaled parameters, projections, low-rank adapters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse

from sparsehess.errors import InputError
from sparsehess.operators.combinations import rectangular
from sparsehess.operators.tall_skinny_qr import inner_products, local_array, sum_over_ranks, tall_qr
from sparsehess.runtime import PETSc, agreement, called_back, communicator, destroy
from sparsehess.runtime.replicated_arrays import of_all_ranks
from sparsehess.runtime.row_layout import Layout, send_to_owners
from sparsehess.runtime.validation import reals

if TYPE_CHECKING:
    from typing import TypeAlias

    from mpi4py import MPI

    Map: TypeAlias = Callable[[np.ndarray], np.ndarray]

# Vectors that have less than this part outside the others span nothing that these do not.
_DEPENDENT = 1e-10


class Transform:
    """A linear map by two Python functions, as a PETSc shell.

    Collective to make and to use. A context manager; `close()` destroys it.

    Parameters
    ----------
    rows, columns
        Layouts of what it returns and of what it takes.
    forward, adjoint
        forward(x) returns (n_local,) for x (m_local,), adjoint(y) the other way; collective.

    Attributes
    ----------
    mat
        PETSc matrix (n, m) with `mult` and `multTranspose`.
    """

    def __init__(self, rows: Layout, columns: Layout, forward: Map, adjoint: Map):
        self.rows, self.columns, self.forward, self.adjoint = rows, columns, forward, adjoint
        sizes = ((rows.n_local, rows.n), (columns.n_local, columns.n))
        self.mat = PETSc.Mat().createPython(sizes, _Calls(self), comm=rows.comm)
        self.mat.setUp()

    def close(self) -> None:
        """Destroy the matrix.

        Collective.
        """
        destroy(self.mat)
        self.mat = None

    def __enter__(self) -> Transform:
        """Return the object itself."""
        return self

    def __exit__(self, *reason: object) -> None:
        """Close the object. Collective."""
        self.close()


class _Calls:
    """What PETSc calls; the names are PETSc's."""

    def __init__(self, owner: Transform):
        self._owner = owner

    @called_back
    def mult(self, mat: PETSc.Mat, x: PETSc.Vec, y: PETSc.Vec) -> None:
        y.setArray(self._owner.forward(x.getArray(readonly=True).copy()))

    @called_back
    def multTranspose(self, mat: PETSc.Mat, x: PETSc.Vec, y: PETSc.Vec) -> None:
        y.setArray(self._owner.adjoint(x.getArray(readonly=True).copy()))


def selection(chosen: np.ndarray, layout: Layout) -> PETSc.Mat:
    """Return T whose congruence is the sub-block of some rows. The caller destroys it.

    Collective.

    Parameters
    ----------
    chosen
        (m_local,) global rows that become this rank's, in this order.
    layout
        Of H.
    """
    with agreement(layout.comm):
        chosen = _numbers(chosen, 0, layout.n, "rows of a sub-block")
    columns = Layout.from_local(len(chosen), layout.comm)
    row, col = send_to_owners(layout, chosen, np.arange(columns.start, columns.stop))
    return _of_entries(layout, columns, row - layout.start, col, np.ones(len(row)))


def sharing(labels: np.ndarray, layout: Layout, count: int | None = None) -> PETSc.Mat:
    """Return T for parameters that are shared: row i of H follows parameter labels[i]. The caller destroys it.

    Collective.

    Parameters
    ----------
    labels
        (n_local,) number of the shared parameter of each local row; -1 for a row that is held fixed.
    layout
        Of H.
    count
        How many shared parameters; default as many as the labels say.
    """
    with agreement(layout.comm):
        labels = _numbers(labels, -1, np.iinfo(np.int64).max if count is None else count, "shared parameters")
        if len(labels) != layout.n_local:
            raise InputError(f"{len(labels)} labels for {layout.n_local} rows")
    if count is None:
        count = max(layout.comm.allgather(int(labels.max(initial=-1)))) + 1
    row = np.flatnonzero(labels >= 0)
    return _of_entries(layout, Layout.from_size(count, layout.comm), row, labels[row], np.ones(len(row)))


def scaling(factors: PETSc.Vec | np.ndarray, layout: Layout) -> PETSc.Mat:
    """Return the diagonal T of these factors, m^(-1/2) for mass weighting. The caller destroys it.

    Collective. `factors` are (n_local,), or a Vec.
    """
    factors = local_array(factors, layout, "the factors")
    own = np.arange(layout.n_local)
    return _of_entries(layout, layout, own, own + layout.start, factors)


def projection(vectors: Sequence[PETSc.Vec] | np.ndarray, layout: Layout) -> Transform:
    """Return I - Q Qᵀ, which takes the span of some vectors out: rigid modes. The caller closes it.

    Collective.

    Parameters
    ----------
    vectors
        Vecs, or (m, n) rows that every rank has; dependent ones do no harm.
    layout
        Of H.
    """
    if all(isinstance(vector, PETSc.Vec) for vector in vectors):
        own = np.array([vector.getArray(readonly=True) for vector in vectors]).T
    else:
        with agreement(layout.comm):
            own = np.atleast_2d(reals(vectors, "vectors"))
            if own.ndim != 2 or own.shape[1] != layout.n:
                raise InputError(f"vectors must be (m, {layout.n}), not {own.shape}")
            own = own[:, layout.start : layout.stop].T
    own = local_array(own, layout, "vectors")
    size = np.sqrt(sum_over_ranks(layout.comm, np.square(own).sum(axis=0)))
    Q, R = tall_qr(layout.comm, own / np.where(size > 0, size, 1.0))
    U, size, _ = layout.comm.bcast(np.linalg.svd(R))
    Q = Q @ U[:, : np.count_nonzero(size > _DEPENDENT * size.max(initial=0.0))]

    def project(x: np.ndarray) -> np.ndarray:
        return x - Q @ inner_products(layout.comm, Q, x)

    return Transform(layout, layout, project, project)


def lora(
    A: np.ndarray,
    B: np.ndarray,
    *,
    layout: Layout | None = None,
    variables: np.ndarray | None = None,
    comm: MPI.Comm | None = None,
) -> Transform:
    """Return the Jacobian of W = W0 + B A in its factors (Hu et al. 2022, section 4.1). The caller closes it.

    Collective. dW = dB A + B dA: of r (d_out + d_in) parameters, B's rows first and then A's, evenly laid out.
    Entries of W come row after row; what is no entry of W stays where it is.

    Parameters
    ----------
    A, B
        (r, d_in) and (d_out, r), the same on every rank.
    layout
        Of H, a model's Hessian: rows may lie on the ranks in any way. Default whole rows of W on one rank, as in
        `Grid(d_out, d_in)`.
    variables
        (d_out d_in,) which rows of H the entries of W are, the same on every rank; default all, in their order.
    comm
        Communicator, where no layout is given.

    Examples
    --------
    >>> import numpy as np
    >>> import sparsehess as sh
    >>> from sparsehess.operators import lora
    >>> H = sh.BlockDiagonal([np.diag(np.arange(1.0, 8.0))])  # of W, 2 x 3, and a bias before it
    >>> with H, lora(np.ones((1, 3)), np.ones((2, 1)), layout=H.layout, variables=np.arange(1, 7)) as T:
    ...     with sh.congruence(H, T) as adapted:  # of B's two numbers and A's three
    ...         print(adapted.n, adapted.diagonal())
    5 [ 9. 18.  7.  9. 11.]
    """
    comm = communicator(comm if layout is None else layout.comm)
    with agreement(comm):
        A, B = np.array(reals(A, "A")), np.array(reals(B, "B"))
        if A.ndim != 2 or B.ndim != 2 or len(A) != B.shape[1]:
            raise InputError(f"A must be (r, d_in) and B (d_out, r), not {A.shape} and {B.shape}")
        if not (np.isfinite(A).all() and np.isfinite(B).all()):
            raise InputError("A and B must be finite")
    (r, d_in), d_out = A.shape, len(B)
    rows = Layout.from_size(d_out * d_in, comm, block=max(d_in, 1)) if layout is None else layout
    with agreement(comm):
        at = np.arange(rows.n) if variables is None else _numbers(variables, 0, rows.n, "variables")
        if len(at) != d_out * d_in or len(np.unique(at)) != len(at):
            raise InputError(
                f"W has {d_out} x {d_in} entries, and H {rows.n} rows: `variables` must say which "
                f"{d_out * d_in} of them are W, each once"
            )
    for part, name in ((A, "A"), (B, "B"), (at, "variables")):
        of_all_ranks(comm, part.ravel(), f"numbers of {name}", "every rank gives all of it")
    columns = Layout.from_size(r * (d_in + d_out), comm)
    entries = np.flatnonzero((at >= rows.start) & (at < rows.stop))
    own = at[entries] - rows.start
    first, last = (int(entries[0]) // d_in, int(entries[-1]) // d_in + 1) if len(entries) else (0, 0)
    here, places = slice(first, last), entries - first * d_in  # rows of W, and entries within these

    def forward(x: np.ndarray) -> np.ndarray:
        whole = np.concatenate(comm.allgather(x))  # of the size of the factors, which every rank has
        dB, dA = whole[: d_out * r].reshape(d_out, r), whole[d_out * r :].reshape(r, d_in)
        out = np.zeros(rows.n_local)
        out[own] = (dB[here] @ A + B[here] @ dA).ravel()[places]
        return out

    def adjoint(y: np.ndarray) -> np.ndarray:
        G = np.zeros((last - first) * d_in)
        G[places] = y[own]
        G = G.reshape(last - first, d_in)
        both = np.zeros(columns.n)
        both[first * r : last * r] = (G @ A.T).ravel()
        both[d_out * r :] = (B[here].T @ G).ravel()
        return sum_over_ranks(comm, both)[columns.start : columns.stop]

    return Transform(rows, columns, forward, adjoint)


def _of_entries(rows: Layout, columns: Layout, row: np.ndarray, col: np.ndarray, values: np.ndarray) -> PETSc.Mat:
    local = scipy.sparse.csr_matrix((values, (row, col)), (rows.n_local, columns.n))
    return rectangular(rows, local, columns)


def _numbers(numbers: np.ndarray, low: int, end: int, name: str) -> np.ndarray:
    numbers = np.asarray(numbers)
    if numbers.ndim != 1 or (len(numbers) and numbers.dtype.kind not in "iu"):
        raise InputError(f"{name} must be a list of whole numbers")
    if len(numbers) and not (numbers.min() >= low and numbers.max() < end):
        raise InputError(f"{name} must be from {low} to {end - 1}, not {numbers.min()} to {numbers.max()}")
    return numbers.astype(np.int64)
