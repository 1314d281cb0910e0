"""Colours, CPU seconds and memory of our colourings beside those of ColPack, CasADi, asdex and SciPy.

For every pattern, kind and order: colours, the lower bound, seconds of ordering and colouring (process time,
least of three unless they are long), growth of the peak memory, whether the colouring was found valid by the
definition of its kind, and for peers how many times our seconds of the same kind and order they took. Each
colouring has a process of its own, one thread, ours right before the peers'. Patterns of 3×3 blocks are
coloured a second time with their blocks declared (`best` finds them by itself), acyclic colourings are made
by the rule that works on any number of ranks and by the one that follows trees, as peers do.

At the end: on how many patterns our best order has no more colours than the best of all peers and orders (for
star also their distance-2 colourings count, for acyclic also both), the median ratio of each peer's seconds to
ours, and where CasADi or asdex were faster.

    python benchmarks/colorings_vs_peers.py [--patterns 'g2d9|evslA'] [--kinds star,acyclic,distance2]
        [--orders natural,largest-first,smallest-last,incidence-degree,best]
        [--peers [colpack,casadi,...]] [--alone] [--budget 0.2] [--limit 120] [--json FILE]

Peers run with $PEERS_PYTHON, default this Python; with `best` in all their orders, otherwise in those asked
for. A missing peer is named and left out. `--alone` leaves ours out.
"""

import argparse
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import scipy.sparse as sp
from contenders.coloring_patterns import BLOCK, PATTERNS
from contenders.colorings import PEERS

PROGRAM = Path(__file__).parent / "contenders" / "colorings.py"
OURS = "sparsehess"
ORDERS = ("natural", "largest-first", "smallest-last", "incidence-degree", "best")
ALSO = {"star": ("star", "distance2"), "acyclic": ("acyclic", "star", "distance2")}  # colourings of each kind
UNDONE = {"limit": "> {:g} s", "absent": "left out: {}", "refused": "{}", "failed": "{}"}
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "JAX_PLATFORMS": "cpu"}


def listed(text):
    return tuple(text.split(","))


def known(text):
    if unknown := set(listed(text)) - set(PEERS):
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)} is none of {', '.join(PEERS)}")
    return listed(text)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--patterns", type=re.compile, default=re.compile(""), help="regular expression")
    parser.add_argument("--kinds", type=listed, default=("star", "acyclic", "distance2"))
    parser.add_argument("--orders", type=listed, default=ORDERS)
    parser.add_argument("--peers", type=known, nargs="?", const=tuple(PEERS), default=())
    parser.add_argument("--alone", action="store_true", help="peers only")
    parser.add_argument("--budget", type=float, default=0.2, help="nominal seconds of our order best")
    parser.add_argument("--limit", type=float, default=120, help="wall seconds of a colouring")
    parser.add_argument("--json", type=argparse.FileType("a"), help="file that gets one line a colouring")
    return parser.parse_args()


def plan(name, kind, given):
    """Yield (who, order, options) of all colourings of a pattern, ours before the peers' of the same order."""
    offered = {peer: PEERS[peer].get(kind, ()) for peer in given.peers}
    orders = list(given.orders)
    if "best" in orders:
        orders += sorted({order for some in offered.values() for order in some} - set(orders))
    for order in orders:
        if order in given.orders and not given.alone:
            more = ("--budget", str(given.budget)) if order == "best" else ()
            yield OURS, order, more
            if kind == "acyclic":
                yield OURS, order, ("--rule", "trees", *more)
            if name.startswith(("enm12", "enmatoms")):
                yield OURS, order, ("--dofs", str(BLOCK), *more)
        for peer, some in offered.items():
            if order in some:
                yield peer, order, ()


def run(who, file, kind, order, options, limit):
    """Return the results of one colouring in a process of its own."""
    python = sys.executable if who == OURS else os.environ.get("PEERS_PYTHON", sys.executable)
    command = [python, PROGRAM, file, who, kind, order, "--limit", str(limit), *options]
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=os.environ | ONE_THREAD)
    if done.returncode == 0:
        return json.loads(done.stdout.splitlines()[-1])
    if done.returncode == -signal.SIGALRM:
        return {"peer": who, "kind": kind, "order": order, "limit": limit}
    reason = (done.stderr.splitlines() or [f"ended with {done.returncode}"])[-1]
    return {"peer": who, "kind": kind, "order": order, "failed": reason}


def colorings(name, file, given, absent):
    """Yield the results of one pattern, peers' with `ratio`, their seconds over ours."""
    for kind in given.kinds:
        ours = {}
        for who, order, options in plan(name, kind, given):
            if who in absent:
                continue
            result = {
                "pattern": name,
                "blocks": "--dofs" in options,
                "rule": "trees" if "trees" in options else None,
                **run(who, file, kind, order, options, given.limit),
            }
            if "absent" in result:
                absent.add(who)
            if who == OURS and not result["blocks"]:  # acyclic: the rule that peers have as well
                ours[order] = result.get("seconds")
            elif who != OURS and ours.get(order) and "seconds" in result:
                result["ratio"] = result["seconds"] / ours[order]
            yield result


def row(kind, order, who, colors, bound, seconds, size, valid, ratio):
    start = f"  {kind:10s} {order:22s} {who:23s} {colors:>7} {bound:>6}"
    return f"{start} {seconds:>10} {size:>8} {valid:9s} {ratio:>8}".rstrip()


def line(result):
    who = result["peer"] + (f", {BLOCK}×{BLOCK} blocks" if result["blocks"] else "")
    who += f", {result['rule']}" if result["rule"] else ""
    begin = result["kind"], result["order"], who
    if "colors" not in result:
        why = next(text.format(result[key]) for key, text in UNDONE.items() if key in result)
        return row(*begin, "", "", "", "", "", "").rstrip() + f"  {why}"
    return row(
        *begin,
        result["colors"],
        result.get("lower_bound", ""),
        f"{result['seconds']:.4f}",
        "" if result["bytes"] is None else f"{result['bytes'] / 1e6:.1f}",
        {True: "valid", False: "WRONG", None: "unchecked"}[result["valid"]],
        f"{result['ratio']:.2f}" if "ratio" in result else "",
    )


def fewest(results, kinds):
    """Return the least colours of valid colourings, None if there are none."""
    counts = [r["colors"] for r in results if r["kind"] in kinds and r.get("valid") is not False and "colors" in r]
    return min(counts, default=None)


def compared(results, kind):
    """Return {pattern: (our colours, the peers')} where both are known, ours of `best` if it was made."""
    pairs = {}
    for name in dict.fromkeys(r["pattern"] for r in results):
        here = [r for r in results if r["pattern"] == name]
        ours = [r for r in here if r["peer"] == OURS]
        best = fewest([r for r in ours if r["order"] == "best"], (kind,)) or fewest(ours, (kind,))
        theirs = fewest([r for r in here if r["peer"] != OURS], ALSO.get(kind, (kind,)))
        if best is not None and theirs is not None:
            pairs[name] = best, theirs
    return pairs


def summary(results, kinds):
    for kind in kinds:
        pairs = compared(results, kind)
        fewer = sum(ours < theirs for ours, theirs in pairs.values())
        more = [f"{name} {ours} (peers {theirs})" for name, (ours, theirs) in pairs.items() if ours > theirs]
        if pairs:
            print(
                f"{kind}: no more colours than the best peer on {len(pairs) - len(more)} of {len(pairs)} patterns"
            )
            print(f"{kind}: fewer on {fewer}, more on {len(more)}", *more, sep="\n  ")
        for peer in PEERS:
            ratios = [r["ratio"] for r in results if (r["kind"], r["peer"]) == (kind, peer) and "ratio" in r]
            if ratios:
                median = statistics.median(ratios)
                print(f"{kind}: {peer} takes {median:.2f} times our seconds (median of {len(ratios)})")
    rivals = [r for r in results if r["peer"].startswith(("casadi", "asdex")) and "ratio" in r]
    faster = [
        f"{r['pattern']} {r['kind']} {r['order']}: {r['peer']} in {r['ratio']:.2f} of our seconds"
        for r in rivals
        if r["ratio"] < 1
    ]
    print(f"CasADi or asdex faster than ours: {len(faster)} of {len(rivals)}", *faster, sep="\n  ")
    wrong = [f"{r['pattern']} {r['kind']} {r['order']}: {r['peer']}" for r in results if r.get("valid") is False]
    print(f"wrong colourings: {len(wrong)}", *wrong, sep="\n  ")


def main():
    given = arguments()
    results, absent = [], set()
    with tempfile.TemporaryDirectory() as folder:
        for name in filter(given.patterns.search, PATTERNS):
            matrix = PATTERNS[name]()
            file = Path(folder) / f"{name}.npz"
            sp.save_npz(file, matrix, compressed=False)
            print(f"\n{name}: {matrix.shape[0]:,} variables, {matrix.nnz:,} entries")
            print(row("kind", "order", "who", "colours", "bound", "CPU s", "MB", "", "× ours"), flush=True)
            for result in colorings(name, file, given, absent):
                results.append(result)
                print(line(result), flush=True)
                if given.json:
                    print(json.dumps(result), file=given.json, flush=True)
            file.unlink()
    print()
    summary(results, given.kinds)


if __name__ == "__main__":
    main()
