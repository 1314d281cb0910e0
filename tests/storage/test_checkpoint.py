"""Checkpoints: whole files or none, and runs that are stopped or killed and then give the same answer."""

import errno
import functools
import os
import signal
import socket
import tempfile
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp

import sparsehess as sh
from sparsehess import cli
from sparsehess.coloring import verify_coloring
from sparsehess.commands.arguments import parser
from sparsehess.eigen.problem.problem import EigenProblem
from sparsehess.eigen.problem.spectrum import SolveSpec
from sparsehess.eigen.solvers.search_checkpoint import Search
from sparsehess.errors import InputError, Stopped
from sparsehess.hessian.evaluation_journal import Journal
from sparsehess.hessian.matrix_free import MatrixFree
from sparsehess.pattern import Layout
from sparsehess.runtime.random_numbers import uniform
from sparsehess.storage import checkpoint_format, folder_lock
from sparsehess.storage.checkpoint import Checkpoint
from support import faults
from support.cases import laplacian

pytestmark = pytest.mark.parallel([1, 2])

PROBLEM = {"n": 40, "x": "0123", "norm": 2.0}


class Interrupted(Checkpoint):
    """Stops at its m-th look, as if a signal had come to the last rank then."""

    def __init__(self, *arguments, after, **more):
        super().__init__(*arguments, **more)
        self.left = after

    def due(self, also=False):
        self.left -= 1
        if self.left == 0 and self.comm.rank == self.comm.size - 1:
            self.interrupt(signal.SIGUSR1)
        return super().due(also)


def contents(comm, scale=1.0):
    layout = Layout.from_size(40, comm)
    return layout, {
        "vectors": scale * np.stack([uniform(layout, 1), uniform(layout, 2)], axis=1),
        "numbers": np.arange(layout.start, layout.stop, dtype=np.int32),
        "bytes": np.arange(layout.start, layout.stop).astype(np.uint8),
        "nothing": np.empty((layout.n_local, 0)),
    }


def test_a_stage_comes_back_as_it_was(comm, folder):
    layout, arrays = contents(comm)
    Checkpoint(folder, comm).save("stage", PROBLEM, {"k": 3, "end": np.inf}, arrays)
    saved = Checkpoint(folder, comm, resume=True).load("stage", {**PROBLEM, "norm": 2.0 + 1e-12})
    assert saved.meta == {"k": 3, "end": np.inf}
    for name, array in arrays.items():
        again = saved.array(name, layout.n_local)
        assert again.dtype == array.dtype and np.array_equal(again, array)
    backwards = Layout(layout.comm, 40 - layout.starts[::-1])  # another share of the rows
    rows = saved.array("vectors", backwards.n_local)
    assert np.array_equal(rows[:, 1], uniform(backwards, 2))
    assert Checkpoint(folder, comm, resume=True).load("other", PROBLEM) is None
    with pytest.raises(InputError, match="40 rows"):
        saved.array("vectors", layout.n_local + 1)


def test_any_damaged_byte_shows_and_the_one_before_is_used(comm, folder, caplog):
    layout, arrays = contents(comm)
    checkpoint = Checkpoint(folder, comm, resume=True)
    checkpoint.save("stage", PROBLEM, {"version": "first"}, arrays)
    path, before = folder / "stage.ckpt", folder / "stage.ckpt.1"
    whole = comm.bcast(path.read_bytes() if comm.rank == 0 else None)
    places = np.random.default_rng(0).choice(len(whole), 40, replace=False)

    def put(data):
        comm.Barrier()
        if comm.rank == 0:
            path.write_bytes(data)
        comm.Barrier()

    for place in (*places.tolist(), 0, 20, len(whole) - 1):
        put(whole[:place] + bytes([whole[place] ^ 0x10]) + whole[place + 1 :])
        with pytest.raises(InputError, match=r"damaged|version"):
            checkpoint.load("stage", PROBLEM)
    for cut in (0, 10, 27, 100, len(whole) - 1):
        put(whole[:cut])
        with pytest.raises(InputError, match="damaged"):
            checkpoint.load("stage", PROBLEM)
    put(whole)
    _, later = contents(comm, scale=2.0)
    checkpoint.save("stage", PROBLEM, {"version": "second"}, later)
    assert checkpoint.load("stage", PROBLEM).meta == {"version": "second"}
    data = comm.bcast(path.read_bytes() if comm.rank == 0 else None)
    put(data[:200] + b"?" + data[201:])
    found = checkpoint.load("stage", PROBLEM)
    assert found.path == before and np.array_equal(found.array("vectors", layout.n_local), arrays["vectors"])
    assert comm.rank or "the one before it is used" in caplog.text
    comm.Barrier()
    if comm.rank == 0:
        path.unlink()  # killed between the two renames
    comm.Barrier()
    assert checkpoint.load("stage", PROBLEM).meta == {"version": "first"}


def test_a_damaged_file_does_not_take_the_place_of_the_good_one_before_it(comm, folder):
    _, arrays = contents(comm)
    checkpoint = Checkpoint(folder, comm, resume=True)
    for version in ("first", "second"):
        checkpoint.save("stage", PROBLEM, {"version": version}, arrays)
    comm.Barrier()
    if comm.rank == 0:
        (folder / "stage.ckpt").write_bytes(b"torn")
    comm.Barrier()
    assert checkpoint.load("stage", PROBLEM).meta == {"version": "first"}
    checkpoint.save("stage", PROBLEM, {"version": "third"}, arrays)
    comm.Barrier()
    if comm.rank == 0:
        (folder / "stage.ckpt").write_bytes(b"torn")
    comm.Barrier()
    assert checkpoint.load("stage", PROBLEM).meta == {"version": "first"}


@pytest.mark.parametrize("how", ["full", "memory"])
def test_a_disk_that_takes_nothing_keeps_what_was_saved_and_no_half(comm, folder, how, monkeypatch, caplog):
    _, arrays = contents(comm)
    checkpoint = Checkpoint(folder, comm, resume=True)
    checkpoint.save("stage", PROBLEM, {"version": "first"}, arrays)

    def fails(*_):
        raise MemoryError if how == "memory" else OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint_format.os, "fsync", fails)
    checkpoint.save("stage", PROBLEM, {"version": "second"}, arrays)
    monkeypatch.undo()
    comm.Barrier()
    assert sorted(path.name for path in folder.iterdir()) == ["lock", "stage.ckpt"]
    assert comm.rank or "the run goes on" in caplog.text
    assert checkpoint.load("stage", PROBLEM).meta == {"version": "first"}

    def stays(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "unlink", stays)
    checkpoint.drop(["stage"])
    assert comm.rank or "cannot be removed" in caplog.text


def test_a_link_under_the_name_of_a_file_to_be_is_not_followed(comm, folder):
    _, arrays = contents(comm)
    (place := folder / "checkpoint").mkdir(exist_ok=True)
    if comm.rank == 0:
        (folder / "precious").write_text("of somebody")
        (place / "stage.ckpt.new").symlink_to(folder / "precious")
    comm.Barrier()
    Checkpoint(place, comm, resume=True).save("stage", PROBLEM, {}, arrays)
    comm.Barrier()
    assert (folder / "precious").read_text() == "of somebody"


def searched(checkpoint, matrix, comm, **more):
    with EigenProblem.of(matrix, comm=comm, **more) as problem:
        search = Search(checkpoint, problem, SolveSpec(k=2), "krylovschur")
        found = search.load()[0]
        rows = np.empty((problem.layout.n_local, 0))
        search.checkpoint.save("search", search.fingerprint, {"shift": 1.0}, {"vectors": rows})
        return found


def test_a_search_knows_its_matrix_by_its_sign_and_its_null_space(comm, folder):
    ring = sp.diags([2.0, -1.0, -1.0], [0, 1, -1], shape=(12, 12)).tolil()
    ring[0, 11] = ring[11, 0] = -1
    pair = sp.block_diag([ring, ring]).tocsr()
    half = np.repeat([[1.0, 0.0], [0.0, 1.0]], 12, axis=1) / np.sqrt(12)
    checkpoint = Checkpoint(folder, comm, resume=True)
    assert searched(checkpoint, pair, comm, nullspace=half[:1]) == {}
    assert searched(checkpoint, pair, comm, nullspace=half[:1]) == {"shift": 1.0}
    with pytest.raises(InputError, match=r"another problem.*null space"):
        searched(checkpoint, pair, comm, nullspace=half[1:])
    with pytest.raises(InputError, match=r"another problem.*direction"):
        searched(checkpoint, -pair, comm, nullspace=half[:1])


def test_a_search_by_products_knows_its_problem(comm, folder):
    checkpoint = Checkpoint(folder, comm, resume=True)
    found = []
    for stiffness in (1.0, 1.0, 3.0):
        made = sh.Objective(x=np.ones(20), gradient=lambda x, k=stiffness: k * x**3, comm=comm)
        with MatrixFree(made) as shell:
            try:
                found.append(searched(checkpoint, shell, None))
            except InputError as error:
                found.append(str(error))
    assert found[:2] == [{}, {"shift": 1.0}] and "another problem" in found[2]


def test_a_coloring_of_another_pattern_of_the_same_size_is_not_taken(comm, folder):
    patterns = [sh.Pattern.from_edges(edges, 8, comm=comm) for edges in ([[0, 1], [2, 3]], [[0, 2], [1, 3]])]
    journal = Journal(Checkpoint(folder, comm, resume=True), PROBLEM, patterns[0].layout)
    made = [journal.coloring(pattern, lambda pattern=pattern: sh.color(pattern)) for pattern in patterns]
    again = journal.coloring(patterns[1], lambda: pytest.fail("it was saved"))
    assert np.array_equal(again.colors, made[1].colors)
    assert verify_coloring(patterns[1], made[1]) is None


def test_gradients_are_kept_until_what_they_were_for_is_saved(comm, folder, monkeypatch):
    calls, write = [], checkpoint_format.write

    def full(path, comm, *rest):
        if "hessian" in path.name:
            if comm.rank == 0:
                raise OSError(errno.ENOSPC, "No space left on device")
            return
        write(path, comm, *rest)

    monkeypatch.setattr(checkpoint_format, "write", full)
    sh.assemble(objective(comm, calls), checkpoint=Checkpoint(folder, comm, interval=0)).close()
    monkeypatch.undo()
    spent = len(calls)
    sh.assemble(objective(comm, calls), checkpoint=Checkpoint(folder, comm, interval=0, resume=True)).close()
    assert (
        comm.allreduce(len(calls) - spent) <= 3 * comm.size
    )  # those of the check, but none for a colour or noise


@pytest.mark.parallel([1])
@pytest.mark.parametrize("command", ["plan --products 0", "eigs --explain"])
def test_a_look_at_a_run_leaves_its_checkpoint(comm, tmp_path, command, monkeypatch):
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    sp.save_npz(tmp_path / "matrix.npz", laplacian(4, 4)[0])
    (tmp_path / "ck").mkdir()
    (tmp_path / "ck" / "search.ckpt").write_text("of a long run")
    words = [
        *command.split(),
        str(tmp_path / "matrix.npz"),
        "--checkpoint",
        str(tmp_path / "ck"),
        "--resume",
        "-q",
    ]
    assert cli._run(parser().parse_args(words), {}, [], comm) == 0
    assert (tmp_path / "ck" / "search.ckpt").read_text() == "of a long run"


def test_another_problem_is_refused_and_an_unfinished_run_not_overwritten(comm, folder):
    _, arrays = contents(comm)
    Checkpoint(folder, comm).save("stage", PROBLEM, {}, arrays)
    for other in ({"n": 41}, {"norm": 2.001}, {"more": 1}):
        with pytest.raises(InputError, match=r"another problem.*" + next(iter(other))):
            Checkpoint(folder, comm, resume=True).load("stage", PROBLEM | other)
    with pytest.raises(InputError, match="--resume"):
        Checkpoint(folder, comm)
    with pytest.raises(InputError, match="negative"):
        Checkpoint(folder, comm, interval=-1)
    Checkpoint(folder, comm, resume=True).clear()
    comm.Barrier()
    assert not list(folder.iterdir())
    comm.Barrier()
    if comm.rank == 0:
        (folder / "file").write_text("")
    comm.Barrier()
    with pytest.raises(InputError, match="no folder for checkpoints"):
        Checkpoint(folder / "file", comm)


def objective(comm, calls):
    n, w = 50, np.linspace(1, 2, 50)

    def gradient(x):
        calls.append(x.tobytes())
        g = 3 * w * x + x**3
        g[1:] += x[1:] - x[:-1]
        g[:-1] -= x[1:] - x[:-1]
        return g

    pattern = sh.Pattern.from_edges([[i, i + 1] for i in range(n - 1)], n, comm=comm)
    return sh.Objective(x=np.cos(np.arange(n)), gradient=gradient, pattern=pattern, comm=comm)


def entries(hessian):
    return hessian.mat.getValuesCSR()[2]


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"pattern": "detect"},
        pytest.param({"derivative": "forward"}, marks=pytest.mark.thorough),
        {"derivative": "extrapolated", "coloring": "acyclic"},  # whose recovery works in place
        pytest.param({"columns": 1}, marks=pytest.mark.thorough),
    ],
)
def test_an_assembly_that_is_stopped_again_and_again_evaluates_nothing_twice(comm, folder, how):
    calls, plain = [], []
    with sh.assemble(objective(comm, plain), **how) as hessian:
        wanted, evaluations = entries(hessian), hessian.evaluations
    stops, hessian = 0, None
    while hessian is None:
        checkpoint = Interrupted(folder, comm, interval=0, resume=True, after=4)
        try:
            hessian = sh.assemble(objective(comm, calls), checkpoint=checkpoint, **how)
        except Stopped as stopped:
            assert stopped.status == 75 and "SIGUSR1" in str(stopped) and "--resume" in str(stopped)
            stops += 1
    with hessian:
        assert np.abs(entries(hessian) - wanted).max(initial=0) < 1e-9 * np.abs(wanted).max(initial=1)
        assert hessian.evaluations == evaluations
        assert hessian.verification.passed
    assert stops >= 1
    # Each evaluation of an undisturbed run was made once.
    assert comm.allreduce(len(calls)) == comm.allreduce(len(plain))
    made = comm.allreduce(len(calls))
    with sh.assemble(objective(comm, calls), checkpoint=Checkpoint(folder, comm, resume=True), **how) as again:
        assert np.abs(entries(again) - wanted).max(initial=0) < 1e-9 * np.abs(wanted).max(initial=1)
        assert again.verification.passed and again.evaluations == evaluations
        assert comm.allreduce(len(calls)) == made  # the Hessian itself was there
        again.update()
        assert np.abs(entries(again) - wanted).max(initial=0) < 1e-9 * np.abs(wanted).max(initial=1)
    with pytest.raises(InputError, match="another problem"):
        sh.assemble(objective(comm, calls), checkpoint=Checkpoint(folder, comm, resume=True), seed=5, **how)


SOLVES = [
    {"k": 12},
    {"interval": (0.0, 1.4)},
    {"k": 8, "method": "lobpcg"},
    pytest.param({"k": 8, "method": "gd"}, marks=pytest.mark.thorough),
    pytest.param({"k": 8, "method": "jd"}, marks=pytest.mark.thorough),
    pytest.param({"k": 20, "which": "largest"}, marks=pytest.mark.thorough),
    pytest.param({"k": 9, "target": 3.3}, marks=pytest.mark.thorough),
    pytest.param({"interval": (0.0, 1.4), "method": "feast"}, marks=pytest.mark.thorough),
    pytest.param({"interval": (0.0, 1.4), "method": "ciss"}, marks=pytest.mark.thorough),
    pytest.param({"interval": (0.0, 0.7), "method": "filter"}, marks=pytest.mark.thorough),
    pytest.param({"interval": (0.0, 1.4), "method": "dense"}, marks=pytest.mark.thorough),
]


@pytest.mark.parametrize("what", SOLVES)
def test_a_solve_that_is_stopped_again_and_again_gives_the_same(comm, folder, what):
    matrix, exact = laplacian(19, 23)
    with sh.eigs(matrix, comm=comm, **what) as spectrum:
        wanted = spectrum.eigenvalues.copy()
    stops, spectrum = 0, None
    for attempt in range(200):
        checkpoint = Interrupted(folder, comm, interval=0, resume=True, after=2 + attempt // 4)
        try:
            spectrum = sh.eigs(matrix, comm=comm, checkpoint=checkpoint, **what)
            break
        except Stopped:
            stops += 1
    with spectrum:
        assert np.allclose(spectrum.eigenvalues, wanted, rtol=1e-10, atol=1e-13)
        assert np.abs(exact[:, None] - spectrum.eigenvalues).min(axis=0).max() < 1e-10
        assert spectrum.residuals.max() < 1e-8
        assert spectrum.count is None or spectrum.count.certified
    assert stops >= 1 or what.get("method") in ("dense", "ciss")


@pytest.mark.parallel([2])
def test_slices_of_groups_are_saved(comm, folder):
    test_a_solve_that_is_stopped_again_and_again_gives_the_same(
        comm, folder, {"interval": (0.0, 3.0), "groups": 2, "method": "slicing"}
    )


# --- real processes --------------------------------------------------------------------

ASKED = (
    "-k 4 --set log=log --set pids=pids --checkpoint kept --checkpoint-interval 0 --resume -q --json answer.json"
)


@functools.cache
def undisturbed(name):
    """Return (eigenvalues, evaluations) of a run that nothing stops."""
    with tempfile.TemporaryDirectory() as place:
        status, said = faults.start(Path(place), f"eigs problem.py:{name} {ASKED}").end()
        assert status == 0, said
        return np.array(faults.answer(Path(place))["eigenvalues"]), faults.evaluated(Path(place))


def the_same(folder, wanted):
    found = np.array(faults.answer(folder)["eigenvalues"])
    return len(found) == len(wanted) and np.allclose(found, wanted, rtol=1e-10, atol=0)


@pytest.mark.parallel([1])
@pytest.mark.parametrize(
    "name, ranks, then, number",
    [
        ("chain", 2, 1, signal.SIGUSR1),
        pytest.param("chain", 1, 2, signal.SIGTERM, marks=pytest.mark.slow),
        pytest.param("together", 2, 3, signal.SIGINT, marks=pytest.mark.slow),
        pytest.param("grouped", 4, 1, signal.SIGTERM, marks=pytest.mark.slow),
        pytest.param("summed", 2, 1, signal.SIGTERM, marks=pytest.mark.slow),
        pytest.param("elements", 3, 1, signal.SIGTERM, marks=pytest.mark.slow),
    ],
)
def test_a_signal_saves_and_another_number_of_ranks_goes_on(folder, name, ranks, then, number):
    wanted, evaluations = undisturbed(name)
    command = f"eigs problem.py:{name} --set wait=0.03 {ASKED}"
    running = faults.start(folder, command, ranks)
    faults.wait_for_evaluations(running, 11)
    running.send(number, [ranks - 1])  # one rank alone is told
    status, said = running.end()
    assert status == 75, said
    assert f"stopped by {number.name}" in said and "--resume" in said and "Traceback" not in said
    before = sum(faults.evaluated(folder).values())
    assert before < sum(evaluations.values())
    status, said = faults.start(folder, command, then).end()
    assert status == 0, said
    assert the_same(folder, wanted)
    assert sum(faults.evaluated(folder).values()) == sum(evaluations.values())
    assert not list((folder / "kept").iterdir())


@pytest.mark.parallel([1])
@pytest.mark.parametrize("error", [errno.ENOLCK, errno.EIO])
def test_a_file_system_without_locks_is_told_of_and_one_that_fails_is_refused(
    folder, comm, error, monkeypatch, caplog
):
    def fails(*_):
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(folder_lock.fcntl, "lockf", fails)
    if error == errno.EIO:
        with pytest.raises(InputError, match="cannot be written there: Input/output error"):
            Checkpoint(folder, comm)
        return
    Checkpoint(folder, comm).save("stage", PROBLEM, {}, contents(comm)[1])
    assert "no locks there (No locks available)" in caplog.text
    Checkpoint(folder, comm, resume=True).clear()
    assert not list(folder.iterdir())


@pytest.mark.parallel([1])
def test_a_lock_that_was_removed_while_it_was_waited_for_is_taken_anew(folder, comm, monkeypatch):
    taken, lockf = [], folder_lock.fcntl.lockf

    def removed(*arguments):
        lockf(*arguments)
        taken.append(arguments)
        if len(taken) == 1:  # by who held it until now
            (folder / "lock").unlink()

    monkeypatch.setattr(folder_lock.fcntl, "lockf", removed)
    held = Checkpoint(folder, comm)
    assert len(taken) == 2 and (folder / "lock").read_text() == f"process {os.getpid()} on {socket.gethostname()}"
    held.clear()


@pytest.mark.parallel([1])
def test_two_runs_do_not_share_a_folder(folder):
    command = f"eigs problem.py:chain --set wait=0.03 {ASKED}"
    first = faults.start(folder, command, 2)
    faults.wait_for_evaluations(first, 4)
    ranks = first.pids()
    first.send(signal.SIGSTOP)
    other = faults.start(folder, command)
    status, said = other.end()
    for rank in ranks:
        os.kill(rank, signal.SIGCONT)
    assert status == 2 and said.count("\n") == 1, said
    assert f"kept is in use by process {ranks[0]} on " in said
    status, said = first.end()
    assert status == 0, said
    assert the_same(folder, undisturbed("chain")[0])


@pytest.mark.parallel([1])
@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 100))])
def test_killed_at_any_moment(folder, seed):
    ranks, (wanted, plain) = 2, undisturbed("chain")
    killed = faults.kill_and_resume(folder, f"eigs problem.py:chain --set wait=0.01 {ASKED}", ranks, seed)
    assert killed.status == 0, killed.said
    assert the_same(folder, wanted)
    assert killed.evaluated <= sum(plain.values()) + killed.kills * ranks
    assert killed.longest < 30
