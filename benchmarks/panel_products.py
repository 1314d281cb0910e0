"""Products of a sparse matrix with many vectors at once: ours, PETSc's with a dense matrix, SciPy's.

Stiffness matrices of clamped cubes of trilinear bricks, and as many vectors as a block solver has. Prints medians
of alternating runs in milliseconds; ours with vectors one after the other, as PETSc's are, and side by side.

    python benchmarks/panel_products.py [--cells 16 32] [--vectors 5 25 40] [--rounds 9]
"""

import argparse
import statistics
import sys
import time
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path

import numpy as np

sys.path[:0] = [str(Path(__file__).parents[1] / "tests")]
from sparsehess.eigen.problem.panel_products import DenseProduct, RowProduct, SingleProduct
from sparsehess.runtime import PETSc
from support.elastic_block import brick


def medians(contenders, rounds):
    """Return the median milliseconds of each, run in turns."""
    seconds = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, run in contenders.items():
            began = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - began)
    return {name: 1e3 * statistics.median(found) for name, found in seconds.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=int, nargs="+", default=[16, 32], help="along an edge of the cube")
    parser.add_argument("--vectors", type=int, nargs="+", default=[5, 25, 40])
    parser.add_argument("--rounds", type=int, default=9)
    given = parser.parse_args()
    for cells in given.cells:
        K = brick((cells,) * 3)[0]
        matrix = PETSc.Mat().createAIJ(K.shape, csr=(K.indptr, K.indices, K.data))
        for vectors in given.vectors:
            rows = np.random.default_rng(0).normal(size=(vectors, K.shape[0]))
            columns = np.ascontiguousarray(rows.T)
            with ExitStack() as later:
                kinds = (RowProduct, SingleProduct, DenseProduct)
                ours, single, petsc = (later.enter_context(closing(kind(matrix))) for kind in kinds)
                assert np.allclose(ours(rows), petsc(rows))
                contenders = {
                    "ours": partial(ours, rows),
                    "ours, side by side": partial(ours, columns.T),
                    "ours, single": partial(single, columns.astype(np.float32).T),
                    "petsc": partial(petsc, rows),
                    "scipy": partial(K.dot, columns),
                }
                found = medians(contenders, given.rounds)
            print(f"n = {K.shape[0]:,}, {K.nnz:,} entries, {vectors} vectors")
            for name, milliseconds in found.items():
                print(f"  {name:20}{milliseconds:9.2f}")
        matrix.destroy()


if __name__ == "__main__":
    main()
