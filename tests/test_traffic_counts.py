"""What the benchmark of traffic counts is what was sent, by C and by Fortran."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "benchmarks" / "contenders" / "traffic.c"

SENDS = """
import ctypes, json, os
from mpi4py import MPI
import numpy as np
comm, library = MPI.COMM_WORLD, ctypes.CDLL(os.environ["LD_PRELOAD"])
rank, other = comm.rank, 1 - comm.rank
library.MPI_Pcontrol(1)
comm.Sendrecv(np.ones(10), other, recvbuf=np.empty(10), source=other)
both = [comm.Send_init(np.ones(5), other), comm.Recv_init(np.empty(5), other)]
for _ in range(3):
    MPI.Prequest.Startall(both)
    MPI.Request.Waitall(both)
comm.Alltoallv([np.ones(3), ([1, 2], [0, 1])], [np.empty(2 * (1 + rank)), ([1 + rank] * 2, [0, 1 + rank])])
library.MPI_Pcontrol(2)
comm.Allreduce(MPI.IN_PLACE, np.ones(4))
comm.Allgather(np.ones(2), np.empty(4))
MPI.COMM_SELF.Allgather(np.ones(2), np.empty(2))
program, handle = ctypes.CDLL(None), comm.py2f()
at = lambda number: ctypes.byref(ctypes.c_int(number))
seven, kind, error = (ctypes.c_double * 7)(), at(MPI.DOUBLE.py2f()), ctypes.c_int()
program.mpi_bcast_(seven, at(7), kind, at(0), at(handle), ctypes.byref(error))
if rank == 0:
    program.mpi_send_(seven, at(7), kind, at(1), at(9), at(handle), ctypes.byref(error))
else:
    comm.Recv(np.empty(7), 0, 9)
library.MPI_Pcontrol(0)
sent = np.array((ctypes.c_int64 * (32 * 1024 * 2)).in_dll(library, "traffic_sent")).reshape(32, 1024, 2)
calls = np.array((ctypes.c_int64 * (32 * 7 * 3)).in_dll(library, "traffic_collective")).reshape(32, 7, 3)
told = comm.gather([sent[1:3, :2].tolist(), calls[2, [0, 1, 3]].tolist()])
if rank == 0:
    print(json.dumps(told))
"""


@pytest.mark.skipif(shutil.which("mpicc") is None, reason="needs mpicc")
def test_what_is_counted_is_what_was_sent(tmp_path):
    library = tmp_path / "libtraffic.so"
    subprocess.run(
        ["mpicc", "-shared", "-fPIC", "-Wall", "-Werror", SOURCE, "-o", library, "-lmpi_mpifh"], check=True
    )
    words = ["mpiexec", "--oversubscribe", "-n", "2", "env", f"LD_PRELOAD={library}", sys.executable, "-c", SENDS]
    env = {name: value for name, value in os.environ.items() if not name.startswith(("OMPI_COMM", "PMIX", "PMI_"))}
    done = subprocess.run(words, check=True, capture_output=True, text=True, env=env)
    first, second = json.loads(done.stdout.splitlines()[-1])
    # Messages and bytes by rank: ten numbers, three times five, and what the all-to-all has for the other.
    assert first[0][0] == [[0, 0], [5, 80 + 120 + 16]] and second[0][0] == [[5, 80 + 120 + 8], [0, 0]]
    assert first[0][1] == [[0, 0], [1, 56]] and second[0][1] == [[0, 0], [0, 0]]
    assert first[1] == [[1, 32, 32], [1, 56, 0], [1, 16, 32]]
    assert second[1] == [[1, 32, 32], [1, 0, 56], [1, 16, 32]]
