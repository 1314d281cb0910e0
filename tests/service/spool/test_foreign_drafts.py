"""Drafts of other users, hostile ones: copied as what they are, or refused; nobody waits for them."""

import contextlib
import fcntl
import os
import shutil
import signal
import stat
import time
import types

import pytest

from sparsehess.service.spool import job_outcomes
from sparsehess.service.spool.access import EVERYBODY
from sparsehess.service.spool.layout import job_name
from sparsehess.service.spool.recovery import recover_jobs
from support import users
from support.shared_spool import World, claimed, names, outcome, submit
from support.users import ANNE, BERT, SERVICE, as_user

pytestmark = [users.only_root, users.forks]


@pytest.fixture
def world():
    with users.open_place() as place:
        yield World(place, EVERYBODY)


def linked(draft):
    os.symlink("/etc/passwd", draft / "inputs" / "away")


def job_is_a_link(draft):
    (draft / "job.toml").unlink()
    os.symlink("/etc/passwd", draft / "job.toml")


def pipe(draft):
    os.mkfifo(draft / "inputs" / "pipe")


def job_is_a_pipe(draft):
    (draft / "job.toml").unlink()
    os.mkfifo(draft / "job.toml")


def inputs_elsewhere(draft):
    (draft / "inputs" / "matrix.mtx").unlink()
    (draft / "inputs").rmdir()
    os.symlink("/etc", draft / "inputs")


def twice(draft):
    os.link(draft / "inputs" / "matrix.mtx", draft / "inputs" / "again")


def huge(draft):
    os.truncate(draft / "inputs" / "matrix.mtx", 10**13)


def many_large(draft):
    for number in range(5):
        (draft / "inputs" / f"{number}").touch()
        os.truncate(draft / "inputs" / f"{number}", 60 * 2**20)


def many(draft):
    for number in range(1001):
        (draft / "inputs" / f"{number}").touch()


def folder(draft):
    (draft / "more").mkdir()


DRAFTS = {
    linked: "away': a symbolic link",
    job_is_a_link: "'job.toml': a symbolic link",
    pipe: "pipe': no regular file",
    job_is_a_pipe: "'job.toml': no regular file",
    inputs_elsewhere: "'inputs': cannot be read: Not a directory",
    twice: "has another name elsewhere",
    huge: "at most 64 MiB",
    many_large: "256 MiB together",
    many: "more than 1000 files",
    folder: "'more': no regular file",
}


@pytest.mark.parametrize("spoil", DRAFTS, ids=lambda one: one.__name__)
@pytest.mark.parametrize("kind", ["disk", "memory"])
def test_drafts_that_are_not_what_they_seem(spoil, kind):
    with users.open_place(kind) as place:
        world = World(place, EVERYBODY)

        def put():
            # As a program of one's own would: without `submit`, which changes modes on its way.
            os.umask(0)
            name = submit(world.spool)
            spoil(world.spool.path / "queued" / name)
            return name

        name = world.by(ANNE, put)
        honest = world.by(BERT, submit, world.spool)
        assert {*claimed(world)} == {job_name(world.waiting), job_name(honest)}
        found = outcome(world, name)
        assert found["state"] == "failed" and found["exit"] == 2 and DRAFTS[spoil] in found["error"]
        assert names(world, "new") == []


def test_files_of_the_service_are_not_copied(world):
    """Root makes the links, which the system may or may not refuse to others."""
    private = world.place / "homes" / str(SERVICE) / "private"
    private.write_text("a secret of the service's user")
    os.chown(private, SERVICE, SERVICE)
    private.chmod(0o600)
    name = world.by(ANNE, submit, world.spool)
    os.link(private, world.folder("queued", name) / "inputs" / "link")
    other = world.by(BERT, submit, world.spool)
    (world.folder("queued", other) / "job.toml").unlink()
    os.link(private, world.folder("queued", other) / "job.toml")
    assert claimed(world) == [job_name(world.waiting)]
    for one in (name, other):
        reason = world.by(SERVICE, job_outcomes.read_outcome, world.folder("failed", job_name(one)))["error"]
        assert "belongs to another user" in reason
        assert not any("secret of" in path.read_text() for path in world.folder("failed", job_name(one)).iterdir())
    assert private.read_text() == "a secret of the service's user"


def test_a_lease_delays_nobody(world):
    """Who opens a file under a lease waits for its holder, 45 seconds by default."""
    name = world.by(ANNE, submit, world.spool)
    reader, writer = os.pipe()

    def hold():
        descriptor = os.open(world.folder("queued", name) / "inputs" / "matrix.mtx", os.O_RDWR)
        signal.signal(signal.SIGIO, signal.SIG_IGN)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        os.write(writer, b"held")
        time.sleep(20)

    child = os.fork()
    if not child:
        try:
            as_user(ANNE, hold)
        finally:
            os._exit(0)
    try:
        assert os.read(reader, 4) == b"held"
        began = time.monotonic()
        assert claimed(world) == [job_name(world.waiting)]
        assert time.monotonic() - began < 15
        assert "matrix.mtx': cannot be read" in outcome(world, name)["error"]
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(reader)
        os.close(writer)


def test_jobs_wait_for_room(world, monkeypatch):
    real = os.statvfs

    def full(path):
        facts = real(path)
        return types.SimpleNamespace(
            f_bavail=facts.f_blocks // 21, f_frsize=facts.f_frsize, f_blocks=facts.f_blocks
        )

    monkeypatch.setattr("sparsehess.service.spool.foreign_drafts._ROOM", 2**60)
    monkeypatch.setattr(os, "statvfs", full)
    assert claimed(world) == []
    assert names(world, "queued") == [world.waiting] and names(world, "new") == []
    monkeypatch.undo()
    assert claimed(world) == [job_name(world.waiting)]


def change_modes(draft, base, number):
    for mode in (0o000, 0o777):
        draft.chmod(mode)
    for mode in (0o000, 0o755):
        (draft / "inputs").chmod(mode)
        (draft / "job.toml").chmod(mode)


def rename_it(draft, base, number):
    os.rename(draft, base / "new" / "elsewhere")
    os.rename(base / "new" / "elsewhere", base / "queued" / draft.name.removeprefix("taken."))


def link_it(draft, base, number):
    (draft / "job.toml").unlink()
    (draft / "job.toml").symlink_to("/etc/passwd")


def make_pipes(draft, base, number):
    (draft / "inputs" / "matrix.mtx").unlink()
    os.mkfifo(draft / "inputs" / "matrix.mtx")


def grow(draft, base, number):
    if (draft / "inputs" / "matrix.mtx").stat().st_size < 70 * 2**20:  # over the limit is enough
        with open(draft / "inputs" / "matrix.mtx", "ab") as stream:
            stream.write(bytes(2**20))


def remove_it(draft, base, number):
    shutil.rmtree(draft)


def refill(draft, base, number):
    (draft / "inputs" / str(number)).touch()


def swap(draft, base, number):
    inputs = draft / "inputs"
    inputs.rename(draft / "old")
    inputs.symlink_to("/etc")
    inputs.unlink()
    (draft / "old").rename(inputs)


@pytest.mark.parametrize(
    "spoil",
    [change_modes, rename_it, link_it, make_pipes, grow, remove_it, refill, swap],
    ids=lambda one: one.__name__,
)
def test_what_is_done_to_a_draft_while_it_is_taken(world, spoil):
    """By its owner, again and again, in a process of his own; the service takes them, and honest ones."""
    world.by(SERVICE, world.spool.claim)
    jobs = [world.by(ANNE, submit, world.spool) for _ in range(8)]

    def spoil_all():
        base, number, ends = world.spool.path, 0, time.monotonic() + 25
        while time.monotonic() < ends:
            for name in jobs:
                waits = base / "queued" / name
                number += 1
                with contextlib.suppress(OSError):
                    spoil(waits if waits.exists() else waits.with_name(f"taken.{name}"), base, number)

    child = os.fork()
    if not child:
        try:
            as_user(ANNE, spoil_all)
        finally:
            os._exit(0)
    try:
        taken = []
        for _ in range(3):
            honest = world.by(BERT, submit, world.spool)
            taken += claimed(world)
            assert job_name(honest) in taken
        world.by(SERVICE, recover_jobs, world.spool)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    known = {job_name(name) for name in jobs}
    # Copies of what was there: files of the service, no links, nothing of another's.
    for name in (*names(world, "running"), *names(world, "failed")):
        for state in ("running", "failed"):
            for path in (world.spool.path / state / name).rglob("*"):
                facts = os.lstat(path)
                assert facts.st_uid == SERVICE and not stat.S_ISLNK(facts.st_mode), path
                assert stat.S_ISDIR(facts.st_mode) or b"root:" not in path.read_bytes()
    assert known >= {name for name in taken if name in known}
    assert len(taken) == len({*taken})  # none twice
    assert names(world, "new") in ([], ["elsewhere"])
