"""`Objective`: what a user brings, and how its functions are called on any number of ranks.

Two forms of a gradient, told apart by the type of `x`. *Replicated*: x is an ndarray, every rank
can evaluate `gradient(x) -> ndarray` alone, and different ranks evaluate different colours.
*Distributed*: x is a PETSc Vec with the user's layout, and `gradient(x, g)` fills the Vec g
collectively, one colour after another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from mpi4py import MPI

import numpy as np

from sparsehess.derivatives.compressed_products import CompressedProducts
from sparsehess.derivatives.elements import Elements, pattern_of_elements, total_gradient
from sparsehess.derivatives.geometry import Geometry
from sparsehess.derivatives.units import Units
from sparsehess.errors import EvaluationError, InputError, raised
from sparsehess.pattern import Following, Layout, Pattern
from sparsehess.runtime import PETSc, agreement, child, communicator, on_root, require_real
from sparsehess.runtime.lazy import Elsewhere
from sparsehess.runtime.replicated_arrays import of_all_ranks
from sparsehess.runtime.short_repr import ShortRepr, number_of
from sparsehess.runtime.validation import reals, whole_number


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class Objective(ShortRepr):
    """A function that can be differentiated once, at a point.

    Collective to make.

    Attributes
    ----------
    x
        (n,) ndarray, the same on every rank (replicated), or a PETSc Vec (distributed).
        It is where the Hessian is taken.
    gradient
        `gradient(x) -> (n,) ndarray`, or `gradient(x, g)` on Vecs. It gets an
        array of its own, not to be changed, or a Vec that lives for the call. May be left out where
        there is an `energy` of arrays, or products.
    pattern
        Which variables may be coupled: a `Pattern`, or a `Following` one, which moves with x.
    hvp
        Optional Hessian-vector product, `hvp(x, v) -> ndarray`, or `hvp(x, v, y)` on Vecs.
    hvps
        Optional batches of products, `hvps(x, V) -> (m, n) ndarray` for V (m, n), m up to `batch`.
    compressed
        Optional, `compressed(colors, count, reads) -> CompressedProducts`: products with the variables of each
        colour, made once for a colouring. Taken for up to `batch` colours, on one rank.
    compiled
        Whether products are compiled, so that one takes no more time than reading the entries does.
    trace
        Optional, `trace() -> (n, n) SciPy matrix` of the sparsity at every x, or None if that cannot be told.
    batch
        Most directions that `hvps` is given at once.
    energy
        Optional, `energy(x) -> float`.
    bounds
        Optional (lower, upper), numbers or (n,): no function is called beyond them.
    summed
        Whether the functions return this rank's part of a sum over all ranks (each with its share of
        the data or the elements), every rank having the whole of x.
    mass
        Optional mass matrix of the generalised problem H u = λ M u: an (n,) diagonal, a SciPy
        matrix (both the same on every rank) or a PETSc Mat.
    null_vectors
        Optional (m, n) array, the same on every rank, or list of Vecs: known null vectors, such as
        the rigid-body modes of a free structure. They are checked and deflated.
    null_names
        Optional names of the null vectors, for reports.
    projected
        Instead of null vectors, a function of x, an ndarray, that returns an (m, n) array and m names: directions
        that are projected out whatever the Hessian says of them, such as the rigid motions of atoms that are not
        at rest. Answers say what that has changed. `null_vectors` are then its value at x.
    near_null
        Optional (m, n) array or list of Vecs: what the Hessian hardly resists, such as the rigid-body modes of
        a structure that is held, restricted to its free dofs. Multigrid is told of them.
    typical_x
        Optional scale of the variables, a number or (n,): the distance over which the gradient
        changes by its own size, in the units of x. Default: see `user_functions.typical_length`.
    units
        Optional, what an eigenvalue means: `Units.of("eV", "angstrom", "amu")` and others.
    geometry
        Optional, where the variables are: a `Geometry`, with which reports draw modes.
    name
        For reports.
    comm
        mpi4py or petsc4py communicator; for a Vec it is the Vec's own.
    group
        The same objective on the communicator of this rank's group, set by `in_groups`.
    following
        Where the pattern comes from if it moves with x.
    elements
        The elements of this rank, if the function is a sum over them; set by `from_elements`.

    Raises
    ------
    InputError
        Neither a gradient nor products nor an energy; arguments that do not fit each other.
    StackError
        The scalars of this PETSc are complex.

    Examples
    --------
    >>> import numpy as np
    >>> import sparsehess as sh
    >>> def gradient(x):  # of Σ x_i⁴ / 4 + Σ x_i x_{i+1}
    ...     g = x**3
    ...     g[1:] += x[:-1]
    ...     g[:-1] += x[1:]
    ...     return g
    >>> pattern = sh.Pattern.from_edges([[i, i + 1] for i in range(4)], 5)
    >>> objective = sh.Objective(x=np.ones(5), gradient=gradient, pattern=pattern)
    >>> objective.n, objective.distributed
    (5, False)
    """

    x: np.ndarray | PETSc.Vec
    gradient: Callable[..., Any] | None = None
    pattern: Pattern | None = None
    hvp: Callable[..., Any] | None = None
    hvps: Callable[..., Any] | None = None
    batch: int = 1
    compressed: Callable[[np.ndarray, int, np.ndarray], CompressedProducts] | None = None
    compiled: bool = False
    energy: Callable[..., Any] | None = None
    trace: Callable[[], Any] | None = None
    bounds: tuple[Any, Any] | None = None
    summed: bool = False
    mass: Any = None
    null_vectors: Any = None
    null_names: tuple[str, ...] = ()
    projected: Callable[[np.ndarray], tuple[np.ndarray, Sequence[str]]] | None = None
    near_null: Any = None
    typical_x: float | np.ndarray | None = None
    units: Units | None = None
    geometry: Geometry | None = None
    name: str = "objective"
    comm: MPI.Comm = field(default_factory=lambda: MPI.COMM_SELF, repr=False)
    group: Objective | None = field(default=None, repr=False)
    following: Following | None = field(default=None, repr=False)
    elements: tuple[Elements, ...] | None = field(default=None, repr=False)

    # Other ways to make one, from what other programs have.
    from_atoms = Elsewhere("sparsehess.hosts.ase.objective")
    from_casadi = Elsewhere("sparsehess.hosts.casadi")
    from_jax = Elsewhere("sparsehess.hosts.jax.objective")
    from_torch = Elsewhere("sparsehess.hosts.torch.objective")

    def __post_init__(self) -> None:
        """Check the arguments, take our own communicator, and the pattern that holds at x."""
        require_real("an objective, a function of real variables,")
        if self.group is not None:
            comm = communicator(self.comm)
        elif isinstance(self.x, PETSc.Vec):
            comm = communicator(self.x.comm)
        else:
            comm = communicator(self.comm)
            x = same_on_all(self.x, comm, self.name)
            x.flags.writeable = False
            object.__setattr__(self, "x", x)
        object.__setattr__(self, "comm", comm)
        names = ("gradient", "hvp", "hvps", "energy", "projected")
        functions = {name: getattr(self, name) for name in names}
        for name, function in functions.items():
            if not (callable(function) or function is None):
                raise InputError(f"{name} must be a function, not {type(function).__name__}")
        if all(functions[name] is None for name in names[:-1]):
            raise InputError(f"{self.name} has neither gradient nor hvp, hvps or energy")
        if self.distributed and (self.summed or self.hvps is not None):
            raise InputError("summed and hvps are for functions of arrays, not of PETSc vectors")
        if self.elements is not None and (self.hvp is not None or self.hvps is not None):
            raise InputError(
                "a sum over elements is differentiated by its elements' gradients: leave out hvp and hvps"
            )
        if self.elements is not None and isinstance(self.pattern, Following):
            raise InputError("a sum over elements has the pattern of its members, not one that moves with x")
        if whole_number(self.batch, "batch", 1) > 1 and self.hvps is None:
            raise InputError(f"batch={self.batch}: more than 1 only with hvps")
        pair: Any = self.bounds
        if pair is not None and (not isinstance(pair, tuple | list | np.ndarray) or len(pair) != 2):
            raise InputError("bounds must be (lower, upper), numbers or arrays")
        if isinstance(self.pattern, Following):
            object.__setattr__(self, "following", self.pattern)
            object.__setattr__(self, "pattern", self.pattern.at(self.x))
        if not isinstance(self.pattern, Pattern | None):
            raise InputError(
                f"pattern must be a Pattern, not {type(self.pattern).__name__}: make one, by Pattern.from_scipy, "
                "of the rows of a PETSc Mat by Pattern.from_csr, or let assemble detect it"
            )
        if not isinstance(self.geometry, Geometry | None):
            raise InputError(f"geometry must be a Geometry, not {type(self.geometry).__name__}")
        if self.geometry is not None and self.geometry.variables.max(initial=-1) >= self.n:
            raise InputError(
                f"the geometry names variable {self.geometry.variables.max()}, and there are {self.n} of them"
            )
        if self.pattern is not None and self.pattern.n != self.n:
            raise InputError(f"the pattern has {self.pattern.n} variables, x has {self.n}")
        if self.group is None and self.pattern is not None and self.pattern.comm.size != comm.size:
            raise InputError(
                f"the pattern is on a communicator of {self.pattern.comm.size} ranks, the objective on one of "
                f"{comm.size}: say comm= to both, or give both a PETSc vector's"
            )
        if self.projected is not None:
            if self.distributed:
                raise InputError("what is projected out is told of an x that is an array, not a PETSc vector")
            vectors, named = self.projected_at(self.x)
            object.__setattr__(self, "null_vectors", vectors)
            object.__setattr__(self, "null_names", named)

    def _repr_facts(self) -> Iterator[str]:
        """Yield what the line says. Not collective."""
        yield repr(self.name)
        yield number_of(len(self.x), "variable") if isinstance(self.x, np.ndarray) else "on PETSc vectors"
        given = ("gradient", "hvp", "hvps", "energy", "elements", "mass", "null_vectors", "bounds")
        yield "with " + ", ".join(name.replace("_", " ") for name in given if getattr(self, name) is not None)
        yield f"{'no' if self.pattern is None else 'a following' if self.following is not None else 'a'} pattern"

    @property
    def n(self) -> int:
        """How many variables."""
        if not self.distributed:
            return len(self.x)
        vector: PETSc.Vec = self.x
        return int(vector.getSize())

    def projected_at(self, x: np.ndarray) -> tuple[np.ndarray | None, tuple[str, ...]]:
        """Return the directions that are projected out at x, (m, n) or None for none, and their names.

        Collective.

        Raises
        ------
        EvaluationError
            The user's function raised.
        InputError
            It returned something else.
        """
        return on_root(self.comm, _directions, self.projected, x, self.name)

    def traced_pattern(self) -> Pattern | None:
        """Return the pattern that tracing the function tells, at every x; none where it cannot be told.

        Collective.
        """
        if self.trace is None or self.summed:
            return None
        with agreement(self.comm):
            sparsity = self.trace()
        if sparsity is None:
            return None
        return Pattern.from_scipy(sparsity, layout=self.layout, source="tracing, at every x")

    @property
    def distributed(self) -> bool:
        """Whether functions are those of PETSc vectors."""
        return isinstance(self.x, PETSc.Vec)

    @cached_property
    def layout(self) -> Layout:
        """Rows of each rank: the Vec's, the pattern's, or PETSc's even one. Collective the first time."""
        if self.distributed and self.group is None:
            vector: PETSc.Vec = self.x
            return Layout.from_local(vector.getLocalSize(), self.comm)
        return self.pattern.layout if self.pattern is not None else Layout.from_size(self.n, self.comm)

    @classmethod
    def from_elements(
        cls,
        x: np.ndarray,
        elements: Elements | Iterable[Elements],
        *,
        pattern: Pattern | None = None,
        comm: MPI.Comm | None = None,
        **more: Any,
    ) -> Objective:
        """Return the objective of a sum over elements, of which each rank brings its share.

        Collective on `comm`. Its Hessian is that of the elements, summed: no colouring is needed.

        Parameters
        ----------
        x
            (n,) ndarray, the same on every rank.
        elements
            `Elements`, or several kinds of them: the same kinds on every rank, some perhaps empty.
        pattern
            Default what the elements couple.
        more
            Other arguments of `Objective`.

        Raises
        ------
        InputError
            Members that are no variables.
        """
        comm = communicator(comm)
        kinds = (elements,) if isinstance(elements, Elements) else tuple(elements)
        n = reals(x, "x").size
        return cls(
            x=x,
            gradient=total_gradient(kinds, n),
            pattern=pattern_of_elements(kinds, n, comm) if pattern is None else pattern,
            elements=kinds,
            summed=True,
            comm=comm,
            **more,
        )

    @classmethod
    def in_groups(
        cls, make: Callable[[MPI.Comm], Objective], groups: int, comm: MPI.Comm | None = None
    ) -> Objective:
        """Return an objective whose gradients are evaluated by several groups of ranks side by side.

        Collective on `comm`.

        Parameters
        ----------
        make
            `make(comm) -> Objective` on PETSc vectors, called with the communicator of a group; collective
            within the group, and the same objective in every group. It is ours, and freed with `comm`: as many
            groups of the same ranks get the same one again.
        groups
            How many; consecutive ranks form a group.

        Raises
        ------
        InputError
            More groups than ranks, or the objective made is not one of PETSc vectors.
        """
        comm = communicator(comm)
        if not 1 <= groups <= comm.size:
            raise InputError(f"{groups} groups of {comm.size} ranks: at least 1, and no more than there are ranks")
        number = comm.rank * groups // comm.size
        theirs = child(comm, ("groups", groups), lambda: comm.Split(number, comm.rank))
        with agreement(comm):
            inner = make(theirs)
            if not (isinstance(inner, Objective) and inner.distributed):
                raise InputError(
                    "in_groups: make(comm) must return an Objective whose x is a PETSc Vec; "
                    "gradients of arrays are shared out over single ranks as they are"
                )
            if inner.following is not None:
                raise InputError(
                    "in_groups: a pattern that moves with x cannot be shared by groups; give a Pattern"
                )
        pattern = None
        if inner.pattern is not None:
            own = inner.pattern
            if number:  # one group tells all
                rows, columns = np.empty((2, 0), np.int64)
            else:
                rows = np.repeat(np.arange(own.layout.start, own.layout.stop), np.diff(own.indptr))
                columns = own.indices.astype(np.int64)
            pattern = Pattern.from_pairs(rows, columns, own.n, comm=comm, source=own.source)
        geometry = None if number else inner.geometry
        return replace(inner, comm=comm, group=inner, pattern=pattern, geometry=geometry)

    @cached_property
    def limits(self) -> tuple[np.ndarray, np.ndarray]:
        """(lower, upper), each (n_local,): the bounds, infinite where there is none."""
        lower, upper = self.bounds if self.bounds is not None else (-np.inf, np.inf)
        return self.local(lower), self.local(upper)

    @property
    def typical(self) -> np.ndarray | None:
        """(n_local,) the scale of the variables, where it is given. Not collective."""
        if self.typical_x is None:
            return None
        length = self.local(self.typical_x)
        if not ((length > 0) & (length < np.inf)).all():
            raise InputError("typical_x must be positive and finite: it is the length of steps")
        return length

    def local(self, values: object) -> np.ndarray:
        """Return the local rows of an (n,) array that every rank holds, of a scalar, or of a Vec.

        Not collective.
        """
        if isinstance(values, PETSc.Vec):
            vector: PETSc.Vec = values
            return vector.getArray(readonly=True)
        array = reals(values, "a property of the variables")
        if array.ndim == 0:
            return np.full(self.layout.n_local, float(array))
        if array.shape != (self.n,):
            raise InputError(f"expected a number or ({self.n},) values, not shape {array.shape}")
        return array[self.layout.start : self.layout.stop]


def _directions(
    projected: Callable[[np.ndarray], Any], x: np.ndarray, name: str
) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """Return what a user's function says is to be projected out at x, checked."""
    try:
        told = projected(x)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # whatever a function raises
        raise EvaluationError(raised(f"projected of {name}", error)) from error
    if not (isinstance(told, (tuple, list)) and len(told) == 2):
        raise InputError(f"projected of {name} must return (m, {len(x)}) directions and m names")
    vectors, names = reals(told[0], f"what is projected out of {name}"), tuple(map(str, told[1]))
    if not len(names) and not vectors.size:
        return None, ()
    if vectors.shape != (len(names), len(x)):
        raise InputError(
            f"projected of {name} must return (m, {len(x)}) directions and m names, not {vectors.shape} and "
            f"{len(names)}"
        )
    return vectors, names


def same_on_all(given: Any, comm: MPI.Comm, name: str) -> np.ndarray:
    """Return an x that is replicated, as rank 0 has it; that of others may differ by rounding.

    Collective.

    Raises
    ------
    InputError
        It is no vector of numbers, or another one on another rank.
    """
    with agreement(comm):
        x = np.array(reals(given, "x"))
        if x.ndim != 1:
            raise InputError(f"x must be a vector; its shape is {x.shape}")
    return of_all_ranks(
        comm,
        x,
        f"the values of x of {name}",
        "an array is the whole of x on every rank: seed random numbers alike, send rank 0's to all (comm.bcast), "
        "or give a PETSc Vec if each has a part",
    )
