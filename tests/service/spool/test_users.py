"""Several users at one spool: who may do what, row by row, as SECURITY.md says it."""

import os

import pytest

from sparsehess.errors import InputError
from sparsehess.service.spool import lock as spool_lock
from sparsehess.service.spool.access import EVERYBODY
from sparsehess.service.spool.clients import open_client
from sparsehess.service.spool.spool import Spool
from support import ROOT, users
from support.shared_spool import MEMBERS, WHO, World, read_all, submit
from support.users import DORA, SERVICE

pytestmark = [users.only_root, users.forks]


def refused(function, *arguments):
    """Do something; what a command refuses is denied like what the system refuses."""
    try:
        return function(*arguments)
    except InputError as error:
        raise PermissionError(str(error)) from error


def write_in(folder):
    with open(folder / "inputs" / "matrix.mtx", "a") as stream:
        stream.write("4 5 6\n")


def stands(world):
    found = refused(lambda: open_client(Spool.open_existing(world.spool.path)).find_job("mine"))
    if found.folder.name != world.running:
        raise PermissionError("another job")


def cancel(world):
    refused(lambda: open_client(Spool.open_existing(world.spool.path)).cancel("waits"))
    if not world.spool.is_cancelled(world.folder("queued", world.waiting)) and os.geteuid() != SERVICE:
        raise PermissionError("no mark")


def take_back(world):
    """Take a job out of the queue and remove it."""
    waiting = world.known("queued", world.waiting)
    os.rename(waiting, waiting.with_name("taken.back"))


def remove_result(world):
    folder = world.known("done", world.done)
    for name in os.listdir(folder):
        if (folder / name).is_file():
            os.unlink(folder / name)


def lock(world):
    os.close(os.open(world.spool.path / "lock", os.O_RDONLY))
    os.close(refused(spool_lock.lock_spool, world.spool.path, "somebody"))


# What may be done, by the words of SECURITY.md: each raises an OSError where it cannot be done.
DEEDS = {
    "submit a job": lambda world: refused(submit, world.spool),
    "see whether the spool is served, and by whom": lambda world: os.listdir(world.spool.path),
    "list all jobs": lambda world: [
        os.listdir(world.spool.path / state) for state in ("queued", "running", "done")
    ],
    "find a job by its id or name, see how it stands": stands,
    "read its result, its log and its inputs": lambda world: read_all(world.known("done", world.done)),
    "cancel it": cancel,
    "change it, or take it back, while it waits": take_back,
    "change its files once it was taken": lambda world: write_in(world.known("running", world.running)),
    "change or remove its result": remove_result,
    "have it run again": lambda world: os.rename(
        world.known("done", world.done), world.spool.path / "queued" / f"1000.{world.done}"
    ),
    "end the service": lambda world: world.spool.stop(),
    "hold its lock, serve in its place": lock,
}


def table():
    """Return {deed: {who: whether he may}} as SECURITY.md says it."""
    text = (ROOT / "SECURITY.md").read_text()
    rows = [
        [cell.strip() for cell in line.strip().strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith("|")
    ]
    first = next(number for number, row in enumerate(rows) if row[1:] == list(WHO))
    found = {}
    for deed, *cells in rows[first + 2 :]:
        if len(cells) != len(WHO) or not {*cells} <= {"yes", "no"}:
            break
        found[deed] = dict(zip(WHO, (cell == "yes" for cell in cells), strict=True))
    return found


def test_the_table_has_a_row_for_each_deed():
    assert list(table()) == list(DEEDS)


@pytest.mark.parametrize("deed", DEEDS)
@pytest.mark.parametrize("kind", ["disk", "memory"])
def test_who_may_do_what(deed, kind):
    expected = table()[deed]
    for who, user in WHO.items():
        with users.open_place(kind) as place:
            world = World(place, MEMBERS)
            assert world.allows(user, DEEDS[deed]) == expected[who], (deed, who)
            if who == "another submitter" and deed != "submit a job":  # so it is where everybody may submit
                world = World(users.own_folder(place, "again", SERVICE, 0o755), EVERYBODY)
                assert world.allows(user, DEEDS[deed]) == expected[who], (deed, who)
                assert world.allows(DORA, DEEDS[deed]) == expected[who], (deed, who)
