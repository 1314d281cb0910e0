"""K-FAC and EKFAC of PyTorch models against dense curvature; any number of ranks."""

import numpy as np
import pytest

import sparsehess as sh
from sparsehess.errors import InputError
from sparsehess.hosts.learning.parameter_groups import diagonal_blocks
from sparsehess.hosts.learning.sample_shares import share_samples
from support.dense_answers import dense

torch = pytest.importorskip("torch")

from sparsehess.hosts.torch.kfac import ekfac, kfac  # noqa: E402
from sparsehess.hosts.torch.model_curvature import empirical_fisher, gauss_newton  # noqa: E402

pytestmark = pytest.mark.parallel([1, 2])

DRAWN = np.random.default_rng(6)
INPUTS, VALUES, CLASSES = DRAWN.normal(size=(9, 4)), DRAWN.normal(size=(9, 3)), DRAWN.integers(0, 3, 9)
IMAGES = DRAWN.normal(size=(9, 2, 6, 5))
SQUARES, ENTROPY = torch.nn.MSELoss(), torch.nn.CrossEntropyLoss()
KINDS = {"gauss-newton": gauss_newton, "empirical fisher": empirical_fisher}


def entries(operator):
    """Return the whole matrix, on every rank."""
    layout, eye = operator.layout, np.eye(operator.n)
    own = [operator.product(np.ascontiguousarray(row[layout.start : layout.stop])) for row in eye]
    return np.concatenate(layout.comm.allgather(np.array(own).T))


def blocks_of(matrix, variables):
    out = np.zeros_like(matrix)
    for rows in variables.values():
        out[np.ix_(rows, rows)] = matrix[np.ix_(rows, rows)]
    return out


def curvature(make, model, loss, inputs, targets, comm, **options):
    objective = make(model, loss, *share_samples(inputs, targets, comm=comm), comm=comm, **options)
    return comm.allreduce(objective.hvps(objective.x, np.eye(objective.n)))


def off(found, exact):
    return np.linalg.norm(found - exact) / np.linalg.norm(exact)


def convolutions():
    torch.manual_seed(1)
    return torch.nn.Sequential(
        torch.nn.Conv2d(2, 3, (3, 2), stride=(2, 1), padding=1, dilation=(1, 2)),
        torch.nn.Tanh(),
        torch.nn.Conv2d(3, 4, 2, padding="same", padding_mode="circular", bias=False),
        torch.nn.Tanh(),
        torch.nn.AdaptiveAvgPool2d((1, 2)),
        torch.nn.Flatten(),
        torch.nn.Linear(8, 3),
    )


def test_exact_for_one_linear_layer(comm):
    torch.manual_seed(0)
    layer = torch.nn.Linear(4, 3)
    own = share_samples(INPUTS, VALUES, comm=comm)
    exact = curvature(gauss_newton, layer, SQUARES, INPUTS, VALUES, comm)
    with kfac(layer, SQUARES, *own, comm=comm) as found:
        assert off(entries(found), exact) < 1e-14
        assert found.trace() == pytest.approx(np.trace(exact), rel=1e-13)
        np.testing.assert_allclose(found.spectrum(15), np.linalg.eigvalsh(exact), atol=1e-14)
    # One sample, whatever the loss.
    one = share_samples(INPUTS[:1], CLASSES[:1], comm=comm)
    for kind, make in KINDS.items():
        exact = curvature(make, layer, ENTROPY, INPUTS[:1], CLASSES[:1], comm)
        for build in (kfac, ekfac):
            with build(layer, ENTROPY, *one, curvature=kind, comm=comm) as found:
                assert off(entries(found), exact) < 1e-13


def test_exact_layer_by_layer_for_linear_networks(comm):
    """Martens, Grosse 2015, section 3.1: slopes do not depend on inputs. Convolutions: Eschenhagen et al. 2023."""
    torch.manual_seed(2)
    deep = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.Linear(5, 2, bias=False), torch.nn.Linear(2, 3))
    pooled = torch.nn.Sequential(
        torch.nn.Conv2d(2, 3, 2, stride=2, padding=1),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
    )
    alone = torch.nn.Conv2d(2, 2, (3, 2), stride=(2, 1), padding=(0, 1), dilation=(1, 2))
    wanted = DRAWN.normal(size=alone(torch.tensor(IMAGES).float()).shape)
    for model, sharing, inputs, targets in (
        (deep, "expand", INPUTS, VALUES),
        (pooled, "reduce", IMAGES, VALUES),
        (alone, "expand", IMAGES, wanted),
    ):
        exact = curvature(gauss_newton, model, SQUARES, inputs, targets, comm)
        with kfac(model, SQUARES, *share_samples(inputs, targets, comm=comm), sharing=sharing, comm=comm) as found:
            assert off(entries(found), blocks_of(exact, found.variables)) < 1e-13


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sharing", ["expand", "reduce"])
def test_corrected_eigenvalues(kind, sharing, comm):
    own = share_samples(IMAGES, CLASSES, comm=comm)
    exact = curvature(KINDS[kind], convolutions(), ENTROPY, IMAGES, CLASSES, comm)
    given = {"curvature": kind, "sharing": sharing, "comm": comm}
    with (
        kfac(convolutions(), ENTROPY, *own, **given) as plain,
        ekfac(convolutions(), ENTROPY, *own, **given) as best,
    ):
        block = blocks_of(exact, best.variables)
        assert best.trace() == pytest.approx(np.trace(exact), rel=1e-12)
        matrix = entries(best)
        for name, part in best.parts.items():
            rows = best.variables[name]
            layer = exact[np.ix_(rows, rows)]
            Q = np.kron(part.QA, part.QB)
            s = np.concatenate(comm.allgather(part.s))
            np.testing.assert_allclose(s, np.einsum("ij,ik,kj->j", Q, layer, Q), atol=1e-14)
            assert np.trace(matrix[np.ix_(rows, rows)]) == pytest.approx(np.trace(layer), rel=1e-12)
        assert off(matrix, block) <= off(entries(plain), block)


def test_chunks_make_no_difference(comm):
    own = share_samples(IMAGES, CLASSES, comm=comm)
    for build in (kfac, ekfac):
        with (
            build(convolutions(), ENTROPY, *own, comm=comm) as whole,
            build(convolutions(), ENTROPY, *own, memory=1, comm=comm) as pieces,
        ):
            assert whole.trace() == pytest.approx(pieces.trace(), rel=1e-13)
            # Eigenvectors of equal eigenvalues are not unique: matrices are compared where none are needed.
            if build is kfac:
                assert off(entries(pieces), entries(whole)) < 1e-13


def test_solves_and_what_is_left_out(comm):
    torch.manual_seed(3)
    model = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.LayerNorm(5), torch.nn.Linear(5, 3))
    own = share_samples(INPUTS, CLASSES, comm=comm)
    with kfac(model, ENTROPY, *own, comm=comm) as found:
        assert found.uncovered == ("1.weight", "1.bias") and found.missing == 10
        assert "zero in 1.weight, 1.bias" in repr(found)
        H = entries(found)
        np.testing.assert_allclose(
            found.diagonal(), np.diag(H)[found.layout.start : found.layout.stop], atol=1e-15
        )
        b = np.random.default_rng(0).normal(size=found.n)
        x = found.solve(b[found.layout.start : found.layout.stop], shift=0.3)
        exact = np.linalg.solve(H + 0.3 * np.eye(found.n), b)
        np.testing.assert_allclose(x, exact[found.layout.start : found.layout.stop], atol=1e-12)
        assert found.logdet(0.3) == pytest.approx(np.linalg.slogdet(H + 0.3 * np.eye(found.n))[1], rel=1e-12)
        assert found.logdet() == -np.inf
        np.testing.assert_allclose(found.spectrum(found.n), np.linalg.eigvalsh(H), atol=1e-14)
        with pytest.raises(InputError, match=r"10 variables are in no layer \(1.weight, 1.bias\)"):
            found.solve(x)
    with kfac(model, ENTROPY, *own, parameters=r"[02]\..*", comm=comm) as found:
        root = found.function(lambda values: np.sqrt(np.abs(values) + 0.1))
        with root:
            R = entries(root)
            np.testing.assert_allclose(R @ R, entries(found) + 0.1 * np.eye(found.n), atol=1e-13)


def test_blocks_are_those_of_the_curvature(comm):
    own = share_samples(IMAGES, CLASSES, comm=comm)
    with (
        ekfac(convolutions(), ENTROPY, *own, comm=comm) as factors,
        sh.MatrixFree(gauss_newton(convolutions(), ENTROPY, *own, comm=comm)) as free,
    ):
        groups = {name: np.sort(rows) for name, rows in factors.variables.items()}
        with diagonal_blocks(free, groups) as found:
            assert found.trace() == pytest.approx(factors.trace(), rel=1e-12)


def test_layers_without_factors_are_named(comm):
    own = share_samples(IMAGES, CLASSES, comm=comm)
    grouped = torch.nn.Sequential(torch.nn.Conv2d(2, 4, 3, groups=2), torch.nn.Flatten(), torch.nn.Linear(48, 3))
    with pytest.raises(InputError, match="in 2 groups"):
        kfac(grouped, ENTROPY, *own, comm=comm)
    tied = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 4))
    tied[1].weight = tied[0].weight
    with pytest.raises(InputError, match=r"1\.weight is also 0\.weight"):
        kfac(tied, ENTROPY, *share_samples(INPUTS, CLASSES, comm=comm), comm=comm)
    with pytest.raises(InputError, match="no linear or convolution layer"):
        kfac(torch.nn.LayerNorm(4), ENTROPY, *share_samples(INPUTS, CLASSES, comm=comm), comm=comm)
    with pytest.raises(InputError, match="not convex"):
        kfac(
            torch.nn.Linear(4, 3),
            lambda z, y: -(z**2).mean(),
            *share_samples(INPUTS, CLASSES, comm=comm),
            comm=comm,
        )


class Flattened(torch.nn.Module):
    """Calls its layer with samples and positions on one axis."""

    def __init__(self):
        super().__init__()
        self.inner = torch.nn.Linear(4, 3)

    def forward(self, x):
        return self.inner(x.reshape(-1, 4)).reshape(len(x), -1, 3).mean(1)


def test_positions_that_cannot_be_told_from_samples_are_refused(comm):
    inputs = DRAWN.normal(size=(9, 5, 4))
    with pytest.raises(InputError, match=r"layer inner is given \(\d+, 4\) for \d samples"):
        kfac(Flattened(), SQUARES, *share_samples(inputs, VALUES, comm=comm), comm=comm)


@pytest.mark.parametrize("factors", [kfac, ekfac])
def test_what_layers_tell_is_exact(factors, comm):
    """Zeros of variables in no layer among them, against LAPACK."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Linear(4, 5), torch.nn.LayerNorm(5), torch.nn.Tanh(), torch.nn.Linear(5, 3)
    )
    drawn = np.random.default_rng(0)
    inputs, targets = share_samples(drawn.normal(size=(13, 4)), drawn.integers(0, 3, 13), comm=comm)
    with factors(model, torch.nn.CrossEntropyLoss(), inputs, targets, comm=comm) as H:
        A = dense(H)
        values, vectors = np.linalg.eigh(A)
        positive = np.count_nonzero(values > 1e-10)
        assert H.missing == 10
        heat, found = sh.trace(H, "heat", time=1.0), sh.diagonal(H, "effective dimension", gamma=0.1)
        own = slice(H.layout.start, H.layout.stop)
        assert heat.method == "exact" and abs(heat.trace - np.exp(-values).sum()) < 1e-12
        assert found.exact and np.abs(found.values - (vectors**2 @ (values / (values + 0.1)))[own]).max() < 1e-13
        signs = sh.inertia(H)
        assert signs.certified and (signs.negative, signs.positive) == (0, positive)
        for asked, exact in (({"which": "largest"}, values[-12:]), ({}, values[:12])):
            with sh.eigs(H, 12, **asked) as pairs:
                assert pairs.method == "structure" and pairs.count.certified
                assert np.abs(pairs.eigenvalues - exact).max() < 1e-13
        assert sh.density(H).count(1e-9, 10.0) == (positive, 0.0)
