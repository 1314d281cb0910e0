"""Hessians by differences that call themselves verified: how many are wrong, and what is refused, and why.

All functions of `tests/support/practical_functions.py`, each with its own pattern, in variables of scales over
1e±6, with noise in the gradient, gradients printed with 3 to 6 decimals, positions rounded to as many,
gradients that keep their last argument, in double and single precision, with bounds (beyond which they raise)
and without, from 0 and from far away. The truth is the Hessian in closed form. A Hessian that comes back
verified is

    right   the true error in the Frobenius norm is within ten times `error`, and that of every entry within ten
            times `entry_errors`, or 1e-3 of √(d_i d_j), d the typical curvatures along the variables;
    entry   the first, but not the second: a variable is wrong that the norm of the matrix does not see;
    WRONG   not even the first; also what is not finite, what warns, and what raises anything else than ours.

A refusal is *fit* where its words name what was done to the function, and *misled* where they do not, but blame
the function or the pattern, say, which are right. Zero Hessians are judged by the second rule, against the size
that the Hessian has a typical length away. Exits with 1 if any is an entry or WRONG.

*gradients* are those of all ranks beside the ordinary ones: 2 a colour (1 forward, 4 extrapolated), 7 for the
noise, 2 to verify.

    python benchmarks/derivative_survey.py [--count 2021] [--seed 0] [--only REGEX] [--all]
    python benchmarks/derivative_survey.py --one log_barrier.7
    mpiexec -n 2 python benchmarks/derivative_survey.py
"""

import argparse
import functools
import re
import sys
import time
import traceback
import warnings
import zlib
from collections import Counter
from dataclasses import dataclass, fields
from pathlib import Path

from mpi4py import MPI

import numpy as np
import scipy.sparse as sp

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import sparsehess as sh
from sparsehess.coloring import color
from sparsehess.errors import SparseHessError
from sparsehess.runtime import communicator
from support.practical_functions import SHAPES

SIZES = (12, 20, 36, 60)
VERDICTS = ("right", "entry", "WRONG", "fit", "misled")
BAD = ("entry", "WRONG")
TIMES = 10.0  # what a true error may be beside the reported one
FELT = 1e-3  # of √(d_i d_j), what may be wrong with an entry that is said to be exact
FLOOR = 1e-8  # of the largest curvature along a typical length: smaller ones are judged against that

PER_COLOR = {"central": 2, "forward": 1, "extrapolated": 4}
SEEN = {
    "blurred": r"nois|\bround|\bgrain|digit|decimal|coarse|precision|float32|quant",
    "unmoved": r"same|cach|identi|constant|not change|change nothing",
    "scaled": r"length|scale|typical|\bsteps?\b",
    "ended": r"bound|finite|nan\b",
}


# --- what is done to a function ---------------------------------------------------------


@dataclass(frozen=True)
class Condition:
    """What is done to a function, in words."""

    scales: str
    noise: str
    grain: str
    precision: str
    start: str
    bounds: str
    told: str
    derivative: str

    @classmethod
    def drawn(cls, rng, shape):
        def one(**shares):
            words = [word.replace("_", " ") for word in shares]
            return words[rng.choice(len(words), p=np.array(list(shares.values())) / sum(shares.values()))]

        spoilt = one(nothing=40, noise=22, grain=20, both=5, single=13)
        noise, grain = "0", "none"
        if spoilt in ("noise", "both"):
            noise = str(rng.choice(["1e-12", "1e-08", "1e-05"]))
        if spoilt in ("grain", "both"):
            grain = one(printed=5, positions=4, cached=1)
            grain += "" if grain == "cached" else f" {rng.integers(3, 7)}"
        free = not np.isfinite(shape.lower)
        far = {"far_1e3": 4, "far_1e5": 4, "far_1e8": 1} if free else {}
        far |= {"far_1e16": 1} if shape.at_zero else {}
        zero = {"zero": 12} if shape.at_zero else {}
        return cls(
            scales=one(one=34, blocks=33, each=33),
            noise=noise,
            grain=grain,
            precision="single" if spoilt == "single" else "double",
            start=one(point=80, **zero, **far),
            bounds=one(none=70, some=30),
            told=one(no=70, yes=30),
            derivative=one(central=70, forward=15, extrapolated=15),
        )

    def __str__(self):
        return ", ".join(f"{field.name} {getattr(self, field.name)}" for field in fields(self))

    @property
    def clean(self):
        """Whether nothing is done to the digits of the gradient."""
        exact = self.noise == "0" and self.grain == "none" and self.precision == "double"
        return exact and "far" not in self.start

    def fits(self, shape):
        """Return the pattern of words that a refusal may give as its reason, None where there is none."""
        bounded = self.bounds == "some"
        unknown = self.told == "no" and (self.scales != "one" or shape.length.min() < 0.5)
        reasons = {
            "blurred": not self.clean,
            "unmoved": self.grain == "cached",
            "scaled": bounded or self.start == "zero" or unknown,
            "ended": bounded or unknown or np.isfinite(shape.lower),
        }
        return "|".join(SEEN[name] for name, there in reasons.items() if there) or None


def subject(name, n, comm):
    """Return (shape, pattern, colouring, sizes of the gradient's components) of a function."""
    shape = SHAPES[name](n)
    function = shape.function
    pattern = sh.Pattern.from_scipy(function.pattern, comm=comm)
    change = abs(function.hessian(function.x)) @ shape.length
    size = np.maximum(np.abs(function.gradient(function.x)), change)
    return shape, pattern, color(pattern, order="natural"), np.maximum(size, 1e-3 * size.max())


def decade(values):
    return 10.0 ** np.round(np.log10(values))


class Trial:
    """One function under one condition; its gradient is that of x as a user would have written it."""

    def __init__(self, name, seed, subject, condition=None):
        self.name = name
        function, _, number = name.partition(".")
        rng = np.random.default_rng([seed, int(number), zlib.crc32(function.encode())])
        n = int(rng.choice(SIZES))
        self.shape, self.pattern, self.coloring, size = subject(function, n)
        drawn = Condition.drawn(rng, self.shape)
        self.condition = condition = condition or drawn
        self.function = self.shape.function
        n = len(self.function.x)
        decades = {"one": np.zeros(n), "blocks": np.repeat(rng.uniform(-6, 6, (n + 4) // 5), 5)[:n],
                   "each": rng.uniform(-6, 6, n)}[condition.scales]  # fmt: skip
        self.scale = 10.0**decades
        self.size = size / self.scale
        self.length = self.shape.length * self.scale
        self.shift = float(condition.start.split()[1]) if "far" in condition.start else 0.0
        u = np.zeros(n) if condition.start == "zero" else self.function.x
        self.x = self.scale * (u + self.shift)
        self.lower, self.upper = self.ends(rng)
        self.noise, self.calls, self.beyond = float(condition.noise), 0, 0
        self.kept, self.value = None, None
        kind, _, decimals = condition.grain.partition(" ")
        fixed = condition.scales == "one"
        grain = 10.0 ** -float(decimals or 0)
        self.printed = grain * (1.0 if fixed else decade(self.size)) if kind == "printed" else None
        self.rounded = grain * (1.0 if fixed else decade(self.length)) if kind == "positions" else None
        self.cached = kind == "cached"
        self.typical = self.length if condition.told == "yes" else None

    def ends(self, rng):
        """Return bounds: where the function ends, and some that are near on one side, a few at x itself."""
        room = rng.choice([1.0, 1e-2, 1e-4, 0.0], (2, len(self.x)), p=[0.7, 0.15, 0.1, 0.05]) * self.length
        room[0, room[1] < self.length] = np.inf
        end = self.scale * (self.shape.lower + self.shift)
        return np.maximum(self.x - room[0], end), self.x + room[1]

    def exact(self):
        """Return the true Hessian, in the variables x / scale."""
        hessian = self.function.hessian(self.x / self.scale - self.shift).tocsr()
        hessian.data[np.abs(hessian.data) < 1e-40] = 0.0  # squares of complex steps
        return hessian

    def gradient(self, x):
        self.calls += 1
        if self.cached:
            if x is not self.kept:
                self.kept, self.value = x, self.evaluated(x)
            return self.value
        return self.evaluated(x)

    def evaluated(self, x):
        if self.condition.bounds == "some" and ((x < self.lower) | (x > self.upper)).any():
            self.beyond += 1
            raise ValueError("called beyond the bounds")
        x = np.array(x)
        if self.rounded is not None:
            x = np.rint(x / self.rounded) * self.rounded
        kind = np.float32 if self.condition.precision == "single" else np.float64
        scale = self.scale.astype(kind)
        with np.errstate(all="ignore"):
            g = self.function.gradient(x.astype(kind) / scale - kind(self.shift)).astype(kind) / scale
        g = g.astype(float)
        if self.noise:
            kept = (x.view(np.int64) + 2**11) >> 12  # the last bits of steps depend on the number of ranks
            rng = np.random.Generator(np.random.PCG64(zlib.crc32(kept.tobytes())))
            g += self.noise * self.size * rng.standard_normal(len(g))
        return g if self.printed is None else np.rint(g / self.printed) * self.printed

    def objective(self, comm):
        bounds = (self.lower, self.upper) if self.condition.bounds == "some" else None
        return sh.Objective(
            x=self.x, gradient=self.gradient, pattern=self.pattern, bounds=bounds, typical_x=self.typical,
            name=self.function.name, comm=comm,
        )  # fmt: skip

    @property
    def ordinary(self):
        """How many gradients such a Hessian costs where all is well."""
        kind = self.condition.derivative
        return PER_COLOR[kind] * self.coloring.count + 9 + (kind == "forward")


# --- how it is judged -------------------------------------------------------------------


def whole(local, comm):
    return np.concatenate(comm.allgather(local))


def entries(hessian, comm):
    """Return the assembled matrix, whole on every rank."""
    indptr, columns, values = hessian.mat.getValuesCSR()
    rows = whole(np.diff(indptr), comm)
    return sp.csr_matrix(
        (whole(values, comm), whole(columns, comm), np.append(0, np.cumsum(rows))), (len(rows),) * 2
    )


def equilibrating(T):
    """Return d such that |T_ij| is no more than √(d_i d_j), and about as much once in each row (Ruiz)."""
    A, d = abs(T).toarray(), np.ones(T.shape[0])
    for _ in range(10):
        top = (A / np.sqrt(np.outer(d, d))).max(axis=1)
        d *= np.where(top > 0, top, 1.0)
    return np.where(A.any(axis=1), d, 0.0)


@dataclass
class Judged:
    """What came of a trial.

    Attributes
    ----------
    reported, true
        Relative errors in the Frobenius norm.
    entry
        Largest error of an entry over what it may be.
    scaled
        Largest |dH_ij| / √(d_i d_j).
    """

    trial: Trial
    verdict: str
    said: str
    gradients: int
    reported: float = np.nan
    true: float = np.nan
    entry: float = np.nan
    scaled: float = np.nan

    @property
    def how(self):
        """What is wrong with it, in a word."""
        if self.said:
            return "warned" if "RuntimeWarning" in self.said else "raised"
        if not np.isfinite([self.reported, self.true]).all():
            return "not finite"
        return "error below 1e-4, but not as small as said" if self.true < 1e-4 else "error above 1e-4"

    def __str__(self):
        errors = f"error {self.reported:.1e} true {self.true:.1e} entry {self.entry:.1e} scaled {self.scaled:.1e}"
        numbers = "" if np.isnan(self.reported) else f": {errors}"
        words = f": {self.said}" if self.said else ""
        return f"{self.trial.name}: {self.verdict}: {self.trial.condition}{numbers}{words}"


def stated(hessian, comm):
    """Return what `entry_errors` say of each entry, (n, n)."""
    errors, layout = hessian.entry_errors, hessian.pattern.layout
    if errors is None:
        return np.zeros((layout.n, layout.n))
    units = np.eye(layout.n)[:, layout.start : layout.stop]
    return whole(np.stack([errors.of_product(unit) for unit in units], axis=1), comm)


def compared(trial, hessian, comm):
    """Return the figures of `Judged` for a Hessian that was assembled, and whether the true one is zero."""
    down, length = sp.diags(1 / trial.scale), trial.shape.length
    found, inner = entries(hessian, comm), trial.exact()
    exact = down @ inner @ down
    wrong = (found - exact).toarray()
    top = np.max([sp.linalg.norm(found), sp.linalg.norm(exact)])
    true = 0.0 if top == 0 else np.linalg.norm(wrong) / top
    typical, zero = equilibrating(inner) * length**2, inner.count_nonzero() == 0
    least = (trial.size * trial.length).max() if zero else FLOOR * typical.max()
    d = np.sqrt(np.maximum(typical, least)) / trial.length
    wrong = np.abs(wrong) / np.outer(d, d)
    off = worst = wrong.max()
    if worst > FELT:
        off = (wrong / (TIMES * stated(hessian, comm) / np.outer(d, d) + FELT)).max()
    return hessian.error, true, float(off), float(worst), zero


def judged(trial, comm):
    """Assemble the Hessian of a trial, and judge what comes. Collective."""
    said, verdict, figures = "", "", ()
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            objective = trial.objective(comm)
            with sh.assemble(
                objective, derivative=trial.condition.derivative, coloring=trial.coloring, verify=True
            ) as hessian:
                *figures, zero = compared(trial, hessian, comm)
                reported, true, entry, _ = figures
                verdict = "right" if entry <= 1 else "entry"
                if not (np.isfinite(figures).all() and reported >= 0) or not (zero or true <= TIMES * reported):
                    verdict = "WRONG"
        except SparseHessError as error:
            said = f"{type(error).__name__}: {error}"
            words, fits = said.replace(trial.function.name, ""), trial.condition.fits(trial.shape)
            verdict = "fit" if fits and re.search(fits, words, re.IGNORECASE) else "misled"
            verdict = "WRONG" if error.status == 1 or comm.allreduce(trial.beyond) else verdict
        except Exception:
            said, verdict = traceback.format_exc(limit=-2), "WRONG"
    alarms = {str(w.message) for w in warned if issubclass(w.category, RuntimeWarning)}
    alarms = sorted(set().union(*comm.allgather(alarms)))
    if alarms:
        said, verdict = f"{said} RuntimeWarning: {'; '.join(alarms)}".strip(), "WRONG"
    return Judged(trial, verdict, " ".join(said.split()), comm.allreduce(trial.calls), *figures)


# --- what is printed --------------------------------------------------------------------


def table(results):
    """Print how many Hessians of each condition had which verdict, and their gradients beside the ordinary."""
    print(f"\n{'':24s} {'all':>5s} " + " ".join(f"{v:>6s}" for v in VERDICTS) + f" {'gradients':>10s}")

    def line(words, some):
        row = Counter(result.verdict for result in some)
        spent = sum(r.gradients for r in some) / max(sum(r.trial.ordinary for r in some), 1)
        print(f"{words:24s} {len(some):5d} " + " ".join(f"{row[v]:6d}" for v in VERDICTS) + f" {spent:10.2f}")

    for field in fields(Condition):
        groups = {}
        for result in results:
            groups.setdefault(getattr(result.trial.condition, field.name), []).append(result)
        for value in sorted(groups):
            line(f"{field.name} {value}", groups[value])
        print()
    clean = [r for r in results if r.trial.condition.clean]
    line("clean", clean)
    line("clean, one scale", [r for r in clean if r.trial.condition.scales == "one"])
    line("clean, told", [r for r in clean if r.trial.condition.told == "yes"])
    line("all", results)
    refused = sum(r.verdict in ("fit", "misled") for r in clean)
    print(f"\nrefused of clean inputs: {refused} of {len(clean)} ({refused / max(len(clean), 1):.1%})")
    kinds = Counter(r.how for r in results if r.verdict == "WRONG")
    print("WRONG: " + ", ".join(f"{how} {many}" for how, many in kinds.most_common()))
    right = [r for r in results if r.verdict == "right"]
    if right:
        ends = np.nanquantile([r.scaled for r in right], [0.5, 0.9, 1.0])
        print("scaled error of right ones: median {:.1e}, of nine tenths {:.1e}, largest {:.1e}".format(*ends))
        print(
            f"right, as they say how wrong they are, but useless (above 0.1): {sum(r.scaled > 0.1 for r in right)}"
        )
    for verdict in (*BAD, "misled"):
        which = Counter(r.trial.name.partition(".")[0] for r in results if r.verdict == verdict)
        print(f"{verdict}: " + ", ".join(f"{name} {many}" for name, many in which.most_common()))


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--count", type=int, default=43 * len(SHAPES))
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--only", metavar="REGEX", help="of 'FUNCTION.NUMBER: condition', as it is printed")
    arguments.add_argument("--one", metavar="FUNCTION.NUMBER", help="of the same seed")
    arguments.add_argument("--all", action="store_true", help="print every Hessian, not only those that are bad")
    given = arguments.parse_args()
    comm = communicator(MPI.COMM_WORLD)
    began, results = time.perf_counter(), []
    subjects = functools.cache(functools.partial(subject, comm=comm))
    names = list(SHAPES)
    asked = [f"{names[i % len(names)]}.{i // len(names)}" for i in range(given.count)]
    for name in [given.one] if given.one else asked:
        trial = Trial(name, given.seed, subjects)
        if given.only and not re.search(given.only, f"{name}: {trial.condition}"):
            continue
        result = judged(trial, comm)
        results.append(result)
        if comm.rank == 0 and (given.all or given.one or result.verdict in (*BAD, "misled")):
            print(result, flush=True)
    bad = sum(result.verdict in BAD for result in results)
    if comm.rank == 0 and not given.one:
        table(results)
        ran = f"{len(results)} Hessians on {comm.size} rank(s) in {time.perf_counter() - began:.0f} s"
        print(f"{ran}: {bad} called verified and not right")
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
