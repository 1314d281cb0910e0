"""Sparse Hessians of JAX functions: ours beside those of asdex and sparsejac, and a million variables.

    python benchmarks/jax_hessians_vs_peers.py [peers] [tracing] [million] [--functions 'chain|cubes'] [--rounds 3]
        [--repeats 30]

peers
    The peers' own examples, at their sizes and larger ones, in float64, everybody in one process and in turns.
    First: pattern, colouring, compiling and the Hessian, for a function that was not seen before; imports are not
    counted. Again: the Hessian at another x, in an order that is drawn for each. Ours is a PETSc matrix on the
    host, with the check by a product or without it, as peers have none; its colouring is of the best of all our
    orders, as by default, or of one. asdex gives a BCOO array on the device under jit, as in its benchmarks, or a
    SciPy matrix; sparsejac finds no patterns and is given ours for nothing. Medians over rounds and repeats, and
    of the ratios of what was measured next to each other, a peer's seconds over ours: above 1 we are faster.
tracing
    Seconds and growth of the peak memory for the pattern alone, by our rules and by asdex, as n grows.
million
    A chain, a membrane and a φ⁴ field of a million variables, traced and assembled by us: seconds of the stages,
    growth of the peak memory, and that as a multiple of 12 bytes an entry and 8 bytes a number of a batch.

A million and tracing run in processes of their own, one for each line.
"""

import argparse
import json
import os
import re
import resource
import statistics
import subprocess
import sys
import time
from functools import partial

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse as sp

import sparsehess as sh
from sparsehess.hosts.jax import objective as host

# --- functions, made anew for everybody so that nobody finds what another one compiled ---


def chain(n):
    """asdex: its documentation (n = 100) and its benchmark (n = 200)."""
    return lambda x: jnp.sum((1 - x[:-1]) ** 2 + 100 * (x[1:] - x[:-1] ** 2) ** 2)


def differences(n):
    """asdex: tests of detection."""
    return lambda x: jnp.sum((x[1:] - x[:-1]) ** 3)


def cubes(n):
    """sparsejac: its README (n = 10,000) has x², the gradient of this."""
    return lambda x: jnp.sum(x**3) / 3


def convolution(n):
    """sparsejac: its tests (n = 50) have this convolution squared."""
    return lambda x: jnp.sum(jnp.convolve(x, jnp.asarray([1.0, -2.0, 1.0]), mode="valid") ** 4)


def convolution2d(n):
    """sparsejac: its tests (20 x 20) have this convolution squared."""
    side = round(n ** (1 / 2))
    window = np.ones((3, 3))
    return lambda x: jnp.sum(jax.scipy.signal.convolve2d(x.reshape(side, side), window, mode="valid") ** 3)


def membrane(n):
    """Area of a surface over a square."""
    side = round(n ** (1 / 2))

    def area(x):
        u = x.reshape(side, side)
        along, across = u[1:, :-1] - u[:-1, :-1], u[:-1, 1:] - u[:-1, :-1]
        return jnp.sum(jnp.sqrt(1 + along**2 + across**2))

    return area


def field(n):
    """φ⁴ on a cubic grid."""
    side = round(n ** (1 / 3))

    def energy(x):
        u = x.reshape(side, side, side)
        slopes = u[1:] - u[:-1], u[:, 1:] - u[:, :-1], u[:, :, 1:] - u[:, :, :-1]
        return jnp.sum((u**2 - 1) ** 2) / 4 + sum(jnp.sum(slope**2) for slope in slopes) / 2

    return energy


FUNCTIONS = {
    chain: (100, 200, 10_000, 40_000, 100_000),
    differences: (200, 10_000),
    cubes: (10_000, 100_000),
    convolution: (50, 10_000),
    convolution2d: (400, 10_000),
    membrane: (10_000, 40_000),
    field: (9_261, 97_336),
}
MILLION = (chain, membrane, field)
SIZES = {
    chain: (10_000, 100_000, 1_000_000),
    membrane: (10_000, 99_856, 1_000_000),
    field: (9_261, 97_336, 1_000_000),
}

# --- ours, and peers: of a function and a pattern, each returns a function of x whose matrix is there ---


def ours(function, x, **more):
    return sh.assemble(sh.from_jax(function, x), pattern="detect", derivative="ad", **more)


OURS = {"ours": {}, "ours, one order": {"order": "smallest-last"}}


def asdex(function, x, pattern):
    import asdex

    call = jax.jit(asdex.hessian(function, x))
    return lambda at: call(at).block_until_ready()


def asdex_scipy(function, x, pattern):
    import asdex

    return asdex.hessian(function, x, output_format="scipy_csr")


def asdex_columns(function, x, pattern):
    import asdex

    coloring = asdex.hessian_coloring_from_sparsity(asdex.hessian_sparsity(function, x), symmetric=False)
    call = jax.jit(asdex.hessian_from_coloring(function, coloring))
    return lambda at: call(at).block_until_ready()


def sparsejac(function, x, pattern, name="jacfwd"):
    import sparsejac

    indices = jnp.stack([jnp.asarray(pattern.row), jnp.asarray(pattern.col)], axis=1)
    sparsity = jax.experimental.sparse.BCOO((jnp.ones(pattern.nnz, bool), indices), shape=pattern.shape)
    call = jax.jit(getattr(sparsejac, name)(jax.grad(function), sparsity))
    return lambda at: call(at).block_until_ready()


def sparsejac_reverse(function, x, pattern):
    return sparsejac(function, x, pattern, "jacrev")


PEERS = {
    "asdex": asdex,
    "asdex to SciPy": asdex_scipy,
    "asdex, columns": asdex_columns,
    "sparsejac jacfwd": sparsejac,
    "sparsejac jacrev": sparsejac_reverse,
}


def scipy(matrix):
    """Return any of their matrices as SciPy's."""
    if sp.issparse(matrix):
        return matrix.tocsr()
    if hasattr(matrix, "getValuesCSR"):
        indptr, indices, values = matrix.getValuesCSR()
        return sp.csr_array((values, indices, indptr), matrix.getSize())
    rows, columns = np.asarray(matrix.indices).T
    return sp.csr_array((np.asarray(matrix.data), (rows, columns)), matrix.shape)


def timed(call, *arguments):
    began = time.perf_counter()
    result = call(*arguments)
    return time.perf_counter() - began, result


def begun(who, function, x, pattern):
    """Return (our Hessian or None, a function of x) after the first Hessian."""
    if who in OURS:
        hessian = ours(function, x, **OURS[who])
        return hessian, hessian.update
    call = PEERS[who](function, x, pattern)
    call(x)
    return None, call


def compared(make, n, rounds, repeats):
    """Yield (who, seconds of the first, its ratio, of another one, its ratio, remark), ours first."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=n)
    first, again, remarks, begins = {}, {}, {}, {}
    for _ in range(rounds):
        for hessian, _ in begins.values():
            if hessian is not None:
                hessian.close()
        for who in (*OURS, *PEERS):
            if who in remarks:
                continue
            pattern = begins["ours"][0].pattern.to_scipy().tocoo() if who in PEERS else None
            try:
                seconds, begins[who] = timed(begun, who, make(n), x, pattern)
                first.setdefault(who, []).append(seconds)
            except Exception as error:  # peers have limits of their own
                remarks[who] = f"{type(error).__name__}: {' '.join(str(error).split())[:60]}"
    hessians = {who: hessian for who, (hessian, _) in begins.items() if hessian is not None}
    calls = {who: partial(hessian.update, verify=False) for who, hessian in hessians.items()}
    calls |= {"ours, checked": hessians["ours"].update}
    calls |= {who: call for who, (hessian, call) in begins.items() if hessian is None}
    first["ours, checked"] = first["ours"]
    for number in range(repeats):
        at, theirs = rng.normal(size=n), {}
        for who in rng.permutation(list(calls)):  # who comes first after a pause waits for threads to wake
            seconds, matrix = timed(calls[who], at)
            again.setdefault(who, []).append(seconds)
            if number == 0 and matrix is not None:
                theirs[who] = scipy(matrix)
        for who, matrix in theirs.items():
            mine = scipy(hessians["ours"].mat)
            if sp.linalg.norm(matrix - mine) > 1e-12 * sp.linalg.norm(mine):
                remarks[who] = "NOT THE SAME"
    for who, hessian in hessians.items():
        remarks[who] = f"{hessian.coloring.count} colours"
        hessian.close()
    for who in ("ours", "ours, checked", *list(OURS)[1:], *PEERS):
        seconds = []
        if who in again:
            for some in (first, again):
                ratios = [theirs / mine for theirs, mine in zip(some[who], some["ours"], strict=True)]
                seconds += [statistics.median(some[who]), statistics.median(ratios)]
        yield who, seconds, remarks.get(who, "")


def peers(given):
    print("float64, ratios: seconds over ours")
    print(f"{'':14s} {'n':>7} {'':18s} {'first, s':>10} {'ratio':>8} {'again, ms':>10} {'ratio':>8}")
    jax.config.update("jax_enable_x64", True)
    for _ in compared(chain, 12, 1, 2):  # what every process pays once
        pass
    for make, sizes in FUNCTIONS.items():
        if not given.functions.search(make.__name__):
            continue
        for n in sizes:
            for who, seconds, remark in compared(make, n, given.rounds, given.repeats):
                line = f"{make.__name__:14s} {n:7,} {who:18s} "
                if seconds:
                    first, ratio, again, over = seconds
                    line += f"{first:10.3f} {ratio:8.2f} {1e3 * again:10.3f} {over:8.2f} "
                print(f"{line} {remark}".rstrip(), flush=True)


# --- in processes of their own ---


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def trace_one(name, who, n):
    make = globals()[name]
    if who == "asdex":
        import asdex

        trace = lambda size: asdex.hessian_sparsity(make(size), np.zeros(size))  # noqa: E731
    else:
        trace = lambda size: host.trace_sparsity(make(size), size)  # noqa: E731
    trace(64)
    before = peak()
    seconds, found = timed(trace, n)
    return {"seconds": seconds, "bytes": peak() - before, "nnz": found.nnz}


def million_one(name, batch, n):
    make = globals()[name]
    x = np.random.default_rng(0).normal(size=n)
    ours(make(64), x[:64]).close()
    before = peak()
    objective = sh.from_jax(make(n), x, memory=batch * 64 * n)
    tracing, pattern = timed(sh.detect_pattern, objective)
    traced = peak() - before
    seconds, hessian = timed(lambda: sh.assemble(objective, pattern=pattern, derivative="ad", columns=batch))
    stages = {"tracing": tracing, **hessian.timings, "first": tracing + seconds}
    stages["again"] = min(timed(hessian.update, x + 0.1)[0] for _ in range(3))
    return {
        "stages": stages,
        "traced": traced,
        "bytes": peak() - before,
        "nnz": pattern.nnz,
        "colors": hessian.coloring.count,
        "batch": objective.batch,
        "error": hessian.verification.hvp_error,
    }


def alone(*arguments):
    command = [sys.executable, __file__, "--one", *map(str, arguments)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def tracing(given):
    print(f"\n{'tracing':12s} {'n':>9} {'entries':>10} {'':12s} {'seconds':>8} {'MB':>7}")
    tracers = ["ours", "asdex"]
    try:
        import asdex  # noqa: F401
    except ImportError as error:  # it lags behind JAX
        print(f"asdex is left out: {error}")
        tracers.remove("asdex")
    for make, sizes in SIZES.items():
        for n in sizes:
            for who in tracers:
                if who == "asdex" and n > 100_000:
                    print(
                        f"{make.__name__:12s} {n:9,} {'':10s} {who:12s} left out: it would take ten times as much"
                    )
                    continue
                found = alone("trace_one", make.__name__, who, n)
                print(
                    f"{make.__name__:12s} {n:9,} {found['nnz']:10,} {who:12s} {found['seconds']:8.2f} "
                    f"{found['bytes'] / 1e6:7.0f}",
                    flush=True,
                )


def million(given):
    print("\na million variables, by us: seconds; MB of growth, and in units of 12 nnz + 8 batch n bytes")
    for make in MILLION:
        for n, batch in ((SIZES[make][1], 8), (1_000_000, 8), (1_000_000, 1)):
            found = alone("million_one", make.__name__, batch, n)
            unit = 12 * found["nnz"] + 8 * min(found["batch"], found["colors"]) * n
            print(
                f"{make.__name__:10s} n {n:9,}  nnz {found['nnz']:9,}  {found['colors']} colours  batch "
                f"{found['batch']}  "
                + "  ".join(f"{stage} {seconds:.2f}" for stage, seconds in found["stages"].items())
                + f"  tracing {found['traced'] / 1e6:.0f} MB, all {found['bytes'] / 1e6:.0f} MB, "
                f"{found['bytes'] / unit:.1f} units of {unit / 1e6:.0f} MB  check {found['error']:.0e}",
                flush=True,
            )


PARTS = {"peers": peers, "tracing": tracing, "million": million}


def main():
    if sys.argv[1:2] == ["--one"]:
        _, _, task, name, what, n = sys.argv
        print(json.dumps(globals()[task](name, int(what) if what.isdigit() else what, int(n))))
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], default=[])
    parser.add_argument("--functions", type=re.compile, default=re.compile(""), help="regular expression")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=30)
    given = parser.parse_args()
    for part in given.parts or PARTS:
        PARTS[part](given)


if __name__ == "__main__":
    main()
