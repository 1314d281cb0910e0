"""A model of messages, bytes and memory by ranks and variables, and tables of what was counted."""

import sys

import numpy as np
from scipy.optimize import nnls

QUANTITIES = ("messages", "collectives", "bytes", "memory")

# Of P ranks and n variables. The last rank of a slab has two neighbours, and sends them the faces of its planes;
# `all n` is on every rank, or on one, however many there are; `root` is the last front of a factorization in three
# dimensions, and `factor` a rank's share of all others.
TERMS = {
    "1": lambda P, n: 1.0,
    "log P": lambda P, n: np.ceil(np.log2(P)),
    "P": lambda P, n: P - 1.0,
    "neighbours": lambda P, n: min(P - 1.0, 2.0),
    "faces": lambda P, n: min(n ** (2 / 3), n / P) * min(P - 1.0, 2.0),
    "n/P": lambda P, n: n / P,
    "all n": lambda P, n: n,
    "factor": lambda P, n: n ** (4 / 3) / P,
    "root": lambda P, n: n ** (4 / 3),
}
SOLVER = ("factorization", "10 solves, factors", "Krylov-Schur", "count", "inertia")
# Stages in which whole vectors go to every rank, or entries to one.
WHOLE = ("noise", "gradients, replicated", "check", "update, replicated", "recovery, matrix", "checkpoint")


def terms_of(stage, quantity):
    """Return the names of the terms that the code has reason for."""
    if quantity == "messages":
        return "1", "log P", "P", "neighbours"
    if quantity == "collectives":
        return "1", "log P", "P"
    direct = ("factor", "root") if stage in SOLVER else ()
    whole = ("all n",) if stage in WHOLE or stage.startswith("pattern by") else ()
    return "1", "P", "faces", "n/P", *whole, *direct


def fit(names, points):
    """Return coefficients ≥ 0 of these terms, by relative least squares over (P, n, counted)."""
    rows = np.array([[TERMS[name](P, n) for name in names] for P, n, _ in points])
    values = np.array([max(value, 1.0) for *_, value in points])
    sizes = np.maximum(np.abs(rows / values[:, None]).max(axis=0), 1e-300)
    return nnls(rows / values[:, None] / sizes, np.ones(len(values)))[0] / sizes


def said(names, factors, P, n):
    """Return (what the model says, the name of its largest term)."""
    parts = [factor * TERMS[name](P, n) for name, factor in zip(names, factors, strict=True)]
    return sum(parts), names[int(np.argmax(parts))]


def short(number):
    """Return a count in at most four characters and its unit."""
    for unit in ("", "k", "M", "G", "T"):
        if number < 999.5:
            return f"{number:.3g}{unit}" if number >= 1 or not number else f"{number:.1g}"
        number /= 1000
    return f"{number:.3g}P"


def variables(run, stage):
    """Return the variables of a stage of a run."""
    return max(6, run["size"] // 4) ** 3 if stage.startswith("pattern by") else run["n"]


def table(heads, rows):
    """Print a table of Markdown."""
    print("\n| " + " | ".join(heads) + " |\n|" + "---|" * len(heads))
    for row in rows:
        print("| " + " | ".join(row) + " |")
    sys.stdout.flush()


def report_counts(problem, runs, weak, ranks):
    """Print what was counted, of the largest size on all numbers of ranks, and memory of the weak series too."""
    last = weak[ranks[-1]]
    strong = {run["ranks"]: run for run in runs if run["size"] == last}
    slim = {run["ranks"]: run for run in runs if weak[run["ranks"]] == run["size"]}
    several = [P for P in ranks if P > 1]
    print(
        f"\n{problem}: n = {strong[ranks[-1]]['n']:,}, {', '.join(map(str, several))} ranks; of the rank with most"
    )
    rows = [
        [stage, *(" ".join(short(strong[P]["stages"][stage][name]) for P in several) for name in QUANTITIES[:3])]
        for stage in strong[ranks[-1]]["stages"]
    ]
    table(["stage", *QUANTITIES[:3]], rows)
    print(f"\n{problem}: peak memory in bytes, on {', '.join(map(str, ranks))} ranks")
    rows = [
        [
            stage,
            *(" ".join(short(series[P]["stages"][stage]["memory"]) for P in ranks) for series in (strong, slim)),
        ]
        for stage in strong[ranks[-1]]["stages"]
    ]
    table(["stage", f"n = {strong[ranks[-1]]['n']:,}", f"{slim[ranks[-1]]['n'] // ranks[-1]:,} a rank"], rows)


def report_model(runs, ranks, far):
    """Print the model: what it says of the largest number of ranks over what was counted, and of far more."""
    P, n = far
    print(
        f"\nmodel fitted to 2 to {ranks[-2]} ranks, said / counted on {ranks[-1]}; then P = {P:.0e}, n = {n:.0e}"
    )
    rows = []
    for stage in runs[0]["stages"]:
        row = [stage]
        for quantity in QUANTITIES:
            points = [(run["ranks"], variables(run, stage), run["stages"][stage][quantity]) for run in runs]
            points = [point for point in points if point[0] > 1]
            names = terms_of(stage, quantity)
            known = [point for point in points if point[0] < ranks[-1]]
            factors = fit(names, known)
            off = [
                said(names, factors, *point[:2])[0] / max(point[2], 1) for point in points if point not in known
            ]
            value, largest = said(names, fit(names, points), P, n)
            row.append(f"{min(off):.2f}-{max(off):.2f}: {short(value)} ({largest})" if value else "0")
        rows.append(row)
    table(["stage", *QUANTITIES], rows)
