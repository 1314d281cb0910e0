"""Problems for jobs of a service that do what no problem should, and one that is honest."""

import atexit
import builtins
import ctypes
import faulthandler
import gc
import json
import locale
import os
import resource
import shutil
import signal
import sys
import threading
import time

from mpi4py import MPI
from petsc4py import PETSc

import numpy as np

import sparsehess as sh

N = 12
OWN = ("status.json", "stuck", "watchdog", "log", "result.json", "ending.json", "outcome.json", "attempts")
kept = []


def raises(*_, **__):
    raise ValueError("patched")


def force(x):
    g = 2 * x + 0.1 * np.sin(x)
    g[1:] -= x[:-1]
    g[:-1] -= x[1:]
    return g


def honest(comm):
    known = sh.Pattern.from_edges([[i, i + 1] for i in range(N - 1)], N, comm=comm)
    return sh.Objective(x=np.ones(N), gradient=force, pattern=known, comm=comm)


def hostile(comm, how, alone=False):
    """The honest problem, whose first gradient does its worst; `alone` on the last rank only."""
    known = sh.Pattern.from_edges([[i, i + 1] for i in range(N - 1)], N, comm=comm)
    done = []

    def gradient(x):
        if not done and (not alone or comm.rank == comm.size - 1):
            done.append(how)
            globals()[how.replace("-", "_")](comm)
        return force(x)

    return sh.Objective(x=np.ones(N), gradient=gradient, pattern=known, comm=comm)


def ancestors():
    found, process = [], os.getpid()
    for _ in range(4):
        with open(f"/proc/{process}/stat") as stream:
            process = int(stream.read().rpartition(")")[2].split()[1])
        found.append(process)
    return found


# --- what is patched ---


def patch_numpy(comm):
    np.sin = np.cos = np.dot = np.argsort = raises


def patch_sine(comm):
    np.sin = lambda x: 0 * x


def patch_files(comm):
    os.open = os.replace = os.stat = os.path.exists = builtins.open = raises


def patch_clock(comm):
    time.monotonic = time.time = time.perf_counter = lambda: 0.0
    time.sleep = lambda seconds: None


def patch_mpi(comm):
    MPI.SUM = MPI.MAX = MPI.MIN = None
    MPI.Comm = MPI.COMM_WORLD = None


def patch_package(comm):
    from sparsehess import runtime
    from sparsehess.service.resident import job_ending, limits

    limits.JobGuard._look = lambda self: 0
    runtime.agreement = job_ending.write_ending = runtime.raise_together = raises


def patch_builtins(comm):
    for name in ("isinstance", "len", "sorted", "range", "zip"):
        setattr(builtins, name, raises)


def no_modules(comm):
    sys.modules.clear()


# --- the process ---


def limit_file_size(comm):
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


def limit_descriptors(comm):
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))


def limit_address_space(comm):
    resource.setrlimit(resource.RLIMIT_AS, (2**20, 2**20))


def limit_processor(comm):
    resource.setrlimit(resource.RLIMIT_CPU, (1, 1))
    while True:
        pass


def limit_processes(comm):
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
    resource.setrlimit(resource.RLIMIT_STACK, (2**16, 2**16))


def close_descriptors(comm):
    os.closerange(0, 1024)


def close_output(comm):
    sys.stdout.close()
    sys.stderr.close()


def close_input(comm):
    os.close(0)


def change_folder(comm):
    os.chdir("/")


def forbid_files(comm):
    os.umask(0o777)


def ignore_signals(comm):
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())


def change_environment(comm):
    os.environ.clear()
    os.environ.update(PATH="/nowhere", OMP_NUM_THREADS="64", PYTHONPATH="/nowhere", HOME="/nowhere")


def change_locale(comm):
    for name in ("de_DE.UTF-8", "fr_FR.UTF-8", "C.UTF-8"):
        try:
            locale.setlocale(locale.LC_ALL, name)
            return
        except locale.Error:
            continue


def trap_arithmetic(comm):
    ctypes.CDLL("libm.so.6").feenableexcept(0x1D)
    np.ones(4) / np.zeros(4)


def numpy_errors(comm):
    np.seterr(all="raise")
    np.set_printoptions(precision=1, threshold=0)
    np.random.seed(0)  # noqa: NPY002
    gc.disable()


def low_priority(comm):
    os.nice(19)
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


# --- what does not end ---


def loop_in_python(comm):
    while True:
        pass


def loop_in_c(comm):
    ctypes.PyDLL(None).sleep(100_000)


def loop_unwatched(comm):
    faulthandler.cancel_dump_traceback_later()
    while True:
        pass


def stop_itself(comm):
    os.kill(os.getpid(), signal.SIGSTOP)


def stop_launcher(comm):
    os.kill(ancestors()[0], signal.SIGSTOP)
    time.sleep(100_000)


def stop_keeper(comm):
    os.kill(ancestors()[1], signal.SIGSTOP)
    os._exit(3)


def wait_for_nobody(comm):
    MPI.COMM_SELF.Recv([np.zeros(1), MPI.DOUBLE], source=0, tag=5)


def barrier_on_one(comm):
    MPI.COMM_WORLD.Barrier()


def hang_at_exit(comm):
    atexit.register(time.sleep, 100_000)


def raise_on_one(comm):
    raise ValueError("here alone")


# --- what it leaves behind ---


def leave_threads(comm):
    for _ in range(20):
        threading.Thread(target=time.sleep, args=(100_000,)).start()


def leave_child(comm):
    if os.fork() == 0:
        time.sleep(100_000)


def leave_hidden_child(comm):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)
            os.closerange(0, 1024)
            while True:
                time.sleep(0.01)
        os._exit(0)


def leave_many(comm):
    deadline = time.time() + 100_000
    for _ in range(5):  # 31 processes, in sessions of their own
        if os.fork() == 0:
            os.setsid()
            kept.append(1)
    if kept:
        while time.time() < deadline:
            time.sleep(1)


def leave_fleeing(comm):
    """A process that is another one all the time."""
    if os.fork() == 0:
        os.setsid()
        end = time.time() + 60
        while time.time() < end:
            if os.fork():
                os._exit(0)
            time.sleep(0.002)
        os._exit(0)


def leave_objects(comm):
    vector = PETSc.Vec().createMPI(20, comm=comm)
    kept.extend([vector, vector.getArray(readonly=True), PETSc.Mat().createAIJ([5, 5], comm=comm), comm.Dup()])
    vector.getArray()


def leave_options(comm):
    options = PETSc.Options()
    for name, value in (("eps_max_it", 1), ("st_type", "nonesuch"), ("mat_type", "nonesuch"), ("ksp_type", "x")):
        options.setValue(name, value)


def fill_log(comm):
    block = b"x" * 2**20
    for _ in range(2**10):
        os.write(1, block)
        time.sleep(0.002)


# --- how it ends ---


def exit_quietly(comm):
    os._exit(0)


def exit_loudly(comm):
    os._exit(9)


def exit_in_python(comm):
    sys.exit(3)


def exit_later(comm):
    class Last:
        def __del__(self):
            sys.exit(5)

    kept.append(Last())
    atexit.register(os._exit, 5)


def interrupt(comm):
    raise KeyboardInterrupt


def raise_odd(comm):
    class Odd(Exception):
        def __str__(self):
            raise RuntimeError("no text")

    raise Odd


def raise_long(comm):
    raise ValueError("long " * 10**6)


def raise_leaving(comm):
    raise sh.errors.Leaving("the service leaves")


def abort(comm):
    os.abort()


def segmentation_fault(comm):
    ctypes.string_at(0)


def recursion(comm):
    sys.setrecursionlimit(2**30)

    def again():
        again()

    again()


def take_memory(comm):
    while True:
        kept.append(np.ones(10**6))


def finalize(comm):
    MPI.Finalize()


def abort_all(comm):
    MPI.COMM_WORLD.Abort(7)


def kill_itself(comm):
    os.kill(os.getpid(), signal.SIGKILL)


def end_itself(comm):
    os.kill(os.getpid(), signal.SIGTERM)


def kill_launcher(comm):
    os.kill(ancestors()[0], signal.SIGKILL)
    time.sleep(100_000)


def kill_keeper(comm):
    os.kill(ancestors()[1], signal.SIGKILL)
    time.sleep(100_000)


def kill_service(comm):
    """The keeper first, then the rank of the service that has started it."""
    for process in ancestors()[1:3]:
        os.kill(process, signal.SIGKILL)
    time.sleep(100_000)


def stop_service(comm):
    os.kill(ancestors()[2], signal.SIGSTOP)


def kill_all(comm):
    """All that the user of the service can kill: for users with nothing else to lose."""
    if os.getuid() != 0:
        os.kill(-1, signal.SIGKILL)
        time.sleep(100_000)


# --- its folder ---


def remove_folder(comm):
    shutil.rmtree(os.getcwd(), ignore_errors=True)


def move_folder(comm):
    os.rename(os.getcwd(), f"{os.getcwd()}-moved")


def forbid_folder(comm):
    os.chmod(".", 0)


def pipes(comm):
    for name in OWN:
        if os.path.lexists(name):
            os.unlink(name)
        os.mkfifo(name)


def links(comm):
    for name in OWN:
        if os.path.lexists(name):
            os.unlink(name)
        os.symlink("/dev/zero", name)


def folders(comm):
    for name in OWN:
        if os.path.lexists(name):
            os.unlink(name)
        os.makedirs(f"{name}/inside")


def false_outcome(comm):
    facts = {"schema": 1, "id": "x", "state": "done", "exit": 0, "error": None, "ended": 0.0, "files": {}}
    with open("outcome.json", "w") as stream:
        json.dump(facts, stream)
    with open("result.json", "w") as stream:
        stream.write('{"eigenvalues": [42.0]}')
    os._exit(3)


def false_ending(comm):
    with open("ending.json", "w") as stream:
        stream.write('{"status": 0, "kind": "Leaving", "error": "the service leaves"}')
    os._exit(3)


def odd_ending(comm):
    with open("ending.json", "w") as stream:
        stream.write("[" * 100_000)
    os._exit(3)
