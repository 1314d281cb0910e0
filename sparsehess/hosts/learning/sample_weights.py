"""How much samples weigh in a loss: measured at the loss itself, and checked on random samples of all ranks.

A mean of samples is Σ w l / Σ w. With w = 1 it is a plain mean; padding, masks and weights of classes make it
another. Of samples R, whose weight is the unit, and others A, the loss of both is c times that of A and 1 - c
times that of R, c = W(A) / (W(R) + W(A)): n + 1 equations, of the loss and its gradient, for one number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from sparsehess.errors import CheckError, InputError
from sparsehess.hosts.learning.host_errors import explain_host_errors
from sparsehess.hosts.learning.model_share import Chunk, ModelShare, SampleArrays
from sparsehess.hosts.learning.sample_shares import draw_mini_batch
from sparsehess.runtime import agreement
from sparsehess.runtime.validation import reals

if TYPE_CHECKING:
    from mpi4py import MPI

# Parts must make the whole to this part of its size: above a small number that keeps a denominator from zero, far
# below what chance or mistakes make.
FITS = 1e-7

# What rounding does to a loss, at least; more where another order of the samples changes it by more, at most.
_ROUNDING, _MOST_ROUNDING = 1e-12, 1e-7

# What rounding to float16 may do to a gradient.
_COARSE = 1e-2

# Where parts are as alike as this, nothing can be told of their weights.
_ALIKE = 1e-4

# Types of two bytes.
_HALF = ("float16", "bfloat16")

# How far away from where the curvature is taken losses are compared where they are alike, in sizes of x.
_AWAY = 1e-2

# Samples on which the check is made, in thirds, and how often they are dealt to these.
_SAMPLES, _DEALS = 24, 2

# How often samples are drawn until some have a weight.
_DRAWS = 8

REMEDY = (
    "let the loss be a sum over samples and say reduction='sum', or a mean whose denominator `weight` gives for "
    "the targets of some samples"
)


@dataclass(frozen=True)
class _Seen:
    """A loss and its gradient at some samples."""

    value: float
    slope: np.ndarray

    @property
    def is_finite(self) -> bool:
        return bool(np.isfinite(self.value) and np.isfinite(self.slope).all())

    @property
    def is_flat(self) -> bool:
        return not self.slope.any()


@dataclass(frozen=True)
class _Fit:
    """How a whole is a mean of two parts: the weight of the first, what is left, how much the parts differ."""

    part: float
    misfit: float
    apart: float


class _Measure:
    """Losses in units of their sizes: those of the loss and of its gradient."""

    def __init__(self, seen: Sequence[_Seen]) -> None:
        self._value = max((abs(one.value) for one in seen), default=0.0) or 1.0
        self._slope = max((float(np.linalg.norm(one.slope)) for one in seen), default=0.0) or 1.0

    def vector(self, seen: _Seen) -> np.ndarray:
        return np.append(seen.slope / self._slope, seen.value / self._value)

    def mean(self, whole: _Seen, one: _Seen, other: _Seen) -> _Fit:
        """Return how a whole is a mean of two parts; a part without weight may be no number."""
        U = self.vector(whole)
        for part, single, rest in ((0.0, one, other), (1.0, other, one)):
            if not single.is_finite:
                off = float(np.linalg.norm(U - self.vector(rest))) if rest.is_finite else np.inf
                return _Fit(part, off, 0.0)
        A, B = self.vector(one), self.vector(other)
        d = A - B
        squares = float(d @ d)
        part = float(d @ (U - B)) / squares if squares > 0 else 0.5
        misfit = float(np.linalg.norm(U - B - part * d)) + max(0.0, -part, part - 1)
        return _Fit(part, misfit, float(np.sqrt(squares)))

    def fixed(self, whole: _Seen, one: _Seen, other: _Seen, part: float) -> float:
        """Return by how much a whole is off a mean in which the first part has this weight."""
        left = self.vector(whole)
        for weight, seen in ((part, one), (1 - part, other)):
            if weight:
                left = left - weight * self.vector(seen)
        return float(np.linalg.norm(left))

    def sum(self, whole: _Seen, one: _Seen, other: _Seen) -> float:
        """Return by how much a whole is off the sum of two parts."""
        if not (one.is_finite and other.is_finite):
            return np.inf
        return float(np.linalg.norm(self.vector(whole) - self.vector(one) - self.vector(other)))


@dataclass(frozen=True)
class WeighingOptions:
    """How samples are weighed.

    Attributes
    ----------
    reduction
        `mean` or `sum`.
    weight
        `weight(targets) -> number`, by what the mean of some samples is divided; None where it is not known.
    plain
        Whether nothing but a plain mean will do.
    """

    reduction: str
    weight: Callable[[Any], Any] | None = None
    plain: bool = False


def weigh_samples(
    comm: MPI.Comm,
    share: ModelShare,
    chunkings: Sequence[Sequence[Chunk]],
    options: WeighingOptions,
    name: str,
) -> dict[Chunk, float]:
    """Return what part of the whole the loss of each chunk of this rank is, and check that it is one.

    Collective. Memory is taken for one of the chunks and a few samples more. Each loss is evaluated twice; where
    the mean is not plain the gradients are too.

    Parameters
    ----------
    comm
        Communicator.
    share
        The model in double precision.
    chunkings
        Chunks of this rank's samples; each of the lists has all samples.
    options
        How samples are weighed.
    name
        Of the function, for messages.

    Raises
    ------
    CheckError
        The loss is not finite, changes from call to call, is not the mean or the sum that it is said to be, or has
        weights that cannot be measured.
    """
    return _Weighing(comm, share, options, name).run(chunkings)


class _Weighing:
    def __init__(self, comm: MPI.Comm, share: ModelShare, options: WeighingOptions, name: str) -> None:
        if options.weight is not None and not callable(options.weight):
            raise InputError("`weight` must be a function of targets, weight(targets) -> number")
        self.comm, self.share, self.options, self.name = comm, share, options, name
        self.advice = share.advice()
        self.at, self.rounding, self._digits = share.x, _ROUNDING, ""

    def run(self, chunkings: Sequence[Sequence[Chunk]]) -> dict[Chunk, float]:
        """Return the parts of the whole."""
        largest = max((last - first for chunks in chunkings for first, last in chunks), default=1)
        at_a_time = min(self.comm.allgather(largest if self.share.samples else 2**62))
        count = max(2, min(_SAMPLES, at_a_time, self.comm.allreduce(self.share.samples)))
        third = max(1, count // 3)
        count = 3 * third if count > 2 else 2
        drawn = self._with_weight(self._draw(count), count)
        with agreement(self.comm), explain_host_errors(self.name):
            if self.share.samples:
                self._check_splits(drawn)
        reference = self._with_weight([array[:third] for array in drawn], third)
        every = [*dict.fromkeys(chunk for chunks in chunkings for chunk in chunks)]
        with agreement(self.comm), explain_host_errors(self.name):
            weights = {chunk: self._known_weight(self._arrays(chunk)) for chunk in every}
            unit = self._known_weight(reference)
            fits = self._screened(weights, reference, unit)
        if not all(self.comm.allgather(fits)):
            self._refuse_or_go_on()
            weights = self._measured_all(every, reference)
        return self._parts(chunkings, weights)

    @property
    def allowed(self) -> float:
        """To what part of its size a whole must be made of its parts."""
        return max(FITS, 100 * self.rounding)

    def _refuse_or_go_on(self) -> None:
        """Refuse samples whose loss has other weights than it is said to have, if these are not to be measured."""
        if self.options.reduction == "sum":
            raise CheckError(
                f"the loss of {self.name} is no sum over samples, though on a few of them it is: "
                f"{self.advice or 'some depend on others'}"
            )
        if self.options.weight is not None:
            raise CheckError(
                f"`weight` is not by what the mean of {self.name} is divided: leave it out, or {REMEDY}"
            )
        if self.options.plain:
            self._refuse_weights()

    def _refuse_weights(self) -> NoReturn:
        raise CheckError(
            f"the loss of {self.name} is a mean in which samples have different weights (padding, a mask, weights "
            "of classes), and has no curvature of this kind: take `hessian` or `gauss_newton`"
        )

    def _parts(self, chunkings: Sequence[Sequence[Chunk]], weights: dict[Chunk, float]) -> dict[Chunk, float]:
        """Return what parts of the whole chunks of these weights are. Collective."""
        if self.options.reduction == "sum":
            return dict.fromkeys(weights, 1.0)
        out: dict[Chunk, float] = {}
        for chunks in chunkings:
            total = sum(self.comm.allgather(sum(weights[chunk] for chunk in chunks)))
            if not total > 0:
                raise CheckError(f"no sample has a weight in the loss of {self.name}")
            out.update({chunk: weights[chunk] / total for chunk in chunks})
        return out

    # --- samples ---

    def _arrays(self, chunk: Chunk) -> SampleArrays:
        return self.share.pick(np.arange(*chunk))

    def _draw(self, count: int, seed: int = 0) -> SampleArrays:
        """Return samples drawn from all ranks, the same on each. Collective."""
        total = self.comm.allreduce(self.share.samples)
        chosen = draw_mini_batch(self.share.samples, min(count, total), seed=seed, comm=self.comm)
        with agreement(self.comm):
            own = self.share.pick(chosen) if len(chosen) else None
        found = [arrays for arrays in self.comm.allgather(own) if arrays is not None]
        # In another order than that of the ranks.
        order = np.random.default_rng(seed).permutation(min(count, total))
        return [np.concatenate(pieces)[order] for pieces in zip(*found, strict=True)]

    def _with_weight(self, arrays: SampleArrays, count: int) -> SampleArrays:
        """Return samples whose loss is a number and depends on the parameters. Collective."""
        for seed in range(1, _DRAWS + 1):
            with agreement(self.comm), explain_host_errors(self.name):
                good = True
                if self.share.samples:
                    seen = self._seen(arrays)
                    good = seen.is_finite and not seen.is_flat
            if self.comm.allreduce(int(not good)) == 0:
                break
            arrays = self._draw(count, seed)
        return arrays  # of a loss that is constant there: nothing depends on its weights

    # --- losses ---

    def _seen(self, arrays: SampleArrays) -> _Seen:
        return _Seen(*self.share.value_and_slope(self.at, arrays))

    def _check_splits(self, drawn: SampleArrays) -> None:
        """Refuse a loss of samples drawn at random that is not made of the losses of parts of them."""
        count = len(drawn[-1])
        once, again = (self.share.value_anew(self.at, drawn) for _ in range(2))
        whole = self._seen(drawn)
        if not np.isfinite(whole.value):
            raise CheckError(
                f"the loss of {self.name} is {whole.value} for {count} samples drawn at random: look for such "
                "numbers in data and parameters, and for samples that are padding alone"
            )
        if not whole.is_finite:
            raise CheckError(f"the gradient of {self.name} is not finite where the loss is {whole.value:.6g}")
        measure = _Measure([whole])
        if not abs(once - again) <= FITS * max(abs(once), abs(again)):
            raise CheckError(
                f"the loss of {self.name} is not deterministic: {once:.6g}, then {again:.6g}"
                f"{self.advice and ': ' + self.advice}"
            )
        if count < 2:
            return
        rng = np.random.default_rng(count)
        order = rng.permutation(count)
        turned = self._seen([array[order] for array in drawn])
        self.rounding = float(np.clip(measure.fixed(whole, turned, turned, 0.5), _ROUNDING, _MOST_ROUNDING))
        splits = [*self._splits(drawn, whole, rng)]
        self._digits = _fewest_digits([turned, *(seen for split in splits for seen in split)])
        if self._digits:  # where the order of samples may change nothing
            self.rounding = _MOST_ROUNDING
        away = self.share.x + _AWAY * (float(np.sqrt(np.mean(self.share.x**2))) or 1.0) * rng.standard_normal(
            len(self.share.x)
        )
        there = _Seen(*self.share.value_and_slope(away, drawn))
        is_flat = np.linalg.norm(whole.slope) <= _ALIKE * np.linalg.norm(there.slope)
        if there.is_finite and (is_flat or all(measure.mean(*split).apart < _ALIKE for split in splits)):
            # Where a model fits its data nothing is seen of their weights: nearby it is.
            self.at, whole = away, there
            splits = [*self._splits(drawn, whole, rng)]
        self._judge(splits, [len(one) for one in self._sizes(count)])

    @staticmethod
    def _sizes(count: int) -> list[np.ndarray]:
        """Return the thirds of so many, or the halves of two."""
        return np.array_split(np.arange(count), min(3, count))

    def _splits(
        self, drawn: SampleArrays, whole: _Seen, rng: np.random.Generator
    ) -> Iterator[tuple[_Seen, _Seen, _Seen]]:
        """Yield (whole, a third, the other two thirds) for each third, dealt several times."""
        count = len(drawn[-1])
        for _ in range(_DEALS):
            order = rng.permutation(count)
            for places in self._sizes(count):
                one, rest = order[places], np.setdiff1d(order, order[places])
                yield whole, self._seen([a[one] for a in drawn]), self._seen([a[rest] for a in drawn])

    def _judge(self, splits: Sequence[tuple[_Seen, _Seen, _Seen]], sizes: Sequence[int]) -> None:
        finite = [seen for split in splits for seen in split if seen.is_finite]
        measure, allowed = _Measure(finite), self.allowed
        fits = [measure.mean(*split) for split in splits]
        is_mean = all(fit.misfit <= allowed for fit in fits)
        if len(sizes) > 2 and is_mean:  # weights add up
            for begin in range(0, len(fits), len(sizes)):
                deal = fits[begin : begin + len(sizes)]
                apart = min(fit.apart for fit in deal)
                if apart > _ALIKE:
                    is_mean = is_mean and abs(sum(fit.part for fit in deal) - 1) <= allowed / apart
        is_sum = all(measure.sum(*split) <= allowed for split in splits)
        count = sum(sizes)
        parts = [size / count for _ in range(_DEALS) for size in sizes]
        is_plain = all(measure.fixed(*split, part) <= allowed for split, part in zip(splits, parts, strict=True))
        if is_sum if self.options.reduction == "sum" else is_mean and (is_plain or not is_sum):
            if self.options.plain and self.options.reduction == "mean" and not is_plain:
                self._refuse_weights()
            return
        if self.options.reduction == "sum" and is_mean:
            raise CheckError(f"the loss of {self.name} is a mean over samples: say reduction='mean'")
        if self.options.reduction == "mean" and is_sum:
            raise CheckError(f"the loss of {self.name} is a sum over samples: say reduction='sum'")
        whole, one, rest = max(splits, key=lambda split: measure.mean(*split).misfit)
        off = [
            whole.value - part * one.value - (1 - part) * rest.value
            for (whole, one, rest), part in zip(splits, parts, strict=True)
        ]
        in_value = float(np.abs(off).max() / max(abs(whole.value), 1e-300))
        raise CheckError(
            f"the loss of {count} samples of {self.name} drawn at random is neither the mean nor the sum of that "
            f"of two parts, {whole.value:.6g} against {one.value:.6g} and {rest.value:.6g}, nor is its gradient: "
            + (self.advice or self._reason(max(fit.misfit for fit in fits), in_value))
        )

    def _reason(self, misfit: float, in_value: float) -> str:
        if self._digits in _HALF:
            return f"the loss has the digits of {self._digits} alone: leave that out"
        if in_value <= FITS and misfit <= _COARSE:
            return (
                f"the loss is a mean, and its gradient is to {misfit:.0e} alone, as where numbers are rounded to "
                "float16 in between: leave that out"
            )
        if self.options.reduction == "sum":
            return (
                "samples depend on each other, or a term is no sum over samples; let a penalty be a part of a "
                "mean, or of another objective"
            )
        return (
            "samples depend on each other, or terms are divided by different numbers, or by one that is no sum "
            f"over samples; {REMEDY}"
        )

    # --- weights ---

    def _known_weight(self, arrays: SampleArrays) -> float:
        """Return the weight of samples as it is said to be: their number, or what the caller's function gives."""
        count = len(arrays[-1])
        if self.options.weight is None or not count:
            return float(count)
        with explain_host_errors("`weight`"):
            value = self.share.weight_of(self.options.weight, arrays)
        number = reals(value, "what `weight` returns")
        if number.size != 1 or not 0 <= number.item() < np.inf:
            raise CheckError(f"`weight` must return one number for some targets, at least 0, not {value}")
        return float(number.item())

    def _screened(self, weights: dict[Chunk, float], reference: SampleArrays, unit: float) -> bool:
        """Return whether the losses of chunks and the reference are the means that these weights give."""
        if not weights:
            return True
        base, is_sum = self.share.value(self.at, reference), self.options.reduction == "sum"
        for chunk, weight in weights.items():
            if not weight + unit > 0:
                return False
            arrays = self._arrays(chunk)
            both, part = self.share.value(self.at, _joined(reference, arrays)), weight / (weight + unit)
            # What has no weight may be no number.
            own = self.share.value(self.at, arrays) if part else 0.0
            found = own + base if is_sum else part * own + (1 - part) * base
            if not abs(both - found) <= 100 * self.rounding * max(abs(both), abs(own), abs(base)):
                return False
        return True

    def _measured_all(self, chunks: Sequence[Chunk], first: SampleArrays) -> dict[Chunk, float]:
        """Return the weights of chunks in units of that of the first reference. Collective.

        What is like a reference, or is one, is compared with others.
        """
        found: dict[Chunk, float] = {}
        count = len(first[-1])
        references: list[tuple[SampleArrays, _Seen, float]] = []
        for seed in range(_DRAWS):
            arrays = self._with_weight(self._draw(count, _DRAWS + seed), count) if seed else first
            with agreement(self.comm), explain_host_errors(self.name):
                if chunks:
                    seen = self._seen(arrays)
                    own = self._measured(arrays, seen, references) if seed else 1.0
                    if own:
                        references.append((arrays, seen, own))
                for chunk in chunks:
                    if chunk not in found:
                        some = self._arrays(chunk)
                        weight = self._measured(some, self._seen(some), references[-1:])
                        if weight is not None:
                            found[chunk] = weight
            if all(self.comm.allgather(len(found) == len(chunks))):
                return found
        raise CheckError(
            f"samples of {self.name} seem to have different weights in its mean, which cannot be measured: "
            f"{REMEDY}"
        )

    def _measured(
        self, arrays: SampleArrays, one: _Seen, references: Sequence[tuple[SampleArrays, _Seen, float]]
    ) -> float | None:
        """Return the weight of samples, or None where all references are like them."""
        for reference, base, unit in references:
            whole = self._seen(_joined(reference, arrays))
            if not whole.is_finite:
                raise CheckError(
                    f"the loss of {self.name} is {whole.value} for {len(arrays[-1])} samples: look for such "
                    "numbers in their inputs and targets"
                )
            fit = _Measure([seen for seen in (base, one, whole) if seen.is_finite]).mean(whole, one, base)
            if not fit.misfit <= self.allowed:
                raise CheckError(
                    f"the loss of {len(arrays[-1])} samples of {self.name} and {len(reference[-1])} others is no "
                    f"mean of that of both: {self.advice or REMEDY}"
                )
            if not one.is_finite:
                return 0.0
            if fit.apart >= _ALIKE and fit.part < 1:
                return 0.0 if abs(fit.part) <= self.rounding / fit.apart else unit * fit.part / (1 - fit.part)
        return None


def _fewest_digits(seen: Sequence[_Seen]) -> str:
    """Return the type of the fewest bits that holds the losses as they are; nothing for double precision."""
    values = np.array([one.value for one in seen if np.isfinite(one.value)])
    single = values.astype(np.float32)
    if not values.any() or (single != values).any():
        return ""
    if not (single.view(np.uint32) & 0xFFFF).any():
        return "bfloat16"
    with np.errstate(over="ignore"):
        return "float16" if (single.astype(np.float16) == single).all() else "float32"


def _joined(one: SampleArrays, other: SampleArrays) -> SampleArrays:
    return [np.concatenate(pieces) for pieces in zip(one, other, strict=True)]
