"""What interpreters, debuggers and notebooks show of the public types."""

import faulthandler
import inspect
import re
import xml.etree.ElementTree as ET

import meshio
import numpy as np
import pytest
import scipy.sparse as sp

import sparsehess as sh
from sparsehess.networks import Affine, SquaredError
from sparsehess.runtime import destroy
from sparsehess.runtime.html_fragments import bars, curve, fragment, squares, table, ticks
from sparsehess.runtime.short_repr import ShortRepr, in_short
from support.lattices import chain as chain_of_springs

pytestmark = [pytest.mark.parallel([1, 2, 3]), pytest.mark.essential]

N = 40
LINE, TWO_LINES = 100, 200


def make_near_far(comm):
    points = np.stack(np.meshgrid(np.arange(4.0), np.arange(4.0)), axis=-1).reshape(-1, 2)
    stretched = sh.Objective(
        x=points.ravel(), gradient=lambda x: 16 * x - np.tile(x.reshape(-1, 2).sum(0), 16), comm=comm
    )
    return sh.near_far(stretched, points=points)


def make_items(comm):
    """Return objects of all public types, and of those that public functions return."""
    chain = sh.Pattern.from_pairs(range(N - 1), range(1, N), N, comm=comm)
    objective = sh.Objective(
        x=np.linspace(0.1, 1.0, N),
        gradient=lambda x: x**3,
        hvp=lambda x, v: 3 * x**2 * v,
        pattern=chain,
        name="quartic",
        comm=comm,
    )
    network = sh.Network()
    network.input("x", 1)
    network.input("t", 1)
    network.add("W", Affine(1, bias=False), "x")
    network.loss("loss", SquaredError(), "W", "t")
    samples = {"x": np.ones((2, 1)), "t": np.zeros((2, 1))}
    K = sp.diags([-np.ones(N - 1), np.full(N, 2.0), -np.ones(N - 1)], [-1, 0, 1]).tocsr()
    spectrum = sh.eigs(K, 3, comm=comm)
    slopes = sh.eigenvalue_derivatives(K, spectrum, K, comm=comm)
    followed = sh.follow(lambda p: sp.diags([p, 1.0, 5.0]).tocsr(), [0.5, 1.5], k=2, comm=comm)
    kronecker = sh.Kronecker((np.diag(np.arange(1.0, 6.0)), np.diag(np.arange(1.0, 9.0))), comm=comm)
    chained = chain_of_springs(3)
    rule = sh.Hysteresis(1e-3, 1e-2, chain)
    return [
        chain,
        chain.layout,
        objective,
        network,
        spectrum,
        sh.Units.of("eV", "angstrom", "amu"),
        sh.Elements(np.array([[0, 1], [1, 2]]), gradient=lambda X: X),
        sh.Following(lambda x, margin: chain, skin=0.4),
        sh.color(chain),
        sh.assemble(objective),
        sh.MatrixFree(objective),
        make_near_far(comm),
        sh.LowRankDiagonal(1.0, np.ones((5, 1)), comm=comm),
        sh.EigenCorrected(np.eye(5), np.eye(5), np.ones(sh.Layout.from_size(5, comm).n_local * 5), comm=comm),
        sh.BlockDiagonal([np.eye(2) * (comm.rank + 1)], comm=comm),
        sh.DirectSum([kronecker]),
        sh.NetworkHessian(network, np.zeros(1), samples, comm=comm),
        sh.sparsify(K, sh.Above(0.5), comm=comm),
        sh.Above(1e-3),
        sh.Largest(1000),
        rule,
        sh.Inherited(chain, 0.1, rule),
        sh.SolveSpec(interval=(0.0, 1.0), options={f"eps_{name}": 1 for name in range(30)}),
        sh.EigenProblem.of(K, mass=np.ones(N), comm=comm),
        sh.match_modes(spectrum, spectrum),
        slopes,
        sh.eigenvector_derivatives(K, spectrum, K, numbers=[0], comm=comm),
        sh.matrix_derivative(lambda p: p * K, 1.0, comm=comm),
        followed,
        *followed.events,
        sh.effective_masses(spectrum, np.ones(N), directions=np.ones((1, N))),
        sh.density(K, comm=comm),
        sh.trace(K, "inverse", comm=comm),
        sh.rank(K, comm=comm),
        sh.inertia(K, comm=comm),
        sh.curvature(K, comm=comm),
        sh.certify(K, spectrum, comm=comm),
        sh.selected_inverse(K, comm=comm),
        sh.buckling(K, K, 1, comm=comm),
        sh.damped_modes(K, k=1, comm=comm),
        chained,
        sh.phonons(chained, comm=comm),
        sh.ModeMesh(meshio.Mesh([[0, 0], [1, 0], [1, 1]], {"triangle": [[0, 1, 2]]}), "xy"),
        sh.gaussian_samples(K, 2, comm=comm),
        sh.reduced_hessian(K, np.ones((1, N)), k=1, comm=comm),
        sh.stationary_point(objective, step_tol=1.0),
        sh.diagonal(K, comm=comm),
        sh.block_traces(K, np.repeat(np.arange(4), 10), comm=comm),
        sh.nearest_kronecker(K, 5, 8, comm=comm),
        sh.congruence(K, sp.identity(N).tocsr(), comm=comm),
        sh.weighted_sum([(1.0, K), (2.0, K)], comm=comm),
        sh.Progress("colours", comm),
        sh.Geometry(np.zeros((N, 1))),
        sh.from_matvec(lambda v: v, 7, comm=comm),
        kronecker.eigenvalues(),
        kronecker,
    ]


@pytest.fixture(scope="module")
def items(comm):
    made = make_items(comm)
    yield made
    for item in made:
        close(item)


def close(item):
    if isinstance(item, sh.Curvature):
        destroy(item.direction)
    elif isinstance(item, sh.Pattern):
        item.free()
    elif hasattr(item, "close"):
        item.close()


def parts(item):
    """Return what hangs on an object, of types of this package."""
    held = list(vars(item).values()) if hasattr(item, "__dict__") else []
    return [one for one in held if type(one).__module__.startswith("sparsehess.") and not inspect.isroutine(one)]


def check(item):
    told = repr(item)
    limit = LINE if isinstance(item, ShortRepr) else TWO_LINES
    assert len(told) <= limit and told.count("\n") < 2, told
    assert "array(" not in told and "object at 0x" not in told and "half made" not in told, told
    return told


def test_all_public_types_and_what_functions_return_are_looked_at(items):
    # They make objectives, modes of atoms and what is told of them, and functions for JAX.
    atoms = {
        "from_atoms",
        "force_constants",
        "normal_modes",
        "normal_modes_of_each",
        "saddle_point",
        "thermochemistry",
    }
    hosts = atoms | {"from_casadi", "from_jax", "from_torch", "jax_hessian"}
    public = [getattr(sh, name) for name in sh.__all__ if name not in hosts]
    classes = {one for one in public if inspect.isclass(one) and not issubclass(one, Exception)}
    have = {cls for item in items for cls in type(item).__mro__}
    assert classes <= have, classes - have
    names = {cls.__name__ for cls in have} | {"PETSc", "None"}
    for function in filter(inspect.isfunction, public):
        returned = str(inspect.signature(function).return_annotation)
        assert set(re.findall(r"\b[A-Z]\w+", returned)) <= names, (function, returned)


def test_lines_are_short_and_so_are_those_of_parts(items):
    for item in items:
        told = check(item)
        assert type(item).__name__ in told
        for part in parts(item):
            if isinstance(part, ShortRepr):
                check(part)


def test_a_rank_alone_may_ask(items, comm):
    """In a debugger the others wait elsewhere. Were it collective the test would hang, and be ended."""
    faulthandler.dump_traceback_later(120, exit=True)
    if comm.rank == 0:
        for item in items:
            repr(item)
            getattr(item, "_repr_html_", str)()
    comm.Barrier()
    faulthandler.cancel_dump_traceback_later()


def test_closed_ones_have_lines_too(comm):
    made = make_items(comm)
    for item in made:
        close(item)
    told = [check(item) for item in made]
    for item, line in zip(made, told, strict=True):
        if isinstance(item, (sh.Hessian, sh.MatrixFree, sh.Operator, sh.Spectrum, sh.Sparsified)):
            assert "closed" in line, line
        getattr(item, "_repr_html_", str)()


def test_half_made_ones_have_lines_too():
    for cls in (sh.Pattern, sh.Objective, sh.Hessian, sh.Kronecker, sh.Spectrum, sh.EigenProblem):
        assert repr(cls.__new__(cls)) == f"<{cls.__name__}: half made>"


def test_lines_say_what_matters(items, comm):
    told = {type(item).__name__: repr(item) for item in items}
    assert told["Hessian"].startswith("<Hessian: 'quartic', 40 variables, ")
    lowest = 4 * np.sin(np.pi / (2 * (N + 1))) ** 2
    assert told["Spectrum"].startswith(f"<Spectrum: 3 pairs from {lowest:.6g} to ")
    assert ", certified below " in told["Spectrum"]
    assert told["Inertia"] == "<Inertia: 0 negative, 0 zero, 40 positive, certified>"
    assert told["SolveSpec"] == "<SolveSpec: interval=(0, 1), options=30 in a dict>"
    assert told["Layout"] == f"<Layout: 40 rows over {comm.size} rank{'s' if comm.size > 1 else ''}>"
    if comm.size == 1:
        assert told["Pattern"] == "<Pattern: 40 variables, 118 entries, from pairs>"
    for array, said in ((np.ones((3, 4)), "3x4 array"), (np.float64(0.1), "0.1"), ([1] * 9, "9 in a list")):
        assert in_short(array) == said


def test_pages_are_well_formed_and_escaped(items):
    """As XML, which is stricter than a browser."""
    pages = {type(item).__name__: item._repr_html_() for item in items if hasattr(item, "_repr_html_")}
    assert {"Spectrum", "Density", "Coloring", "Pattern"} <= set(pages)
    for page in pages.values():
        root = ET.fromstring(page.replace("<br>", "<br/>"))
        assert root.tag == "div" and root.findall(".//svg") and len(page) < 2**17
    assert len(ET.fromstring(pages["Spectrum"]).findall(".//tr")) == 4
    evil = "<script>alert('x')</script>"
    for page in (fragment(evil, table([[evil]], [evil])), squares(np.eye(2), evil), bars(np.ones(2), evil)):
        assert "<script>" not in page
        ET.fromstring(page)


def test_the_picture_of_a_pattern_has_its_entries(comm):
    arrow = sh.Pattern.from_pairs(np.zeros(5, int), np.arange(1, 6), 6, comm=comm)
    cells = ET.fromstring(arrow._repr_html_().replace("<br>", "<br/>")).findall(".//rect")
    shown = {(int(cell.get("y")) + arrow.layout.start, int(cell.get("x"))) for cell in cells}
    row = np.repeat(np.arange(arrow.layout.start, arrow.layout.stop), np.diff(arrow.indptr))
    assert shown == set(zip(row.tolist(), arrow.indices.tolist(), strict=True))


def test_pictures_of_what_is_not_finite_or_not_there():
    x = np.linspace(0.0, 1.0, 5)
    for page in (curve(x, np.full(5, np.nan), x, ""), ticks(np.array([np.inf]), ""), ticks(np.empty(0), "")):
        assert page == ""
    for page in (curve(x, x, np.full(5, np.inf), "a"), curve(x[:1], x[:1], x[:1], "b"), ticks(x[:1], "c")):
        assert "nan" not in page and "inf" not in page
        ET.fromstring(page)
    assert "nan" not in squares(np.zeros((0, 0)), "none") + bars(np.empty(0), "none")
