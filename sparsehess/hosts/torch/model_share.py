"""`TorchShare`: a PyTorch model with this rank's samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsehess.errors import InputError
from sparsehess.hosts.learning.model_share import ModelShare, SampleArrays
from sparsehess.hosts.learning.parameter_groups import Selection, consecutive_slices, select_parameters
from sparsehess.hosts.torch.evaluation import evaluation
from sparsehess.hosts.torch.packed_outputs import detached, unknown_kind
from sparsehess.hosts.torch.parameters import Leaves, convert_pair, follow_copy, reads_own, require_device

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

    from sparsehess.hosts.torch.parameters import Device


# How far parameters are moved, in parts of their size, and which part of a loss does not tell of it.
_ASIDE, _SAME = 1e-4, 1e-10


class TorchShare(ModelShare):
    """A model and this rank's samples at one precision, with the loss on them.

    Attributes
    ----------
    leaves
        The parameters that are the variables.
    model
        The copy of the model.
    device
        Where the first parameter and the samples are.
    moves
        How often the parameters have changed: graphs made before the last time are of no use.
    """

    def __init__(
        self,
        torch: ModuleType,
        model: Module,
        loss: Callable[[Tensor, Tensor], Tensor],
        inputs: Any,
        targets: Any,
        parameters: Selection,
        precision: str,
        device: Device,
    ) -> None:
        self.torch, self._dtype = torch, getattr(torch, precision)
        self._held: dict[tuple[int, int], Tensor] = {}  # rows of padding
        if not isinstance(model, torch.nn.Module):
            raise InputError(f"the model must be a torch.nn.Module, not {type(model).__name__}")
        if not callable(loss):
            raise InputError(f"the loss must be a function of outputs and targets, not {type(loss).__name__}")
        own = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
        if not own:
            raise InputError(f"{type(model).__name__} has no parameters that require gradients")
        names = select_parameters(own, parameters)
        require_device(torch, device)
        self._own = model
        with torch.inference_mode(False):
            self.model, self._function = convert_pair(torch, model, loss, self._dtype, device)
        tensors = dict(self.model.named_parameters())
        for name, tensor in tensors.items():
            tensor.requires_grad_(name in names)
            if tensor.is_complex() and tensor.requires_grad:
                raise InputError(
                    f"parameter {name} is complex: hold it as a real one, of which the model takes "
                    "`torch.view_as_complex`, or leave it out by `parameters`"
                )
        self.leaves = Leaves(torch, [tensors[name] for name in names])
        self.device = self.leaves.tensors[0].device
        self._inputs = [self._tensor(one) for one in (inputs if isinstance(inputs, (tuple, list)) else (inputs,))]
        self._targets = self._tensor(targets)
        if self._targets.dtype in (torch.int8, torch.int16, torch.int32):
            self._targets = self._targets.long()  # losses of classes take no others
        if any(len(array) != len(self._targets) for array in self._inputs):
            raise InputError(
                f"inputs of {[len(array) for array in self._inputs]} samples, targets of {len(self._targets)}: "
                "targets are one array, with a mask or weights in a last axis of it"
            )
        slices = consecutive_slices((name, tensors[name].numel()) for name in names)
        super().__init__(slices, self.leaves.join(self.leaves.tensors), len(self._targets))
        self._at, self.moves = self.x, 0

    def _tensor(self, array: Any) -> Tensor:
        try:
            with self.torch.inference_mode(False):
                tensor = array.detach() if self.torch.is_tensor(array) else self.torch.tensor(np.asarray(array))
                tensor = tensor.clone() if tensor.is_inference() else tensor
        except (TypeError, ValueError) as error:
            told = self._instead(array) or error
            raise InputError(f"inputs and targets must be tensors or arrays of numbers: {told}") from error
        if not tensor.ndim:
            raise InputError("samples lie along the first axis, and there is none")
        with self.torch.inference_mode(False):
            return tensor.to(device=self.device, dtype=self._dtype if tensor.is_floating_point() else tensor.dtype)

    def _instead(self, given: Any) -> str:
        """Return what to give in the place of what holds tensors and is none; or nothing."""
        if isinstance(given, self.torch.utils.data.DataLoader):
            return (
                f"a {type(given).__name__} gives batches; all samples are "
                "inputs, targets = (torch.cat(part) for part in zip(*loader))"
            )
        if isinstance(given, Mapping):
            return "of a dictionary give a tuple of its tensors, and a model that takes them one by one"
        return ""

    def settle_loss(self, of_outputs: bool) -> None:
        """Let what the loss reads of the caller's model, such as a penalty, be of the copy that moves.

        Not collective.

        Parameters
        ----------
        of_outputs
            Whether the loss must depend on the parameters by the outputs alone.

        Raises
        ------
        InputError
            It reads tensors that cannot be replaced, or depends on the parameters by itself.
        """
        if not self.samples:
            return
        own, few = [*self._own.parameters()], min(2, self.samples)
        with self.evaluation():
            outputs = detached(self.torch, self.outputs(0, few), few)
            if reads_own(self.torch, self.loss_of_outputs(outputs, 0, few), own):
                self._function = follow_copy(self.torch, self._function, self._own, self.model)
            value = self.loss_of_outputs(outputs, 0, few)
            if reads_own(self.torch, value, own):
                raise InputError(
                    "the loss reads parameters of your model that do not move with the variables: let it take "
                    "them from the model when it is called, by `model.parameters()`, not from a list made before"
                )
            if of_outputs and reads_own(self.torch, value, self.leaves.tensors):
                kind = unknown_kind(self.torch, outputs)
                if kind:
                    raise InputError(
                        f"the model returns a {kind}, and which tensors are in it is not known: return these in a "
                        "dict, a tuple or a data class"
                    )
                raise InputError(
                    "the loss depends on the parameters by itself, not by the outputs alone, as with a penalty: "
                    "leave that out here, and add its curvature with `weighted_sum`"
                )
            self._require_seen(few)

    def _require_seen(self, few: int) -> None:
        """Refuse parameters that move the loss of some samples, and of which PyTorch knows nothing."""
        names = [*self.slices]
        loss = self.loss_of_outputs(self.outputs(0, few), 0, few)
        slopes = (
            self.torch.autograd.grad(loss, self.leaves.tensors, allow_unused=True) if loss.requires_grad else ()
        )
        unseen = [name for name, slope in zip(names, slopes, strict=False) if slope is None]
        moved = self.x.copy()
        for name in unseen:
            moved[self.slices[name]] += _ASIDE * (1 + np.abs(moved[self.slices[name]]))
        there, again = (self._loss_at(x, few) for x in (moved, self.x))
        # A step, as of a comparison, stays where it is; what depends on chance is refused elsewhere.
        if abs(again - loss.item()) <= _SAME * abs(again) < abs(there - again):
            raise InputError(
                f"the loss depends on {unseen[0]} in a way that PyTorch does not see, by `detach`, `.data` or "
                "checkpoints with use_reentrant=True: leave that out, or the parameter, by `parameters`"
            )

    def _loss_at(self, x: np.ndarray, few: int) -> float:
        """Return the loss of the first samples at x (n,)."""
        self.assign(x)
        return self.loss_of_outputs(self.outputs(0, few), 0, few).item()

    def evaluation(self) -> ExitStack:
        """Return the context for calls of model and loss, and for derivatives of what they return.

        Not collective.
        """
        return evaluation(self.torch, self._dtype, self.device, self._held)

    def outputs(self, first: int, last: int) -> Tensor:
        """Return what the model gives for some samples.

        Not collective.
        """
        return self.model(*(array[first:last] for array in self._inputs))

    def loss_of_outputs(self, outputs: Tensor, first: int, last: int) -> Tensor:
        """Return the loss of outputs for some samples, as the user's function has it.

        Not collective.
        """
        return self._loss_value(outputs, self._targets[first:last])

    def _loss_value(self, outputs: Tensor, targets: Tensor) -> Tensor:
        value = self._function(outputs, targets)
        if not self.torch.is_tensor(value) or value.numel() != 1 or not value.is_floating_point():
            shape = tuple(value.shape) if self.torch.is_tensor(value) else ""
            kind = value.dtype if self.torch.is_tensor(value) else type(value).__name__
            raise InputError(
                f"the loss must return a tensor of one real number, not {kind} {shape}"
                + (": take its mean over samples" if shape else "")
            )
        return value.reshape(())

    def sample_slopes(
        self, outputs: Tensor, first: int, last: int, rebuild: Callable[[Tensor], Any] = lambda flat: flat
    ) -> Tensor:
        """Return the gradients of the loss of each sample by its outputs.

        Not collective. The outputs' first axis must be the samples; `rebuild` makes of them what the loss takes.
        """
        count = last - first
        if not outputs.ndim or len(outputs) != count:
            raise InputError(
                f"{count} samples have outputs {tuple(outputs.shape)}: their first axis must be samples"
            )
        (slope,) = self.torch.autograd.grad(self.loss_of_outputs(rebuild(outputs), first, last), outputs)
        return (slope if self.is_sum else count * slope).detach()

    def constants(self) -> dict[str, np.ndarray]:
        """Return frozen parameters and buffers of floating point, by name.

        Not collective.
        """
        held = dict(self.model.named_parameters()) | dict(self.model.named_buffers())
        return {
            name: tensor.detach().double().cpu().numpy().ravel()
            for name, tensor in held.items()
            if name not in self.slices and tensor.is_floating_point()
        }

    def pick(self, samples: np.ndarray) -> SampleArrays:
        """Return the arrays of some samples (m,), the targets last.

        Not collective.
        """
        rows = self.torch.as_tensor(samples, device=self.device)
        return [array[rows].cpu().numpy() for array in (*self._inputs, self._targets)]

    def value(self, x: np.ndarray, arrays: SampleArrays) -> float:
        """Return the loss at x (n,) of samples, of this rank or others.

        Not collective.
        """
        self.assign(x)
        with self.evaluation():  # the loss may differentiate by itself
            return self._loss_of_arrays(arrays).item()

    def value_and_slope(self, x: np.ndarray, arrays: SampleArrays) -> tuple[float, np.ndarray]:
        """Return the loss at x (n,) of such samples, and its gradient (n,).

        Not collective.
        """
        self.assign(x)
        with self.evaluation():
            loss = self._loss_of_arrays(arrays)
            return loss.item(), self._slope(loss)

    def weight_of(self, weight: Callable[[Any], Any], arrays: SampleArrays) -> Any:
        """Return weight(targets) of such samples.

        Not collective.
        """
        value = weight(self._tensor(arrays[-1]))
        return value.item() if self.torch.is_tensor(value) and value.numel() == 1 else value

    def _loss_of_arrays(self, arrays: SampleArrays) -> Tensor:
        *inputs, targets = (self._tensor(array) for array in arrays)
        return self._loss_value(self.model(*inputs), targets)

    def _slope(self, loss: Tensor) -> np.ndarray:
        """Return the gradient (n,) of a loss."""
        slopes = (
            self.torch.autograd.grad(loss, self.leaves.tensors, allow_unused=True) if loss.requires_grad else ()
        )
        return self.leaves.join(self.leaves.complete(slopes or [None] * len(self.leaves.tensors)))

    def _loss(self, first: int, last: int) -> float:
        with self.evaluation():
            return self.loss_of_outputs(self.outputs(first, last), first, last).item()

    def weighted_loss(self, first: int, last: int) -> Tensor:
        """Return what some samples contribute to the whole.

        Not collective.
        """
        return self.weight(first, last) * self.loss_of_outputs(self.outputs(first, last), first, last)

    def assign(self, x: np.ndarray) -> None:
        """Make x (n,) the values of the parameters.

        Not collective.
        """
        if not np.array_equal(self._at, x):
            self.leaves.assign(x)
            self._at = np.array(x)
            self.moves += 1

    def energy(self, x: np.ndarray) -> float:
        """Return this rank's part of the loss at x (n,).

        Not collective.
        """
        self.assign(x)
        return sum(self.weight(first, last) * self._loss(first, last) for first, last in self.chunks())

    def gradient(self, x: np.ndarray) -> np.ndarray:
        """Return (n,) this rank's part of the gradient at x (n,).

        Not collective.
        """
        self.assign(x)
        total = np.zeros(self.leaves.n)
        for first, last in self.chunks():
            with self.evaluation():
                total += self._slope(self.weighted_loss(first, last))
        return total

    def advice(self) -> str:
        """Return which modules make outputs depend on chance or on other samples, and what to do; or nothing.

        Not collective.
        """
        nn = self.torch.nn.modules
        found = []
        for where, module in self.model.named_modules():
            drops = isinstance(module, nn.dropout._DropoutNd) and module.p > 0
            drops = drops or (isinstance(module, self.torch.nn.RNNBase) and module.dropout > 0)
            drops = drops or (isinstance(module, self.torch.nn.MultiheadAttention) and module.dropout > 0)
            norms = isinstance(module, nn.batchnorm._BatchNorm)
            if module.training and (drops or norms):
                found.append(f"{type(module).__name__} {where!r}")
        if not found:
            return ""
        more = f" and {len(found) - 3} more" if len(found) > 3 else ""
        are = "is" if len(found) == 1 else "are"
        return f"{', '.join(found[:3])}{more} {are} in training mode; call model.eval() first"
