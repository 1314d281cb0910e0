"""What users give by mistake works, or gets a sentence that says what to do; no traceback of PyTorch's."""

import numpy as np
import pytest

import sparsehess as sh
from sparsehess.errors import CheckError, EvaluationError, InputError, SparseHessError
from sparsehess.hosts.learning.sample_shares import share_samples

torch = pytest.importorskip("torch")

from sparsehess.hosts.torch.kfac import kfac  # noqa: E402
from sparsehess.hosts.torch.model_curvature import empirical_fisher, gauss_newton, hessian  # noqa: E402

pytestmark = pytest.mark.parallel([1, 2])
F = torch.nn.functional

DRAWN = np.random.default_rng(6)
INPUTS, CLASSES = DRAWN.normal(size=(20, 4)), DRAWN.integers(0, 3, 20)
WORDS = DRAWN.integers(0, 7, 20)
ENTROPY = torch.nn.CrossEntropyLoss()
RISING = np.arange(1.0, 4.0)


class Detached(torch.autograd.Function):
    """x³ with a backward pass that forgets x."""

    @staticmethod
    def forward(ctx, x):
        ctx.x = x.detach()
        return x**3

    @staticmethod
    def backward(ctx, slope):
        return 3 * ctx.x**2 * slope


class Once(torch.autograd.Function):
    """x³ with a backward pass that says that it is not differentiable."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, slope):
        (x,) = ctx.saved_tensors
        return 3 * x**2 * slope


class Square(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**2

    @staticmethod
    def backward(ctx, slope):
        (x,) = ctx.saved_tensors
        return 2 * x * slope


class Twice(torch.autograd.Function):
    """x³ with a backward pass that is right, and of which there are no batches."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx, slope):
        (x,) = ctx.saved_tensors
        return 3 * Square.apply(x) * slope


class Cubed(torch.nn.Module):
    def __init__(self, cube):
        super().__init__()
        torch.manual_seed(2)
        self.linear, self.cube = torch.nn.Linear(4, 3), cube

    def forward(self, x):
        return self.cube(self.linear(x))


def network(dtype=torch.float32):
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.Tanh(), torch.nn.Linear(5, 3)).to(dtype)


def largest(objective, count=2):
    with sh.MatrixFree(objective) as free, sh.eigs(free, count, which="largest", count="no") as found:
        return np.sort(found.eigenvalues)


def exact(model):
    """Return the Hessian of the mean entropy of all samples."""
    model = model.double()
    parameters = dict(model.named_parameters())

    def value(x):
        pieces = x.split([p.numel() for p in parameters.values()])
        parts = {n: v.view_as(p) for (n, p), v in zip(parameters.items(), pieces, strict=True)}
        return ENTROPY(torch.func.functional_call(model, parts, (torch.tensor(INPUTS),)), torch.tensor(CLASSES))

    start = torch.cat([p.detach().ravel() for p in parameters.values()])
    return torch.autograd.functional.hessian(value, start).numpy()


@pytest.mark.parametrize("cube", [Detached.apply, Once.apply])
def test_products_that_lose_terms_are_refused_and_differences_are_right(cube, comm):
    own, wanted = share_samples(INPUTS, CLASSES, comm=comm), np.linalg.eigvalsh(exact(Cubed(lambda x: x**3)))[-2:]
    for memory in (2**29, 1):
        with pytest.raises(CheckError, match="contradict its gradient"):
            largest(hessian(Cubed(cube), ENTROPY, *own, memory=memory, comm=comm))
    found = largest(hessian(Cubed(cube), ENTROPY, *own, products="differences", comm=comm))
    np.testing.assert_allclose(found, wanted, rtol=1e-6)
    with pytest.raises(InputError, match="differences"):
        gauss_newton(Cubed(cube), ENTROPY, *own, products="differences", comm=comm)


def test_gauss_newton_through_backward_passes_of_ones_own(comm):
    own = share_samples(INPUTS, CLASSES, comm=comm)
    plain = gauss_newton(Cubed(lambda x: x**3), ENTROPY, *own, comm=comm)
    V = np.eye(plain.n)
    wanted = comm.allreduce(plain.hvps(plain.x, V))
    for cube in (Detached.apply, Twice.apply):  # their slopes are linear in what is handed back
        made = gauss_newton(Cubed(cube), ENTROPY, *own, comm=comm)
        np.testing.assert_allclose(comm.allreduce(made.hvps(made.x, V)), wanted, atol=1e-13)
    for make in (gauss_newton, empirical_fisher):
        with pytest.raises(InputError, match=r"not differentiable again.*products='differences'"):
            make(Cubed(Once.apply), ENTROPY, *own, comm=comm)


def test_without_batches_products_come_one_by_one(comm):
    made = hessian(Cubed(Twice.apply), ENTROPY, *share_samples(INPUTS, CLASSES, comm=comm), comm=comm)
    H = comm.allreduce(made.hvps(made.x, np.eye(made.n)))
    np.testing.assert_allclose(H, exact(Cubed(lambda x: x**3)), atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_models_of_any_precision(dtype, comm):
    own = share_samples(INPUTS, CLASSES.astype(np.int32), comm=comm)
    wanted = np.linalg.eigvalsh(exact(network(dtype)))[-2:]
    np.testing.assert_allclose(largest(hessian(network(dtype), ENTROPY, *own, comm=comm)), wanted, rtol=1e-8)
    mixed = network()
    mixed[0].to(dtype)
    assert largest(hessian(mixed, ENTROPY, *own, comm=comm))[-1] == pytest.approx(wanted[-1], rel=0.1)


def test_sparse_embeddings_in_modules(comm):
    def made(sparse):
        torch.manual_seed(3)
        model = torch.nn.Sequential(
            torch.nn.Embedding(7, 4, sparse=sparse), torch.nn.Tanh(), torch.nn.Linear(4, 3)
        )
        return model, hessian(model, ENTROPY, *share_samples(WORDS, CLASSES, comm=comm), comm=comm)

    (model, sparse), (_, dense) = made(True), made(False)
    assert model[0].sparse  # the caller's stays as it was
    V = np.eye(dense.n)
    np.testing.assert_allclose(sparse.hvps(sparse.x, V), dense.hvps(dense.x, V), atol=1e-14)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning", "ignore:The .grad attribute")
def test_single_precision_that_cannot_be_undone(comm):
    @torch.jit.script
    def rounded(x: torch.Tensor):  # what is compiled, is as it is
        return x.float().to(x.dtype)

    class Casts(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = network()

        def forward(self, x):
            return self.inner[2](rounded(torch.tanh(self.inner[0](x))))

    own = share_samples(INPUTS, CLASSES, comm=comm)
    for kind in (hessian, gauss_newton, empirical_fisher):
        with pytest.raises(CheckError, match=r"as in single precision.*products='float32'"):
            kind(Casts(), ENTROPY, *own, comm=comm)
    made = hessian(Casts(), ENTROPY, *own, products="float32", comm=comm)
    with (
        sh.MatrixFree(made, precision="single") as free,
        sh.eigs(free, 1, which="largest", tol=1e-5, count="no") as found,
    ):
        wanted = np.linalg.eigvalsh(exact(network()))[-1]
        assert found.eigenvalues[-1] == pytest.approx(wanted, rel=1e-5)


WEIGHTS = torch.tensor([1.0, 2.0, 3.0])  # float32, as users have them
NAMELESS = torch.nn.Sequential(torch.nn.LazyLinear(5), torch.nn.Linear(5, 3))
MODELS = {
    "a float32 tensor in the loss": (
        network,
        lambda z, y: F.cross_entropy(z, y, weight=WEIGHTS),
        r"outputs\.dtype",
    ),
    "a vector": (network, torch.nn.CrossEntropyLoss(reduction="none"), "take its mean"),
    "backward": (network, lambda z, y: ENTROPY(z, y).backward(), "let it return the loss"),
    "a number": (network, lambda z, y: ENTROPY(z, y).item(), "tensor of one real number, not float"),
    "complex": (network, lambda z, y: ENTROPY(z, y) + 0j, "real number, not torch.complex128"),
    "a loss that is cut off": (network, lambda z, y: ENTROPY(z.detach(), y), "must depend on the parameters"),
    "classes that are no numbers of them": (
        network,
        lambda z, y: ENTROPY(z, y.double() + 0.5),
        "must be whole numbers|size",
    ),
    "parameters without shapes": (lambda: NAMELESS, ENTROPY, "call the model once"),
    "no model": (lambda: [1.0], ENTROPY, "must be a torch.nn.Module, not list"),
    "in place": (network, lambda z, y: ENTROPY(z.sigmoid().exp_(), y), "without changing arrays in place"),
}


@pytest.mark.parametrize("name", MODELS)
def test_models_and_losses(name, comm):
    make, loss, says = MODELS[name]
    own = share_samples(INPUTS, CLASSES, comm=comm)
    with pytest.raises(SparseHessError, match=says):
        hessian(make(), loss, *own, comm=comm)


def test_not_a_number(comm):
    inputs, model = INPUTS.copy(), network()
    inputs[3] = np.nan
    with pytest.raises(CheckError, match=r"is nan.*look for such numbers"):
        hessian(network(), ENTROPY, *share_samples(inputs, CLASSES, comm=comm), comm=comm)
    with torch.no_grad():
        model[0].weight[0, 0] = torch.nan
    with pytest.raises(CheckError, match=r"is nan.*look for such numbers"):
        hessian(model, ENTROPY, *share_samples(INPUTS, CLASSES, comm=comm), comm=comm)


POINTS = torch.arange(6.0).reshape(3, 2)
FUNCTIONS = {
    "no second derivative": (
        lambda x: F.ctc_loss(
            x[:, None].log_softmax(-1), torch.tensor([[1]]), torch.tensor([3]), torch.tensor([1])
        ),
        POINTS,
        EvaluationError,
        "products='differences'",
    ),
    "NumPy": (lambda x: np.sum(x**2), RISING, EvaluationError, "not of NumPy"),
    "NumPy of a tensor": (
        lambda x: torch.as_tensor(np.sum(x.numpy() ** 2)),
        RISING,
        EvaluationError,
        "not of NumPy",
    ),
    "in place": (lambda x: x.add_(1).sum(), RISING, EvaluationError, "without changing arrays in place"),
    "a vector": (lambda x: x**2, RISING, InputError, "one real number"),
    "a pair": (lambda x: ((x**2).sum(), 2 * x), RISING, InputError, "must return a tensor, not tuple"),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions(name, comm):
    function, x, kind, says = FUNCTIONS[name]
    with pytest.raises(kind, match=says):
        largest(sh.from_torch(function, x, comm=comm))


def test_what_can_be_differentiated_once_by_differences(comm):
    for cube in (Detached.apply, Once.apply):
        with pytest.raises(CheckError, match="contradict its gradient"):
            largest(sh.from_torch(lambda x, cube=cube: cube(x).sum(), RISING, comm=comm))
        made = sh.from_torch(lambda x, cube=cube: cube(x).sum(), RISING, products="differences", comm=comm)
        np.testing.assert_allclose(largest(made), [12, 18], rtol=1e-7)


def test_points_that_require_gradients(comm):
    for x in (torch.ones(3, requires_grad=True), torch.ones(3, requires_grad=True) * 1.0, torch.ones(3).half()):
        np.testing.assert_allclose(largest(sh.from_torch(lambda x: (x**4).sum(), x, comm=comm)), 12, rtol=1e-10)


def test_functions_that_read_what_was_given(comm):
    x = torch.ones(3, requires_grad=True)
    with pytest.raises(InputError, match="take them from its argument"):
        sh.from_torch(lambda at: (at**4).sum() + (x**2).sum(), x, comm=comm)
    model, data, classes = network(), torch.tensor(INPUTS), torch.tensor(CLASSES)

    def penalised(module):
        return ENTROPY(module(data), classes) + sum(p.square().sum() for p in model.parameters())

    found = largest(sh.from_torch(penalised, model, comm=comm))
    np.testing.assert_allclose(found, np.linalg.eigvalsh(exact(network()))[-2:] + 2, rtol=1e-9)
    kept = [*model.parameters()]
    with pytest.raises(InputError, match="take them from its argument"):
        sh.from_torch(lambda module: ENTROPY(module(data), classes) + kept[0].square().sum(), model, comm=comm)


@pytest.mark.parametrize("kind", [hessian, gauss_newton, kfac])
@pytest.mark.parametrize("how", ["seed", "width", "buffer", "frozen"])
def test_ranks_with_other_models_are_refused(how, kind, comm):
    """A model that is made without a seed is another one on each rank; sums over ranks would mean nothing."""
    torch.manual_seed(comm.rank if how == "seed" else 0)
    width = 5 + comm.rank if how == "width" else 5
    model = torch.nn.Sequential(torch.nn.Linear(4, width), torch.nn.Tanh(), torch.nn.Linear(width, 3))
    if how == "buffer":
        model[1] = torch.nn.BatchNorm1d(width).eval()
        model[1].running_mean += 0.1 * comm.rank
    if how == "frozen":
        model[0].requires_grad_(False)
        model[0].bias += 0.1 * comm.rank
    own = share_samples(INPUTS, CLASSES, comm=comm)
    names = {"seed": "0.weight", "buffer": "1.running_mean", "frozen": "0.bias", "width": "43 numbers on rank 0"}
    if comm.size > 1:
        with pytest.raises(InputError, match=f"the models differ between ranks: .*{names[how]}"):
            kind(model, ENTROPY, *own, comm=comm)


def test_a_data_loader_is_taken_apart_by_the_caller():
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*map(torch.tensor, (INPUTS, CLASSES))), 8)
    with pytest.raises(InputError, match=r"a DataLoader.*torch.cat"):
        hessian(network(), ENTROPY, loader, CLASSES)
