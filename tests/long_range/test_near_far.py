"""Near and far against dense Hessians of closed-form potentials, and the error told against the true one."""

from dataclasses import replace

from mpi4py import MPI

import numpy as np
import pytest

import sparsehess as sh
from sparsehess.errors import InputError
from support.dense_answers import whole
from support.pair_potentials import PairPotential, ions, lattice, lennard_jones, screened

pytestmark = [pytest.mark.parallel([1, 2, 3]), pytest.mark.essential]


def objective(potential, comm, **more):
    return sh.Objective(x=potential.x, gradient=potential.gradient, comm=comm, **more)


def dense(H):
    own = np.arange(H.layout.start, H.layout.stop)
    return whole(H.layout, H.products((own[:, None] == np.arange(H.n)).astype(float)))


def off(H, exact):
    return np.linalg.norm(dense(H) - exact) / np.linalg.norm(exact)


def calls(H):
    return sum(H.evaluations.values())


def test_pair_terms_of_one_kind(comm):
    potential = lennard_jones(lattice(5)[0])
    exact = potential.hessian()
    with sh.near_far(objective(potential, comm), points=potential.points, gradients=100) as H:
        found = dense(H)
        error = np.linalg.norm(found - exact) / np.linalg.norm(exact)
        assert error < 2e-5 and 1 / 1.5 < H.error / error < 1.5 and not H.approximate
        assert H.kernel is not None and H.kernel.misfit < 1e-3 and calls(H) <= 100
        assert H.error_norm == pytest.approx(H.error * np.linalg.norm(exact), rel=0.2)
        assert np.abs(found - found.T).max() <= 1e-14 * np.abs(found).max()
        assert whole(H.layout, H.diagonal()) == pytest.approx(np.diag(found), rel=1e-13)
        facts = H.coloring.count, H.cutoff, H.evaluations
    if comm.size > 1:
        alone = objective(potential, MPI.COMM_SELF)
        with sh.near_far(alone, points=potential.points, gradients=100) as H:
            assert facts == (H.coloring.count, H.cutoff, H.evaluations)
            assert found == pytest.approx(dense(H), abs=1e-7 * np.abs(found).max())


def test_a_geometry_tells_charges_cell_and_kinds(comm):
    points, charges = lattice(4, jitter=0.03, seed=1)
    potential, names = ions(1.25 * points, charges), np.where(charges > 0, "Na", "Cl").tolist()
    geometry = sh.Geometry(potential.points, species=names, charges=charges, cell=np.diag([0.0, 9.0, 9.0]))
    told = objective(potential, comm, geometry=geometry)
    given = {"points": potential.points, "labels": names, "charges": charges, "box": (0, 9, 9)}
    with (
        sh.near_far(told, gradients=100, tolerance=10.0) as H,
        sh.near_far(objective(potential, comm), gradients=100, tolerance=10.0, **given) as same,
    ):
        assert H.kernel is not None and (dense(H) == dense(same)).all() and H.error == same.error
    flat = replace(geometry, cell=[[9, 1, 0], [18, 2, 0], [0, 0, 9]])
    with pytest.raises(InputError, match="the 3 vectors by which points repeat do not span 3 directions"):
        sh.near_far(replace(told, geometry=flat), gradients=100)


def test_charges_weigh_the_kernel_and_without_them_the_error_says_so(comm):
    points, charges = lattice(5, jitter=0.03, seed=1)
    charges, points = np.random.default_rng(1).permutation(charges), 1.25 * points
    potential = ions(points, charges)
    exact = potential.hessian()
    given = {"points": points, "gradients": 90, "tolerance": 1e-4}
    with sh.near_far(objective(potential, comm), charges=charges, **given) as H:
        error = off(H, exact)
        assert error < 1e-4 and 1 / 1.5 < H.error / error < 1.5 and calls(H) <= 90
    with sh.near_far(objective(potential, comm), **given | {"tolerance": 10.0}) as H:
        error = off(H, exact)
        assert error > 0.1 and H.error > 0.1 and 1 / 1.5 < H.error / error < 1.5
        assert H.kernel is None  # not even though a part of it can be fitted


def test_a_kernel_that_readings_of_near_entries_do_not_bear_out_is_not_taken(comm):
    points, charges = lattice(4, jitter=0.03)
    potential = ions(1.25 * points, charges)  # some pairs are far, and seen nowhere where the fit looks
    given = {"points": potential.points, "gradients": 150, "tolerance": 10.0}
    with sh.near_far(objective(potential, comm), **given) as H:
        assert H.kernel is None and off(H, potential.hessian()) < 0.1
    with sh.near_far(objective(potential, comm), charges=charges, **given) as H:
        assert H.kernel is not None and off(H, potential.hessian()) < 1e-5


@pytest.mark.parallel([1])
@pytest.mark.thorough
@pytest.mark.parametrize("case", ["lennard-jones", "ions", "screened"])
def test_few_of_thousands_of_gradients(case, comm):
    points, charges = lattice(8, jitter=0.03)
    potential, told = {
        "lennard-jones": (lennard_jones(points), {}),
        "ions": (ions(1.25 * points, charges), {"charges": charges}),
        "screened": (screened(points), {}),
    }[case]
    exact = potential.hessian()
    with sh.near_far(objective(potential, comm), points=potential.points, gradients=150, **told) as H:
        error = off(H, exact)
        assert potential.calls <= 150 and error < 2e-5 and 1 / 1.5 < H.error / error < 1.5
        with sh.lowest_pairs(H, 10, gradients=50) as found:
            apart = np.abs(found.eigenvalues - np.linalg.eigvalsh(exact)[:10])
            assert apart.max() < 1e-6 * np.abs(found.eigenvalues).max() and potential.calls <= 200


def test_every_two_labels_have_their_kernel(comm):
    points, charges = lattice(5, seed=2)
    names = np.where(charges > 0, "Na", "Cl")
    potential = ions(points, charges)
    with sh.near_far(objective(potential, comm), points=points, labels=names, gradients=110) as H:
        assert off(H, potential.hessian()) < 1e-4 and H.error < 1e-4


def test_a_periodic_box_in_two_dimensions(comm):
    points = lattice(9, dims=2, seed=3)[0]
    potential = screened(points, box=9.0)
    exact = potential.hessian()
    far_away = points + 9.0 * np.sign(np.sin(np.arange(points.size))).reshape(points.shape)  # other images
    with sh.near_far(objective(potential, comm), points=far_away, box=(9.0, 9.0), gradients=80) as H:
        error = off(H, exact)
        assert error < 1e-4 and 1 / 1.5 < H.error / error < 1.5


class OverImages(PairPotential):
    """Pair terms with all images along some vectors that are not far."""

    def __init__(self, potential, vectors):
        super().__init__(potential.points, potential.slope, potential.bend)
        turns = np.array([(a, b) for a in range(-2, 3) for b in range(-2, 3)])
        self.turns = turns @ vectors

    def gradient(self, x):
        where = x.reshape(self.points.shape)
        d = (where[:, None] - where[None])[:, :, None] + self.turns
        r = np.sqrt((d**2).sum(axis=3))
        r[r == 0] = 1.0
        force = self.slope(r) / r
        force[np.arange(len(where)), np.arange(len(where))] = 0.0
        return (force[..., None] * d).sum(axis=(1, 2)).ravel()

    def hessian(self):
        many, dims = self.points.shape
        total = np.zeros((many, dims, many, dims))
        for turn in self.turns:
            d = self.points[:, None] - self.points[None] + turn
            r = np.sqrt((d**2).sum(axis=2))
            r[r == 0] = 1.0
            along = self.slope(r) / r
            steep = (self.bend(r) - along) / r**2
            total -= np.einsum("ij,ab->iajb", along, np.eye(dims)) + np.einsum("ij,ija,ijb->iajb", steep, d, d)
        each = np.arange(many)
        total[each, :, each] = 0.0
        total[each, :, each] = -total.sum(axis=2)
        return total.reshape(many * dims, many * dims)


@pytest.mark.parametrize(
    "vectors", [[[9.0, 0.0], [4.5, 7.8]], [[9.0, 0.5], [0.0, 0.0]]], ids=["hexagonal", "one-way"]
)
def test_boxes_of_any_vectors(vectors, comm):
    vectors, points = np.array(vectors), lattice(9, dims=2, seed=3)[0]
    if vectors[1].any():
        points = points / 9 @ vectors
    potential = OverImages(screened(points, length=0.4), vectors)
    exact = potential.hessian()
    elsewhere = points + np.rint(np.sin(np.arange(points.size)).reshape(points.shape)) @ vectors
    geometry = sh.Geometry(elsewhere, cell=vectors)
    with sh.near_far(objective(potential, comm, geometry=geometry), gradients=50) as H:
        error = off(H, exact)
        assert error < 1e-4 and 1 / 1.5 < H.error / error < 1.5 and H.kernel is not None
    with sh.near_far(objective(potential, comm), points=points, gradients=50, tolerance=10.0) as H:
        assert off(H, exact) > 1e-2  # what is near across the box is not near without it


def test_bonds_are_near_at_whatever_distance(comm):
    points = lattice(4, seed=4)[0]
    weights = np.zeros((64, 64))
    weights[0, 63] = weights[63, 0] = 30.0  # a spring from corner to corner
    base = screened(points)
    potential = PairPotential(points, lambda r: base.slope(r) + weights * r, lambda r: base.bend(r) + weights)
    exact = potential.hessian()
    given = {"points": points, "gradients": 90, "tolerance": 10.0}
    with sh.near_far(objective(potential, comm), bonds=[[0, 63]], **given) as H:
        assert off(H, exact) < 1e-4
    with sh.near_far(objective(potential, comm), **given) as H:
        error = off(H, exact)
        assert error > 1e-2 and H.error > 0.5 * error


def many_body(points):
    """Return a gradient of Σ √(Σ e^(-r)), no sum over pairs."""

    def gradient(x):
        apart = x.reshape(-1, 1, 3) - x.reshape(1, -1, 3)
        r = np.sqrt((apart**2).sum(axis=2) + np.eye(len(apart)))
        density = np.exp(-r) - np.exp(-1.0) * np.eye(len(apart))
        slope = 0.5 / np.sqrt(density.sum(axis=1))
        force = (slope[:, None] + slope[None]) * density / r
        return -(force[..., None] * apart).sum(axis=1).ravel()

    columns = []
    for unit in np.eye(points.size):
        columns.append((gradient(points.ravel() + 1e-4 * unit) - gradient(points.ravel() - 1e-4 * unit)) / 2e-4)
    return gradient, np.array(columns)


def test_more_gradients_until_the_tolerance_or_half_of_all_and_then_it_is_approximate(comm):
    points = lattice(4, seed=5)[0]
    gradient, exact = many_body(points)
    of_many = sh.Objective(x=points.ravel(), gradient=gradient, comm=comm)
    with sh.near_far(of_many, points=points, gradients=60, tolerance=1e-7) as H:
        error = off(H, exact)
        assert H.approximate and H.error > 1e-7 and 1 / 1.5 < H.error / error < 1.5
        assert H.evaluations["earlier"] > 0 and calls(H) <= points.size and "approximate" in repr(H)
    with sh.near_far(of_many, points=points, gradients=60, most=100, tolerance=1e-7) as H:
        assert H.approximate and calls(H) <= 100
    with sh.near_far(of_many, points=points, gradients=300, tolerance=1e-6) as H:  # all is near
        assert H.kernel is None and off(H, exact) < 1e-6 and not H.approximate


def test_what_was_paid_for_is_counted_once_and_used_again(comm):
    points = lattice(4, seed=5)[0]
    gradient, exact = many_body(points)
    seen = set()

    def noted(x):
        seen.add(x.tobytes())
        return gradient(x)

    of_many = sh.Objective(x=points.ravel(), gradient=noted, comm=comm)
    with sh.near_far(of_many, points=points, gradients=60, tolerance=1e-7) as H:
        everywhere = len(set().union(*comm.allgather(seen)))
        told, colors, cutoff, error = H.evaluations, H.coloring.count, H.cutoff, off(H, exact)
        assert everywhere == calls(H) - 1  # that at x alone is taken twice, once on the line of the noise
        assert told["verification"] == 8 and told["gradient"] == colors  # neither products nor that at x anew
    with sh.near_far(of_many, points=points, gradients=60, most=60, tolerance=1e-7) as first:
        assert first.cutoff < cutoff and first.evaluations["earlier"] == 0
        assert told["earlier"] >= first.coloring.count + 1 and off(first, exact) > error


def test_readings_of_another_colouring_are_far_data_too(comm):
    from sparsehess.long_range.cutoff import largest_near_field
    from sparsehess.long_range.kernel_fit import Readings, fit_kernel
    from sparsehess.long_range.points import Points
    from sparsehess.long_range.radial_kernel import Shape

    potential = lennard_jones(lattice(4, seed=6)[0])
    exact, told = potential.hessian(), objective(potential, comm)
    where = Points.of(told, potential.points)
    small, large = (largest_near_field(where, np.zeros((0, 2), int), colors, 0) for colors in (40, 90))
    rows = slice(small.pattern.layout.start, small.pattern.layout.stop)
    signs = np.where(np.random.default_rng(0).random(192) < 0.5, -1e-4, 1e-4)
    found = []
    for fields in ((large,), (small, large)):
        readings = []
        for field in fields:
            mine = field.coloring.colors
            whole_colors = np.concatenate(comm.allgather(mine))
            columns = [exact @ (signs * (whole_colors == color)) for color in range(field.coloring.count)]
            readings.append(Readings(field.coloring, signs[rows], np.array(columns)[:, rows]))
        shape = Shape(large.radius, where.extent()[1])
        found.append(fit_kernel(where, large.pattern, readings, shape, 0))
    alone, together = found
    assert together is not None and together.misfit < 1e-3
    far = np.linalg.norm(potential.points[:, None] - potential.points[None], axis=2) > large.radius
    blocks = np.kron(far, np.ones((3, 3))) * exact
    own = np.arange(192)[rows]
    product = whole(large.pattern.layout, together.products((own[:, None] == np.arange(192)).astype(float)))
    assert np.linalg.norm(product - blocks) < 1e-3 * np.linalg.norm(blocks)
    assert alone is None or together.coefficients.size >= alone.coefficients.size


def test_products_and_central_differences_are_read_too(comm):
    potential = lennard_jones(lattice(4, seed=6)[0])
    exact = potential.hessian()
    by_products = sh.Objective(x=potential.x, hvp=lambda x, v: exact @ v, comm=comm)
    with sh.near_far(by_products, points=potential.points, gradients=70) as H:
        assert off(H, exact) < 1e-6 and H.evaluations["hvp"] + H.evaluations["verification"] <= 70
        assert H.evaluations["gradient"] == 0
    bounded = objective(potential, comm, bounds=(potential.x - 1e-5, np.inf))  # steps to one side
    with sh.near_far(bounded, points=potential.points, gradients=150, derivative="central") as H:
        assert off(H, exact) < 1e-3 and calls(H) <= 150


def test_points_of_a_geometry_and_vectors_of_petsc(comm):
    from petsc4py import PETSc

    potential = lennard_jones(lattice(4, seed=7)[0])
    exact, many = potential.hessian(), 64
    geometry = sh.Geometry(potential.points)
    with sh.near_far(objective(potential, comm, geometry=geometry), gradients=90) as H:
        assert off(H, exact) < 1e-4
        expected = H.error
    layout = sh.Layout.from_size(many, comm)
    x = PETSc.Vec().createMPI((3 * layout.n_local, 3 * many), comm=comm)
    x.setArray(potential.x[3 * layout.start : 3 * layout.stop])

    def gradient(where, out):
        everywhere = np.concatenate(comm.allgather(where.getArray(readonly=True).copy()))
        out.setArray(potential.gradient(everywhere)[3 * layout.start : 3 * layout.stop])

    of_vectors = sh.Objective(x=x, gradient=gradient)
    own = potential.points[layout.start : layout.stop]
    with sh.near_far(of_vectors, points=own, gradients=90) as H:
        assert off(H, exact) < 1e-4 and H.error == pytest.approx(expected, rel=0.5)
    x.destroy()


def test_what_takes_a_hessian_takes_it_with_what_its_objective_knows(comm):
    potential = lennard_jones(lattice(4, seed=8)[0][:60])  # as many rows a rank as PETSc would give it
    exact = np.linalg.eigvalsh(potential.hessian())
    shifts = np.tile(np.eye(3), 60)
    of_atoms = objective(potential, comm, mass=np.full(180, 4.0), null_vectors=shifts)
    with sh.near_far(of_atoms, points=potential.points, gradients=110) as H:
        with sh.eigs(H, 5, which="largest") as found:
            assert found.eigenvalues == pytest.approx(exact[-5:] / 4, rel=1e-4)
        plain = replace(of_atoms, mass=None, null_vectors=None)
        with sh.MatrixFree(plain) as true, sh.eigs(true, 3, method="lobpcg", preconditioner=H) as found:
            assert found.eigenvalues == pytest.approx(exact[:3], abs=1e-5 * exact[-1])
        assert H.applies_inverse
        shift = 1.0 - exact[0]
        image = H.apply_inverse(np.ones((H.layout.n_local, 1)), shift)
        x, y = H.near.createVecs()
        x.setArray(image)
        H.near.mult(x, y)
        assert y.getArray() + shift * image[:, 0] == pytest.approx(np.ones(H.layout.n_local), rel=1e-8)
        x.destroy()
        y.destroy()


def test_mistakes_are_named(comm):
    potential = lennard_jones(lattice(3, seed=9)[0])
    wrong = objective(potential, comm)
    points = potential.points
    for match, given in (
        ("does not say where its points are", {}),
        ("27 points in 2 dimensions are 54 variables", {"points": points[:, :2]}),
        ("1 to 3", {"points": points.ravel()}),
        ("box must be 3 lengths", {"points": points, "box": 3.0}),
        ("a finite number a point", {"points": points, "charges": np.full(27, np.nan)}),
        ("26 labels", {"points": points, "labels": ["a"] * 26}),
        ("27 different labels", {"points": points, "labels": range(27)}),
        ("bonds name points 0 to 27", {"points": points, "bonds": [[0, 27]]}),
        ("bonds must be pairs", {"points": points, "bonds": [0, 1]}),
        ("tolerance=0 must be positive", {"points": points, "tolerance": 0}),
        ("derivative 'complex'", {"points": points, "derivative": "complex"}),
        ("single points alone need 3 .* allow 2 gradients more", {"points": points, "gradients": 17}),
        ("gradients for 0 beside", {"points": points, "gradients": 1}),
    ):
        with pytest.raises(InputError, match=match):
            sh.near_far(wrong, **given)
