"""What is asked of a Hessian, and the products that takes where it is not assembled: by the rules of a run."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sparsehess.commands import flag_groups
from sparsehess.commands.frequency_units import check_units, find_units, spec_in_eigenvalues
from sparsehess.commands.planned_commands import ASSEMBLED
from sparsehess.commands.planned_methods import method_of_matrix, method_of_shell, method_of_unknown_matrix
from sparsehess.eigen.certificates.inertia import predict_products as inertia_products
from sparsehess.eigen.certificates.numerical_rank import predict_products as rank_products
from sparsehess.eigen.estimates.spectral_density import predict_products as density_products
from sparsehess.eigen.estimates.trace import predict_products as trace_products
from sparsehess.eigen.problem.brought_facts import HOPELESS as HOPELESS_NOISE
from sparsehess.eigen.problem.problem import STEPS
from sparsehess.eigen.problem.solve_spec import SolveSpec
from sparsehess.eigen.problem.whole_matrix import is_cheaper_whole, products_of_whole
from sparsehess.eigen.solvers import polynomial_filter
from sparsehess.eigen.solvers.eigs import DEFAULT_K
from sparsehess.eigen.solvers.extremal_eigenpairs import CHEAP
from sparsehess.eigen.solvers.interval_eigenpairs import HOPELESS
from sparsehess.eigen.solvers.method_choice import Choice, products_spent
from sparsehess.eigen.solvers.product_monitor import basis_size, most_products
from sparsehess.errors import InputError
from sparsehess.runtime.row_layout import Layout

if TYPE_CHECKING:
    from mpi4py import MPI

    from sparsehess.commands.spectrum_probe import SpectrumProbe
    from sparsehess.derivatives.objective import Objective
    from sparsehess.pattern import Pattern

# Flags of a plan that eigenpairs alone have, and those that other questions have.
_OF_PAIRS = {
    **{"k": None, "which": "smallest", "target": None, "interval": None, "count": "auto"},
    **{"units": None, "matrix_units": None},
}
_OF_OTHERS = {"function": None, "samples": None, "steps": None}
_METHOD: dict[str, Any] = {"method": "auto"}
_TOL: dict[str, Any] = {"tol": 1e-8}

# Which of them each question has.
_FLAGS = {
    "trace": ("function", "samples", "steps", "method", "tol"),
    "density": ("samples", "steps", "method"),
    "rank": ("samples", "steps", "method"),
}

# Products that tell whether a shell is symmetric (where they are noisy, one more whether they are linear), and of
# differences how exact they are. Beside them `STEPS`, where the size of eigenvalues is asked for.
_SYMMETRY, _ERROR = 2, 2

# What is looked for beyond the pairs takes at most half of what the solve has taken.
_SEARCH = 1.5

# So many times more or less products than predicted a polynomial filter may take, and beside them those that tell
# how many eigenvalues to expect.
_FILTER, _EXPECTING = 5.0, 250


_WHOLE = "made whole (LAPACK)"

# Questions for which the whole matrix is made, and refused where noise has left nothing of it.
_MATRICES = ("eigs", "rank", "inertia", "inverse", "samples", "reduced")

# Questions in which null vectors that a problem brings play no part.
_WITHOUT_NULL = ("inertia", "reduced")

# Questions that factorizations answer.
_FACTORIZED = ("rank", "inertia", "inverse", "samples", "reduced")


class Products(NamedTuple):
    """Products with a Hessian that is not assembled.

    Attributes
    ----------
    least, likely, most
        How many; `most` None where nothing bounds them.
    method, reason
        How the question is answered, and why so.
    flags
        That choose it.
    refused
        Why a run would refuse it; empty where it does not.
    """

    least: int
    likely: int
    most: int | None
    method: str
    reason: str
    flags: str = "--shell"
    refused: str = ""

    @property
    def whole(self) -> bool:
        """Whether they give the whole matrix."""
        return self.method == _WHOLE

    def beside(self, others: int, least: int | None = None) -> Products:
        """Return it with so many more products, and at least so many."""
        most = None if self.most is None else self.most + others
        fewest = others if least is None else least
        return self._replace(least=self.least + fewest, likely=self.likely + others, most=most)


@dataclass(frozen=True)
class Question:
    """What is asked of a Hessian.

    Attributes
    ----------
    command
        That answers it.
    spec
        Of eigenpairs; None for other questions.
    linear, method, samples, steps, tol
        Of a trace, a density, or a rank; whether a trace is that of the Hessian itself.
    """

    command: str
    spec: SolveSpec | None
    linear: bool = True
    method: str = "auto"
    samples: int | None = None
    steps: int | None = None
    tol: float | None = None

    @classmethod
    def of(cls, arguments: argparse.Namespace, options: dict[str, object]) -> Question:
        """Return what the arguments of a plan ask for. Not collective; the same on every rank.

        Raises
        ------
        InputError
            Flags that the command does not have, or would refuse.
        """
        command = arguments.of
        if command == "assemble":
            flag_groups.refuse_flags(arguments, {"shell": False}, "assemble makes the matrix")
        if command == "eigs":
            flag_groups.refuse_flags(arguments, _OF_OTHERS, "eigs takes no samples; say --of what they are for")
            return cls(command, _spec(arguments, options))
        flag_groups.refuse_flags(arguments, _OF_PAIRS, f"{command} asks for no eigenpairs")
        has = _FLAGS.get(command, ())
        idle = {name: value for name, value in (_OF_OTHERS | _METHOD | _TOL).items() if name not in has}
        flag_groups.refuse_flags(arguments, idle, f"nothing that {command} takes")
        linear = (arguments.function or "identity") == "identity"
        tol = None if arguments.tol == _TOL["tol"] else arguments.tol
        return cls(command, None, linear, arguments.method, arguments.samples, arguments.steps, tol)

    def in_eigenvalues(self, arguments: argparse.Namespace, objective: Objective | None) -> Question:
        """Return the question with an interval or target of λ where it is given as frequencies. Not collective."""
        if self.spec is None:
            return self
        return replace(self, spec=spec_in_eigenvalues(arguments, self.spec, find_units(arguments, objective)))

    @property
    def doubled(self) -> Question:
        """The question of the real form of a complex matrix, where each eigenvalue stands twice."""
        if self.spec is None or self.spec.takes_all:
            return self
        return replace(self, spec=replace(self.spec, k=2 * self.number_asked))

    @property
    def number_asked(self) -> int:
        """How many eigenpairs are asked for, the default where no number is given."""
        return (None if self.spec is None else self.spec.k) or DEFAULT_K

    @property
    def inverts(self) -> bool:
        """Whether the run that is asked for factorizes, as far as its method decides."""
        if self.spec is None:
            return self.command in _FACTORIZED and self.method != "density"
        return self.spec.method in ("auto", "krylovschur", "oneshift", "slicing", "feast", "ciss")

    def factorizes(self, n: int) -> bool:
        """Return whether a factorization answers it best, or counts, of an assembled matrix. Not collective."""
        if self.spec is None:
            return self.command in _FACTORIZED
        spec = self.spec
        top = not spec.takes_all and spec.target is None and spec.which in ("largest", "magnitude")
        return not top or spec.count == "yes" or (spec.count == "auto" and n <= CHEAP)

    def number(self, n: int) -> int:
        """Return how many vectors are wanted at one time, about. Not collective."""
        return min(self.number_asked, n)

    def check_number(self, n: int) -> None:
        """Raise InputError where more eigenpairs are asked for than there are, as a run does. Not collective."""
        if self.spec is not None and self.spec.k is not None and self.spec.k > n:
            raise InputError(f"k={self.spec.k} eigenpairs of a matrix with {n} rows: ask for at most {n}")

    def choice_of_matrix(self, n: int, pattern: Pattern | None, comm: MPI.Comm) -> Choice:
        """Return the method that a run takes of an assembled matrix of n rows. Collective."""
        if pattern is None:
            return method_of_unknown_matrix(self.solve_spec, n, comm)
        return method_of_matrix(self.solve_spec, pattern)

    @property
    def solve_spec(self) -> SolveSpec:
        """What eigenpairs are asked for."""
        if self.spec is None:
            raise TypeError(f"{self.command} asks for no eigenpairs")
        return self.spec

    def products(
        self, layout: Layout, null: int, checked: int, by_differences: bool, found: SpectrumProbe | None
    ) -> Products:
        """Return the products that it takes of a Hessian that is not assembled.

        Collective.

        Parameters
        ----------
        null
            How many null vectors are known.
        checked
            How many of them are multiplied, to see that they are null vectors.
        by_differences
            Whether products are differences of gradients.
        found
            What a few products have told, if anything.

        Raises
        ------
        InputError
            A run would refuse it.
        """
        taken = _RULES[self.command](self, layout, null, found)
        if taken.whole and found is not None and found.frobenius == 0:
            taken = taken.beside(-1)  # the error of zeros is not asked for
        if (
            taken.whole
            and self.command in _MATRICES
            and found is not None
            and found.noise_of_whole > HOPELESS_NOISE
        ):
            taken = taken._replace(
                refused="noise leaves nothing of single columns, which err by "
                f"{found.noise_of_whole:.1g} of the Hessian: a run refuses that"
            )
        linear = found is not None and found.not_linear
        if self.command in _WITHOUT_NULL:
            checked = 0
        unsized = not checked and (self.command in ASSEMBLED or (self.command == "trace" and self.linear))
        taken = taken.beside(_SYMMETRY + linear + checked + _ERROR * by_differences)
        if unsized:
            return taken
        if found is not None and found.sizing is not None:
            return taken.beside(found.sizing)
        return taken.beside(min(STEPS, layout.n), 1)


def _spec(arguments: argparse.Namespace, options: dict[str, object]) -> SolveSpec:
    """Return what `eigs` would be asked for, refused where it would refuse it."""
    check_units(arguments)
    for name in ("interval", "target"):
        if getattr(arguments, name) is not None:
            flag_groups.refuse_flags(arguments, flag_groups.WHICH, f"--{name} says which ones already")
    return SolveSpec(
        k=arguments.k,
        which=arguments.which,
        interval=None if arguments.interval is None else tuple(arguments.interval),
        target=arguments.target,
        tol=arguments.tol,
        options=dict(options),
        count=arguments.count,
        seed=arguments.seed,
        method=arguments.method,
        groups=arguments.groups,
        backend=arguments.backend,
    )


def _of_eigenpairs(asked: Question, layout: Layout, null: int, found: SpectrumProbe | None) -> Products:
    n = layout.n
    spec, choice = method_of_shell(asked.solve_spec, layout, null, 0.0 if found is None else found.noise)
    if choice.whole:
        whole = products_of_whole(n)
        return Products(whole, whole, whole, _WHOLE, choice.reason)
    if spec.takes_all:
        return _of_interval(spec, choice, n, found)
    likely = products_spent(n, spec)
    middle = math.ceil(likely) if np.isfinite(likely) else n
    if choice.method != "krylovschur" or any(name.startswith("eps_") for name in spec.options):
        name = "Krylov-Schur" if choice.method == "krylovschur" else choice.method
        flags = "--shell" if spec.method == "auto" else f"--shell --method {choice.method}"
        return Products(spec.number, middle, None, name, choice.reason, flags)
    solve = max(most_products(n, spec.number, held) for held in (True, False))
    most = math.ceil(_SEARCH * solve) + 2 * basis_size(spec.number, True)
    return Products(spec.number, min(middle, most), most, "Krylov-Schur", choice.reason)


def _of_interval(spec: SolveSpec, choice: Choice, n: int, found: SpectrumProbe | None) -> Products:
    if found is None or choice.method != "filter":
        return Products(1, n, None, choice.method, f"{choice.reason}; how many products is not known beforehand")
    low, high = spec.ends
    expected = max(1, round(n * found.share_between(low, high)))
    likely = math.ceil(polynomial_filter.predict_products(low, high, (found.low, found.high), expected))
    refused = ""
    if spec.method == "auto" and likely > HOPELESS * n:
        refused = f"about {likely} products, where {n} give the whole matrix: a run refuses that"
    most = math.ceil(_FILTER * likely) + _EXPECTING
    reason = f"about {expected} eigenvalues in the interval: {choice.reason}"
    least = math.floor(likely / _FILTER)
    return Products(least, likely + _EXPECTING, most, "polynomial filter", reason, refused=refused)


def _sampled(n: int, counts: tuple[int, int, int | None]) -> Products:
    """Return products that give the whole matrix, or those of an estimate with its error."""
    if counts[0] == counts[2] == products_of_whole(n):
        return Products(*counts, _WHOLE, "no estimate takes fewer products than the whole matrix")
    return Products(*counts, "random vectors", "an estimate with its error")


def _of_trace(asked: Question, layout: Layout, null: int, found: SpectrumProbe | None) -> Products:
    n = layout.n
    return _sampled(n, trace_products(n, asked.linear, asked.method, asked.samples, asked.tol, asked.steps))


def _of_density(asked: Question, layout: Layout, null: int, found: SpectrumProbe | None) -> Products:
    n = layout.n
    return _sampled(n, density_products(n, asked.method, asked.samples, asked.steps))


def _of_rank(asked: Question, layout: Layout, null: int, found: SpectrumProbe | None) -> Products:
    n = layout.n
    return _sampled(n, rank_products(n, asked.method, asked.samples, asked.steps))


def _of_inertia(asked: Question, layout: Layout, null: int, found: SpectrumProbe | None) -> Products:
    return _sampled(layout.n, inertia_products(layout.n))


def _of_factors(asked: Question, layout: Layout, null: int, found: SpectrumProbe | None) -> Products:
    if asked.command == "assemble":
        raise InputError("it makes the matrix")
    if not is_cheaper_whole(layout.n, np.inf):
        raise InputError(f"{asked.command} needs factors of an assembled Hessian: leave out --shell")
    whole = products_of_whole(layout.n)
    return _sampled(layout.n, (whole, whole, whole))


_RULES: dict[str, Callable[[Question, Any, int, Any], Products]] = {
    "eigs": _of_eigenpairs,
    "trace": _of_trace,
    "density": _of_density,
    "rank": _of_rank,
    "inertia": _of_inertia,
    **dict.fromkeys(ASSEMBLED, _of_factors),
}
