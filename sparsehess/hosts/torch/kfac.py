"""K-FAC and EKFAC of PyTorch models: Kronecker factors of linear and convolution layers.

Hooks show what modules are given and return; backward passes give the slopes by the returned tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from types import ModuleType
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

from sparsehess.errors import InputError
from sparsehess.hosts.learning.host_errors import explain_host_errors
from sparsehess.hosts.learning.kronecker_factors import (
    ARRAYS,
    FactorOptions,
    KroneckerFactors,
    ModelFactorOptions,
    root_vectors,
)
from sparsehess.hosts.learning.layer_blocks import LayerBlocks
from sparsehess.hosts.learning.parameter_groups import Selection
from sparsehess.hosts.torch.graphs import graph_bytes
from sparsehess.hosts.torch.model_share import TorchShare
from sparsehess.hosts.torch.packed_outputs import packed
from sparsehess.runtime import agreement, optional

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Linear, Module
    from torch.nn.modules.conv import _ConvNd

    from sparsehess.hosts.torch.packed_outputs import Rebuild
    from sparsehess.hosts.torch.parameters import Device

# Samples by which memory is measured.
_FEW = 4


def kfac(
    model: Module,
    loss: Callable[[Tensor, Tensor], Tensor],
    inputs: Any,
    targets: Any,
    **options: Unpack[ModelFactorOptions],
) -> LayerBlocks:
    """Return K-FAC: for each linear and convolution layer G ⊗ A, G of slopes by outputs and A of inputs.

    Collective on `comm`. The caller closes it.

    Parameters
    ----------
    model, loss, inputs, targets, parameters, reduction, device, comm
        As for `hosts.torch.model_curvature.hessian`. Positions of a linear layer are all axes of its input between
        the first and the last.
    curvature
        What it approximates: `gauss-newton` (default), with a backward pass for each output, or
        `empirical fisher`, with one.
    sharing
        `expand` (default): A = mean of a aᵀ over samples and positions, G = mean over samples of the sum of g gᵀ
        over positions. `reduce`: the same of the mean of a and the sum of g over positions.
    memory
        Bytes that graphs, inputs and slopes of layers may take on a device at a time, default 2**29.

    Returns
    -------
    blocks
        A `Kronecker` product for each layer, at the layer's variables.

    Raises
    ------
    StackError
        PyTorch is not installed.
    InputError
        No layer that has factors, parameters shared by layers, convolutions in groups, a loss that is not convex.
    CheckError
        As for `hosts.torch.model_curvature.hessian`.

    References
    ----------
    Martens, Grosse, Optimizing neural networks with Kronecker-factored approximate curvature, ICML (2015).
    Grosse, Martens, A Kronecker-factored approximate Fisher matrix for convolution layers, ICML (2016).
    Eschenhagen et al., Kronecker-factored approximate curvature for modern neural network architectures,
    NeurIPS (2023), section 3.

    Examples
    --------
    >>> import numpy as np, torch
    >>> from sparsehess.hosts.torch.kfac import kfac
    >>> model = torch.nn.Linear(2, 1, bias=False).double()
    >>> inputs = np.array([[1.0, 0.0], [0.0, 2.0]])
    >>> with kfac(model, torch.nn.MSELoss(), inputs, np.zeros((2, 1))) as blocks:
    ...     blocks.diagonal().round(6)
    array([1., 4.])
    """
    return _TorchFactors(model, loss, inputs, targets, **options).kfac()


def ekfac(
    model: Module,
    loss: Callable[[Tensor, Tensor], Tensor],
    inputs: Any,
    targets: Any,
    **options: Unpack[ModelFactorOptions],
) -> LayerBlocks:
    """Return EKFAC: K-FAC with the eigenvalues that are best for its eigenvectors.

    Collective on `comm`. The caller closes it. They are the diagonal of QᵀHQ, H the curvature of a layer: its
    trace is that of H. Two passes over the samples.

    Parameters
    ----------
    model, loss, inputs, targets, options
        As for `kfac`.

    Returns
    -------
    blocks
        An `EigenCorrected` for each layer, at the layer's variables.

    Raises
    ------
    StackError, InputError, CheckError
        As for `kfac`.

    References
    ----------
    George et al., Fast approximate natural gradient descent in a Kronecker-factored eigenbasis, NeurIPS (2018).

    Examples
    --------
    >>> import numpy as np, torch
    >>> from sparsehess.hosts.torch.kfac import ekfac
    >>> model = torch.nn.Linear(2, 1, bias=False).double()
    >>> inputs = np.array([[1.0, 0.0], [0.0, 2.0]])
    >>> with ekfac(model, torch.nn.MSELoss(), inputs, np.zeros((2, 1))) as blocks:
    ...     round(blocks.trace(), 6)
    5.0
    """
    return _TorchFactors(model, loss, inputs, targets, **options).ekfac()


class _Layer:
    """A linear layer of the copied model: where its parameters are, and what its calls have seen."""

    def __init__(self, name: str, module: Linear | _ConvNd, slices: Mapping[str, slice]) -> None:
        self.name, self.module = name, module
        own = {key: slices.get(f"{name}.{key}" if name else key) for key in ("weight", "bias")}
        self.has = {key: part is not None for key, part in own.items()}
        self.outer = module.weight.shape[0]
        self.inner = int(np.prod(module.weight.shape[1:])) * self.has["weight"] + self.has["bias"]
        columns = [
            np.arange(part.start, part.stop).reshape(self.outer, -1) for part in own.values() if part is not None
        ]
        self.variables = np.concatenate(columns, axis=1).ravel()
        self.covered = tuple(f"{name}.{key}" if name else key for key, there in self.has.items() if there)
        self.calls: list[tuple[Tensor, Tensor]] = []

    def record(self, module: Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        """Note the input and the output of a call: a forward hook."""
        self.calls.append((inputs[0].detach(), output))

    def inputs(self, torch: ModuleType) -> Tensor:
        """Return the inputs (samples, positions, inner) of all calls."""
        found = []
        for given, _ in self.calls:
            a = self._rows(torch, given)
            wanted = [a] if self.has["weight"] else []
            if self.has["bias"]:
                wanted.append(a.new_ones((*a.shape[:2], 1)))
            found.append(torch.cat(wanted, 2))
        return torch.cat(found, 1)

    def slopes(self, torch: ModuleType, by_outputs: Sequence[Tensor]) -> Tensor:
        """Return slopes (samples, positions, outer) from those by the outputs of all calls."""
        return torch.cat([self._slope_rows(slope) for slope in by_outputs], 1)

    def _rows(self, torch: ModuleType, x: Tensor) -> Tensor:
        """Return what the weight is multiplied by at each position, (samples, positions, columns)."""
        return x.reshape(len(x), -1, x.shape[-1])

    def _slope_rows(self, slope: Tensor) -> Tensor:
        return slope.reshape(len(slope), -1, slope.shape[-1])


class _Convolution(_Layer):
    def __init__(self, name: str, module: _ConvNd, slices: Mapping[str, slice]) -> None:
        super().__init__(name, module, slices)
        self._kernel = module

    def _rows(self, torch: ModuleType, x: Tensor) -> Tensor:
        """Return what the kernel sees at each position, (samples, positions, channels × kernel)."""
        conv = self._kernel
        mode = "constant" if conv.padding_mode == "zeros" else conv.padding_mode
        x = torch.nn.functional.pad(x, conv._reversed_padding_repeated_twice, mode=mode)
        axes = len(conv.kernel_size)
        for axis, (width, stride, apart) in enumerate(
            zip(conv.kernel_size, conv.stride, conv.dilation, strict=True), start=2
        ):
            x = x.unfold(axis, apart * (width - 1) + 1, stride)[..., ::apart]
        order = (0, *range(2, 2 + axes), 1, *range(2 + axes, 2 + 2 * axes))
        return x.permute(order).reshape(len(x), int(np.prod(x.shape[2 : 2 + axes])), -1)

    def _slope_rows(self, slope: Tensor) -> Tensor:
        return slope.flatten(2).transpose(1, 2)


class _TorchFactors(KroneckerFactors[TorchShare]):
    layers: list[_Layer]

    def __init__(
        self,
        model: Module,
        loss: Callable[[Tensor, Tensor], Tensor],
        inputs: Any,
        targets: Any,
        *,
        parameters: Selection = None,
        device: Device = None,
        **options: Unpack[FactorOptions],
    ) -> None:
        self.torch = torch = optional("torch", "K-FAC of a PyTorch model", "torch")

        def make_share() -> TorchShare:
            return TorchShare(torch, model, loss, inputs, targets, parameters, "float64", device)

        super().__init__(make_share, type(model).__name__, **options)
        self._vectors = _VECTORS[self._curvature]
        with agreement(self.comm), explain_host_errors(self.name):
            self.layers = self._find_layers()
            self._measure()
        self._check_loss()
        # Layers that the model does not call, as attention does not call its own, have no factors.
        called = self.comm.allreduce(np.array([len(layer.calls) for layer in self.layers]))
        self.layers = [layer for layer, calls in zip(self.layers, called, strict=True) if calls]
        if not self.layers:
            raise InputError(f"{self.name} calls no linear or convolution layer whose parameters are wanted")

    def _find_layers(self) -> list[_Layer]:
        torch, share, slices = self.torch, self.share, self.share.slices
        convolutions = (torch.nn.Conv1d, torch.nn.Conv2d, torch.nn.Conv3d)
        found: list[_Layer] = []
        seen: dict[int, str] = {}
        for name, module in share.model.named_modules(remove_duplicate=True):
            for key, parameter in module.named_parameters(recurse=False):
                if id(parameter) in seen and parameter.requires_grad:
                    raise InputError(
                        f"{name}.{key} is also {seen[id(parameter)]}: shared parameters have no factors"
                    )
                seen[id(parameter)] = f"{name}.{key}"
            prefix = f"{name}." if name else ""
            wanted = not slices.keys().isdisjoint((prefix + "weight", prefix + "bias"))
            if not wanted or not isinstance(module, (torch.nn.Linear, *convolutions)):
                continue
            if getattr(module, "groups", 1) != 1:
                raise InputError(f"{name} is a convolution in {module.groups} groups, which has no two factors")
            make = _Convolution if isinstance(module, convolutions) else _Layer
            found.append(make(name, module, slices))
        if not found:
            raise InputError(f"{type(share.model).__name__} has no linear or convolution layer that is wanted")
        return found

    def _measure(self) -> None:
        """Choose chunks of samples that fit the memory; see which layers are called."""
        share = self.share
        few = min(_FEW, share.samples)
        if not few:
            return
        outputs, _ = self._forward(0, few)
        taken = graph_bytes(self.torch, [outputs])
        for layer in self.layers:
            if layer.calls:
                positions = layer.inputs(self.torch)
                taken += ARRAYS * 8 * positions[..., 0].numel() * (layer.inner + layer.outer)
        share.chunk = max(1, min(share.samples, few * self._memory // max(1, 2 * taken)))

    def _forward(self, first: int, last: int) -> tuple[Tensor, Rebuild]:
        """Return the outputs of some samples as one tensor and what undoes that; the layers note their calls."""
        for layer in self.layers:
            layer.calls.clear()
        hooks = [layer.module.register_forward_hook(layer.record) for layer in self.layers]
        try:
            with self.share.evaluation():
                outputs, rebuild = packed(self.torch, self.share.outputs(first, last), last - first)
        finally:
            for hook in hooks:
                hook.remove()
        if not outputs.ndim or len(outputs) != last - first:
            raise InputError("the model must return tensors whose first axis is samples")
        for layer in self.layers:
            for given, _ in layer.calls:
                if len(given) != last - first:
                    raise InputError(
                        f"layer {layer.name} is given {tuple(given.shape)} for {last - first} samples: the first "
                        "axis must be samples, so that positions can be told from them"
                    )
        return outputs, rebuild

    def _visit_chunks(self, visit: Callable[[int, Tensor, list[Tensor]], None]) -> None:
        for first, last in self.share.chunks():
            with self.share.evaluation():
                for number, (a, every) in enumerate(self._values(first, last)):
                    visit(number, a, every)

    def _values(self, first: int, last: int) -> Iterator[tuple[Tensor, list[Tensor]]]:
        """Yield inputs, and slopes of each vector, of each layer for some samples."""
        outputs, rebuild = self._forward(first, last)
        vectors = self._vectors(self.share, outputs.detach().requires_grad_(), rebuild, first, last)
        ends = [output for layer in self.layers for _, output in layer.calls]
        every: list[Iterator[Tensor]] = []
        for vector in vectors:
            slopes = self.torch.autograd.grad(outputs, ends, vector, retain_graph=True, allow_unused=True)
            filled = [
                self.torch.zeros_like(end) if slope is None else slope
                for slope, end in zip(slopes, ends, strict=True)
            ]
            every.append(iter(filled))
        for layer in self.layers:
            g = [layer.slopes(self.torch, [next(one) for _ in layer.calls]) for one in every]
            yield layer.inputs(self.torch), g

    def _to_host(self, array: np.ndarray) -> Tensor:
        return self.torch.tensor(array, device=self.share.device)

    def _to_numpy(self, array: Tensor) -> np.ndarray:
        return array.cpu().numpy()


def _empirical(share: TorchShare, outputs: Tensor, rebuild: Rebuild, first: int, last: int) -> list[Tensor]:
    """Return the one vector that is the slope of each sample's loss by its outputs."""
    return [share.sample_slopes(outputs, first, last, rebuild)]


def _gauss_newton(share: TorchShare, outputs: Tensor, rebuild: Rebuild, first: int, last: int) -> list[Tensor]:
    """Return vectors v with Σ v vᵀ = L, the Hessian of each sample's loss by its outputs."""
    torch, count = share.torch, last - first
    value = share.loss_of_outputs(rebuild(outputs), first, last) * (1 if share.is_sum else count)
    (slope,) = torch.autograd.grad(value, outputs, create_graph=True)
    slope = (slope + 0 * outputs).reshape(count, -1)
    along = partial(torch.autograd.grad, inputs=outputs, retain_graph=True)
    rows = [along(slope[:, c].sum())[0].reshape(count, -1) for c in range(slope.shape[1])]
    vectors = root_vectors(torch.stack(rows, 1).detach().cpu().numpy())
    return [*torch.tensor(vectors, device=outputs.device).reshape(-1, *outputs.shape)]


_VECTORS = {"gauss-newton": _gauss_newton, "empirical fisher": _empirical}
