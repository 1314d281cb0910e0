"""K-FAC and EKFAC of PyTorch models: Kronecker factors of linear and convolution layers.

A layer s = W a (with the bias as a last column of W and a 1 as last entry of a) that a sample goes through at R
positions has the gradient Σ_r g_r a_rᵀ by W, g_r the gradient by s_r. With row-major vectors, as PyTorch stores W,
it is Σ_r g_r ⊗ a_r.

Sources: Martens, Grosse 2015 (linear layers); Grosse, Martens 2016 (convolutions); George et al. 2018 (eigenvalues
corrected); Eschenhagen et al. 2023, section 3 (positions: expand, reduce).
"""

from __future__ import annotations

from functools import partial

import numpy as np

from sparsehess.errors import InputError
from sparsehess.given import evaluating, whole_number
from sparsehess.hosts.factors import Layers
from sparsehess.hosts.learning import REDUCTIONS, check_parts
from sparsehess.hosts.torch_leaves import held
from sparsehess.hosts.torch_model import Share, sample_slopes
from sparsehess.operators.eigenbasis import EigenCorrected, eigenbasis
from sparsehess.operators.grid import Grid
from sparsehess.operators.kronecker import Kronecker
from sparsehess.operators.tall import summed
from sparsehess.runtime import agreement, communicator, optional

SHARING = ("expand", "reduce")

# Samples by which memory is measured, and arrays of the size of a layer's inputs and slopes at a time.
_FEW, _ARRAYS = 4, 4


def kfac(model, loss, inputs, targets, **options) -> Layers:
    """Return K-FAC: for each linear and convolution layer G ⊗ A, G of slopes by outputs and A of inputs.

    Collective on `comm`. The caller closes it.

    Parameters
    ----------
    model, loss, inputs, targets, parameters, reduction, device, comm
        As for `torch_model.hessian`. Positions of a linear layer are all axes of its input between the first and
        the last.
    curvature
        What it approximates: `gauss-newton`, with a backward pass for each output, or `empirical fisher`, with
        one.
    sharing
        `expand`: A = mean of a aᵀ over samples and positions, G = mean over samples of the sum of g gᵀ over
        positions. `reduce`: the same of the mean of a and the sum of g over positions.
    memory
        Bytes that graphs, inputs and slopes of layers may take on a device at a time.

    Raises
    ------
    InputError
        No layer that has factors, parameters shared by layers, convolutions in groups, a loss that is not convex.
    CheckError
        As for `torch_model.hessian`.
    """
    return _Factors(**_options(model, loss, inputs, targets, options)).kfac()


def ekfac(model, loss, inputs, targets, **options) -> Layers:
    """Return EKFAC: K-FAC with the eigenvalues that are best for its eigenvectors.

    Collective on `comm`. The caller closes it. They are the diagonal of QᵀHQ, H the curvature of a layer: its
    trace is that of H. Two passes over the samples. Arguments and errors are those of `kfac`.
    """
    return _Factors(**_options(model, loss, inputs, targets, options)).ekfac()


def _options(model, loss, inputs, targets, options) -> dict:
    return {"model": model, "loss": loss, "inputs": inputs, "targets": targets, **options}


class _Layer:
    """A layer of the copied model: where its parameters are, and what its calls have seen."""

    def __init__(self, name: str, module, slices: dict[str, slice]):
        self.name, self.module = name, module
        own = {key: slices.get(f"{name}.{key}" if name else key) for key in ("weight", "bias")}
        self.has = {key: part is not None for key, part in own.items()}
        self.outer = module.weight.shape[0]
        self.inner = int(np.prod(module.weight.shape[1:])) * self.has["weight"] + self.has["bias"]
        columns = [
            np.arange(part.start, part.stop).reshape(self.outer, -1) for part in own.values() if part is not None
        ]
        self.variables = np.concatenate(columns, axis=1).ravel()
        self.calls: list[tuple] = []

    def record(self, module, inputs, output) -> None:
        self.calls.append((inputs[0].detach(), output))

    def inputs(self, torch):
        """Return the inputs (samples, positions, inner) of all calls."""
        found = []
        for given, _ in self.calls:
            a = self._patches(torch, given) if self._convolves else given.reshape(len(given), -1, given.shape[-1])
            wanted = [a] if self.has["weight"] else []
            if self.has["bias"]:
                wanted.append(a.new_ones((*a.shape[:2], 1)))
            found.append(torch.cat(wanted, 2))
        return torch.cat(found, 1)

    def slopes(self, torch, by_outputs: list):
        """Return slopes (samples, positions, outer) from those by the outputs of all calls."""
        flat = []
        for slope in by_outputs:
            if self._convolves:
                flat.append(slope.flatten(2).transpose(1, 2))
            else:
                flat.append(slope.reshape(len(slope), -1, slope.shape[-1]))
        return torch.cat(flat, 1)

    @property
    def _convolves(self) -> bool:
        return hasattr(self.module, "kernel_size")

    def _patches(self, torch, x):
        """Return what the kernel sees at each position, (samples, positions, channels × kernel)."""
        conv = self.module
        mode = "constant" if conv.padding_mode == "zeros" else conv.padding_mode
        x = torch.nn.functional.pad(x, conv._reversed_padding_repeated_twice, mode=mode)
        axes = len(conv.kernel_size)
        for axis, (width, stride, apart) in enumerate(
            zip(conv.kernel_size, conv.stride, conv.dilation, strict=True), start=2
        ):
            x = x.unfold(axis, apart * (width - 1) + 1, stride)[..., ::apart]
        order = (0, *range(2, 2 + axes), 1, *range(2 + axes, 2 + 2 * axes))
        return x.permute(order).reshape(len(x), int(np.prod(x.shape[2 : 2 + axes])), -1)


class _Factors:
    """Factors of all layers from this rank's samples, summed over ranks."""

    def __init__(
        self,
        model,
        loss,
        inputs,
        targets,
        *,
        parameters=None,
        curvature: str = "gauss-newton",
        sharing: str = "expand",
        reduction: str = "mean",
        memory: int = 2**29,
        device=None,
        comm=None,
    ):
        self.torch = torch = optional("torch", "K-FAC of a PyTorch model", "torch")
        self.comm = comm = communicator(comm)
        for value, known in ((curvature, _VECTORS), (sharing, SHARING), (reduction, REDUCTIONS)):
            if value not in known:
                raise InputError(f"{value!r} is none of {', '.join(known)}")
        self._sharing, self._vectors, self._memory = sharing, _VECTORS[curvature], memory
        with agreement(comm):
            whole_number(memory, "memory", 1)
            self.share = Share(torch, model, loss, inputs, targets, parameters, "float64", device=device)
            self.layers = self._found()
        self._total = comm.allreduce(self.share.samples)
        if not self._total:
            raise InputError("no rank has a sample")
        with agreement(comm), evaluating(type(model).__name__):
            mean, name = reduction == "mean", type(model).__name__
            self.share.weigh(1 / self._total if mean else None)
            check_parts(self.share.value_of, self.share.samples, mean=mean, name=name, reason=self.share.moody())
            for layer in self.layers:
                layer.module.register_forward_hook(layer.record)
            self._measure()
        # Layers that the model does not call, as attention does not call its own, have no factors.
        called = comm.allreduce(np.array([len(layer.calls) for layer in self.layers]))
        self.layers = [layer for layer, calls in zip(self.layers, called, strict=True) if calls]
        if not self.layers:
            raise InputError(f"{name} calls no linear or convolution layer whose parameters are wanted")

    def _found(self) -> list[_Layer]:
        torch, share = self.torch, self.share
        kinds = (torch.nn.Linear, torch.nn.Conv1d, torch.nn.Conv2d, torch.nn.Conv3d)
        slices, begin, found, seen = {}, 0, [], {}
        for name, leaf in zip(share.names, share.leaves.tensors, strict=True):
            slices[name] = slice(begin, begin + leaf.numel())
            begin += leaf.numel()
        for name, module in share.model.named_modules(remove_duplicate=True):
            for key, parameter in module.named_parameters(recurse=False):
                if id(parameter) in seen and parameter.requires_grad:
                    raise InputError(
                        f"{name}.{key} is also {seen[id(parameter)]}: shared parameters have no factors"
                    )
                seen[id(parameter)] = f"{name}.{key}"
            prefix = f"{name}." if name else ""
            if not isinstance(module, kinds) or not {prefix + "weight", prefix + "bias"} & set(slices):
                continue
            if getattr(module, "groups", 1) != 1:
                raise InputError(f"{name} is a convolution in {module.groups} groups, which has no two factors")
            found.append(_Layer(name, module, slices))
        if not found:
            raise InputError(f"{type(share.model).__name__} has no linear or convolution layer that is wanted")
        return found

    def _measure(self) -> None:
        """Choose chunks of samples that fit the memory; see which layers are called."""
        share = self.share
        few = min(_FEW, share.samples)
        if not few:
            return
        outputs = self._forward(0, few)
        taken = held(self.torch, [outputs])
        for layer in self.layers:
            if layer.calls:
                positions = layer.inputs(self.torch)
                taken += _ARRAYS * 8 * positions[..., 0].numel() * (layer.inner + layer.outer)
        share.chunk = max(1, min(share.samples, few * self._memory // max(1, 2 * taken)))

    def _forward(self, first: int, last: int):
        for layer in self.layers:
            layer.calls.clear()
        with self.torch.enable_grad():
            outputs = self.share.outputs(first, last)
        if not self.torch.is_tensor(outputs) or not outputs.ndim or len(outputs) != last - first:
            raise InputError("the model must return a tensor whose first axis is samples")
        for layer in self.layers:
            for given, _ in layer.calls:
                if len(given) != last - first:
                    raise InputError(
                        f"layer {layer.name} is given {tuple(given.shape)} for {last - first} samples: the first "
                        "axis must be samples, so that positions can be told from them"
                    )
        return outputs

    def _passes(self, visit) -> None:
        """Call visit(number, a, every g) of each layer for each chunk: a (samples, positions, inner), g alike."""
        for first, last in self.share.chunks():
            outputs = self._forward(first, last)
            vectors = self._vectors(self.share, outputs.detach().requires_grad_(), first, last)
            ends = [output for layer in self.layers for _, output in layer.calls]
            every = []
            for vector in vectors:
                slopes = self.torch.autograd.grad(outputs, ends, vector, retain_graph=True, allow_unused=True)
                filled = [
                    self.torch.zeros_like(end) if slope is None else slope
                    for slope, end in zip(slopes, ends, strict=True)
                ]
                every.append(iter(filled))
            for number, layer in enumerate(self.layers):
                g = [layer.slopes(self.torch, [next(one) for _ in layer.calls]) for one in every]
                visit(number, layer.inputs(self.torch), g)

    def _factors(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return (G, A) of each layer."""
        pairs = [(np.zeros((one.outer,) * 2), np.zeros((one.inner,) * 2)) for one in self.layers]
        weight = self.share.weight(1)

        def add(number, a, every):
            G, A = pairs[number]
            positions = a.shape[1]
            if self._sharing == "reduce":
                a, positions, every = a.mean(1, keepdim=True), 1, [g.sum(1, keepdim=True) for g in every]
            A += _gram(a).numpy() / (self._total * positions)
            for g in every:
                G += weight * _gram(g).numpy()

        with agreement(self.comm):
            self._passes(add)
        return [(summed(self.comm, G), summed(self.comm, A)) for G, A in pairs]

    def kfac(self) -> Layers:
        made = [Kronecker((G, A), comm=self.comm) for G, A in self._factors()]
        return self._placed(made)

    def ekfac(self) -> Layers:
        bases = [(eigenbasis(self.comm, G, "G")[1], eigenbasis(self.comm, A, "A")[1]) for G, A in self._factors()]
        squares = [np.zeros((layer.outer, layer.inner)) for layer in self.layers]
        turned = [[self.torch.tensor(Q, device=self.share.device) for Q in pair] for pair in bases]
        weight = self.share.weight(1)

        def add(number, a, every):
            QG, QA = turned[number]
            a = a @ QA
            for g in every:
                squares[number] += weight * self._squares(g @ QG, a).cpu().numpy()

        with agreement(self.comm):
            self._passes(add)
        made = []
        for (QG, QA), s in zip(bases, squares, strict=True):
            own = Grid(len(QG), len(QA), self.comm).own_rows
            made.append(EigenCorrected(QG, QA, summed(self.comm, s)[own].ravel(), comm=self.comm))
        return self._placed(made)

    def _squares(self, g, a):
        """Return the sum over samples of (Σ_r g_r a_rᵀ)², entry by entry."""
        if a.shape[1] == 1:
            return (g[:, 0] ** 2).T @ a[:, 0] ** 2
        total = g.new_zeros((g.shape[2], a.shape[2]))
        size = max(1, self._memory // (_ARRAYS * 8 * total.numel()))
        for begin in range(0, len(a), size):
            part = slice(begin, begin + size)
            total += ((g[part].transpose(1, 2) @ a[part]) ** 2).sum(0)
        return total

    def _placed(self, made: list) -> Layers:
        variables = {layer.name: layer.variables for layer in self.layers}
        parts = {layer.name: part for layer, part in zip(self.layers, made, strict=True)}
        n = self.share.leaves.n
        covered = {
            f"{layer.name}.{key}" if layer.name else key
            for layer in self.layers
            for key, there in layer.has.items()
            if there
        }
        uncovered = tuple(name for name in self.share.names if name not in covered)
        return Layers(parts, variables, n, uncovered=uncovered)


def _gram(a):
    """Return the sum of a aᵀ over samples and positions."""
    flat = a.reshape(-1, a.shape[-1])
    return (flat.T @ flat).cpu()


def _empirical(share: Share, outputs, first: int, last: int) -> list:
    """Return the one vector that is the slope of each sample's loss by its outputs."""
    return [sample_slopes(share, outputs, first, last)[0]]


def _gauss_newton(share: Share, outputs, first: int, last: int) -> list:
    """Return vectors v with Σ v vᵀ = L, the Hessian of each sample's loss by its outputs."""
    torch, count = share.torch, last - first
    value = share.of_outputs(outputs, first, last) * (1 if share.is_sum else count)
    (slope,) = torch.autograd.grad(value, outputs, create_graph=True)
    slope = (slope + 0 * outputs).reshape(count, -1)
    along = partial(torch.autograd.grad, inputs=outputs, retain_graph=True)
    rows = [along(slope[:, c].sum())[0].reshape(count, -1) for c in range(slope.shape[1])]
    L = torch.stack(rows, 1).detach()
    sizes, Q = torch.linalg.eigh((L + L.transpose(1, 2)) / 2)
    largest = sizes.abs().amax()
    if sizes.amin() < -1e-9 * largest:
        raise InputError(
            "the loss is not convex in the outputs, and has no Gauss–Newton factors: take the empirical Fisher's"
        )
    scaled = Q * sizes.clamp(min=0).sqrt()[:, None, :]
    used = (sizes > 1e-15 * largest).any(0)
    return [scaled[:, :, c].reshape(outputs.shape) for c in torch.nonzero(used).ravel().tolist()]


_VECTORS = {"gauss-newton": _gauss_newton, "empirical fisher": _empirical}
