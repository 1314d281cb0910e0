"""Jobs that do what no job should, between as many honest ones: what becomes of each, and of the service.

Patched libraries, limits, closed descriptors, crashes, endless loops, stopped and killed processes, children that
hide, lies in the files of the service. Counted are honest jobs whose answer differs in the last digit from those
before all hostile ones, hostile ones that have ended without a reason, and processes that are left behind.

    python benchmarks/hostile_jobs.py [JOBS [RANKS [KIND ...]]]
"""

import sys
import tempfile
import time
from itertools import cycle, islice
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from support import hostile


def main() -> int:
    """Return the exit status."""
    jobs = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    ranks = int(sys.argv[2]) if len(sys.argv) > 2 else 1
    known = [*hostile.KINDS, *hostile.SLOW, *(hostile.TOGETHER if ranks > 1 else ())]
    kinds = list(islice(cycle(sys.argv[3:] or known), jobs))
    with tempfile.TemporaryDirectory() as place:
        began = time.perf_counter()
        report = hostile.run_between(Path(place), kinds, ranks, patience=3600.0)
        spent = time.perf_counter() - began
    print(hostile.table(report))
    honest = len(kinds) + 2
    print(
        f"{len(kinds)} hostile jobs of {len({*kinds})} kinds between {honest} honest ones, {ranks} rank(s): "
        f"{spent:.0f} s, {len(report.left)} processes left behind, status of the service {report.status}"
    )
    for line in report.wrong:
        print(f"  {line}")
    print(f"{len(report.wrong)} wrong")
    return int(bool(report.wrong))


if __name__ == "__main__":
    sys.exit(main())
