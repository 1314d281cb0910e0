"""How functions of PyTorch's are called: at one precision, by operations that can be differentiated twice.

Types of floating point that a function names by itself (`.float()`, `dtype=torch.float32`, autocast) are that of
the variables for all that depends on these: the derivative of a rounding is taken to be 1 anyway, and digits would
be lost.
Embeddings are dense, bags of them sums of these, attention and recurrent layers are not fused, what has no second
derivative is made of others, and nothing is compiled.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from functools import cache, partial
from types import ModuleType
from typing import TYPE_CHECKING, Any

from sparsehess.hosts.torch.compositions import compositions
from sparsehess.hosts.torch.embedding_bags import embedding_bag

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def evaluation(
    torch: ModuleType, precision: torch.dtype, device: torch.device, held: dict[tuple[int, int], Tensor]
) -> ExitStack:
    """Return a context for calls of functions and for backward passes through what they did.

    Not collective. Gradients are recorded in it, whatever is around it.

    Parameters
    ----------
    torch
        The package.
    precision, device
        Of the variables.
    held
        Of one function, empty at first: the rows of padding in embeddings, by parameter and row. PyTorch has no
        gradient by them, so that they stay as they were where the function was called first.
    """
    stack = ExitStack()
    stack.enter_context(torch.inference_mode(False))
    stack.enter_context(torch.enable_grad())
    stack.enter_context(_differentiable_attention(torch))
    stack.enter_context(_without_compiler(torch))
    stack.enter_context(torch.jit.optimized_execution(False))
    stack.enter_context(torch.autocast(device.type, enabled=False))
    stack.enter_context(_operations(torch)(precision, device.type, held))
    return stack


def _differentiable_attention(torch: ModuleType) -> AbstractContextManager[Any]:
    """Return a context in which attention is not fused: PyTorch has no second derivatives of the fused ones."""
    if not hasattr(torch.nn, "attention"):
        return nullcontext()
    return torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH)


def _without_compiler(torch: ModuleType) -> AbstractContextManager[Any]:
    """Return a context in which what was compiled is not: it can be differentiated once."""
    # Without the compiler nothing was compiled, and it takes a second to import.
    if "torch._dynamo" not in sys.modules or not hasattr(torch.compiler, "set_stance"):
        return nullcontext()
    return torch.compiler.set_stance("force_eager")


@cache
def _operations(torch: ModuleType) -> Callable[..., AbstractContextManager[Any]]:
    """Return the class of contexts, of what `evaluation` is given, in which operations are as said above."""
    F, kind = torch.nn.functional, torch.Tensor
    bag_arguments = inspect.signature(F.embedding_bag)
    embedding_arguments = inspect.signature(F.embedding)
    casts = {
        getattr(kind, name)
        for name in ("float", "double", "half", "bfloat16", "cfloat", "cdouble", "chalf")
        if hasattr(kind, name)
    }
    # Types of eight bits are storage, with scales of their own.
    known = {torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64, torch.complex128}
    complex_casts = {getattr(kind, name, None) for name in ("cfloat", "cdouble", "chalf")}
    made = compositions(torch)
    # Those of which the kernel is to be another: the model may ask for one of its own.
    kernels: dict[Any, Callable[[], AbstractContextManager[Any]]] = {
        one: partial(_differentiable_attention, torch)
        for one in (F.scaled_dot_product_attention, F.multi_head_attention_forward)
    }
    for name in ("lstm", "gru", "rnn_tanh", "rnn_relu"):
        kernels[getattr(torch, name)] = partial(torch.backends.cudnn.flags, enabled=False)

    mode: Any = torch.overrides.TorchFunctionMode

    class Operations(mode):
        def __init__(self, precision: Any, device: str, held: dict[tuple[int, int], Any]) -> None:
            super().__init__()
            self._real, self._device, self._held = precision, device, held
            self._complex = torch.complex128 if precision == torch.float64 else torch.complex64

        def __torch_function__(
            self, function: Callable[..., Any], types: Any, arguments: Any = (), options: Any = None
        ) -> Any:
            options = dict(options or {})
            if function is F.embedding_bag:
                return embedding_bag(torch, bag_arguments.bind(*arguments, **options))
            if function in made:
                return made[function](*arguments, **options)
            if function is F.embedding:
                bound = embedding_arguments.bind(*arguments, **options)
                bound.arguments["sparse"] = False  # sparse gradients cannot be differentiated
                padding = bound.arguments.pop("padding_idx", None)
                rows = function(*bound.args, **bound.kwargs)
                return rows if padding is None else self._padded(rows, padding, **bound.arguments)
            given = [*arguments, *options.values()]
            named = function in casts or any(isinstance(one, torch.dtype) for one in given)
            if function is kind.view or not (named or not any(map(torch.is_tensor, given))):
                return self._called(function, arguments, options)
            if not any(torch.is_tensor(one) and one.requires_grad for one in given):
                # Constants have the numbers that they are meant to have.
                return self._converted(self._called(function, arguments, options))
            if function in casts:
                wanted = self._complex if function in complex_casts else self._real
                return self._called(kind.to, (arguments[0], wanted), {})
            arguments = tuple(self._typed(one) for one in arguments)
            return self._called(function, arguments, {key: self._typed(one) for key, one in options.items()})

        def _padded(self, rows: Any, padding: int, input: Any, weight: Any, **_: Any) -> Any:
            """Return the rows of words with that of the padding held."""
            padding %= len(weight)
            row = weight[padding].detach().clone()
            if weight.is_leaf:
                row = self._held.setdefault((id(weight), padding), row)
            return torch.where((input == padding)[..., None], row, rows)

        def _called(self, function: Callable[..., Any], arguments: Any, options: Any) -> Any:
            with ExitStack() as stack:
                if function in kernels:
                    stack.enter_context(kernels[function]())
                if self._real != torch.float64:  # which no autocast touches
                    stack.enter_context(torch.autocast(self._device, enabled=False))
                return function(*arguments, **options)

        def _converted(self, out: Any) -> Any:
            """Return a tensor at the precision."""
            if not torch.is_tensor(out) or out.dtype not in known:
                return out
            return out.to(self._complex if out.is_complex() else self._real)

        def _typed(self, argument: Any) -> Any:
            """Return an argument, or the type that is taken for it."""
            if not isinstance(argument, torch.dtype):
                return argument
            if argument.is_complex:
                return self._complex
            return self._real if argument in known else argument

    return Operations
