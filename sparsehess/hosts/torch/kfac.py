"""K-FAC and EKFAC of PyTorch models: Kronecker factors of linear and convolution layers.

What modules are given, and the slopes of what they return, by hooks; see `factors` for the rest.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from sparsehess.errors import InputError
from sparsehess.hosts.learning.kronecker_factors import ARRAYS, Factors, Layers, roots
from sparsehess.hosts.learning.sample_shares import check_parts
from sparsehess.hosts.torch.model_curvature import Share, sample_slopes
from sparsehess.hosts.torch.parameters import held
from sparsehess.runtime import agreement, communicator, optional
from sparsehess.runtime.validation import evaluating

# Samples by which memory is measured.
_FEW = 4


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
        self.covered = [f"{name}.{key}" if name else key for key, there in self.has.items() if there]
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


class _Factors(Factors):
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
        comm = communicator(comm)
        super().__init__(comm, curvature=curvature, sharing=sharing, reduction=reduction, memory=memory)
        self._vectors = _VECTORS[curvature]
        with agreement(comm):
            self.share = Share(torch, model, loss, inputs, targets, parameters, "float64", device=device)
            self.layers = self._found()
        self.names, self.n = self.share.names, self.share.leaves.n
        self.total = comm.allreduce(self.share.samples)
        if not self.total:
            raise InputError("no rank has a sample")
        with agreement(comm), evaluating(type(model).__name__):
            mean, name = reduction == "mean", type(model).__name__
            self.share.weigh(1 / self.total if mean else None)
            self.weight = self.share.weight(1)
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
                taken += ARRAYS * 8 * positions[..., 0].numel() * (layer.inner + layer.outer)
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

    def _brought(self, array: np.ndarray):
        return self.torch.tensor(array, device=self.share.device)

    def _fetched(self, array) -> np.ndarray:
        return array.cpu().numpy()


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
    vectors = roots(torch.stack(rows, 1).detach().cpu().numpy())
    return [*torch.tensor(vectors, device=outputs.device).reshape(-1, *outputs.shape)]


_VECTORS = {"gauss-newton": _gauss_newton, "empirical fisher": _empirical}
