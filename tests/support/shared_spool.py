"""A spool of several users with jobs in it, made without a service: what its functions do is done here."""

import os

from sparsehess.service.spool import job_outcomes
from sparsehess.service.spool.access import SharedAccess
from sparsehess.service.spool.clients import open_client
from sparsehess.service.spool.layout import job_id, job_name
from sparsehess.service.spool.spool import Spool
from support import users
from support.users import ANNE, BERT, DORA, GROUP, SERVICE, as_user, can

JOB = 'command = "eigs"\ninput = "inputs/matrix.mtx"\nk = 2\n[submit]\nname = "mine"\n'

MATRIX = "%%MatrixMarket matrix coordinate real symmetric\n1 1 1\n1 1 2.0\n"

# As `--group` makes it, for a group that has no name here.
MEMBERS = SharedAccess("members of a group", 0o750, 0o1730, 0o710, GROUP)

WHO = {"service's user": SERVICE, "submitter": ANNE, "another submitter": BERT, "anybody else": DORA}
GROUPS = {SERVICE: [GROUP], ANNE: [GROUP], BERT: [GROUP], DORA: []}


def submit(spool, text=JOB, priority=0, files=(("matrix.mtx", MATRIX),), spoil=None):
    """Queue a job as the user that runs this; return the name of its folder in the queue."""
    client = open_client(spool)
    draft = client.make_draft()
    (draft / "job.toml").write_text(text)
    (draft / "inputs").mkdir()
    for name, content in files:
        (draft / "inputs" / name).write_text(content)
    if spoil is not None:
        spoil(draft)
    client.enqueue([draft], priority)
    return f"{1000 - priority:04d}.{draft.name}"


def end(spool, folder):
    """Do as a service does with a job that it has taken: answer it."""
    with open(os.open(folder / "log", os.O_WRONLY | os.O_CREAT, 0o600), "w") as stream:
        stream.write("solved\n")
    (folder / "result.json").write_text("{}\n")
    job_outcomes.write_outcome(folder, {"id": job_id(folder), "state": "done", "exit": 0, "error": None})
    spool.settle(folder)


class World:
    """A spool of the service's user, with a job of Anne's that waits, one that runs and one that is done."""

    def __init__(self, place, access):
        self.place = place
        (place / "homes").mkdir()
        for user in WHO.values():
            users.own_folder(place / "homes", str(user), user)
        users.own_folder(place, "service", SERVICE, 0o755)
        self.spool = self.by(SERVICE, Spool.open_or_create, place / "service" / "spool", access)
        self.by(SERVICE, lambda: os.close(self.spool.lock("a service")))
        self.done = job_name(self.by(ANNE, submit, self.spool))
        self.by(SERVICE, lambda: end(self.spool, self.spool.claim()))
        self.running = job_name(self.by(ANNE, submit, self.spool))
        assert self.by(SERVICE, lambda: self.spool.claim().name) == self.running
        self.waiting = self.by(ANNE, submit, self.spool, JOB.replace('"mine"', '"waits"'))

    def by(self, user, function, *arguments, **more):
        """Return what a function returns as that user."""
        home = self.place / "homes" / str(user)
        return as_user(user, function, *arguments, groups=GROUPS.get(user, []), home=home, **more)

    def allows(self, user, function):
        """Return whether a user can do something."""
        return can(user, function, self, groups=GROUPS[user], home=self.place / "homes" / str(user))

    def folder(self, state, name):
        """Return the folder of a job, as if its name were known to all."""
        return self.spool.path / state / name

    def known(self, state, name):
        """Return the folder of a job by what this user knows: Anne and the service its name, others its id."""
        knows = os.geteuid() in (SERVICE, ANNE)
        order = name[:5] if state == "queued" else ""
        return self.spool.path / state / (name if knows else order + job_id(name))


def claimed(world):
    """Return what the service takes until nothing waits: the names of jobs."""

    def take():
        taken = []
        while (folder := world.spool.claim()) is not None:
            taken.append(folder.name)
        return taken

    return world.by(SERVICE, take)


def outcome(world, name):
    """Return how a job has failed, as its submitter reads it."""
    return world.by(ANNE, job_outcomes.read_outcome, world.folder("failed", job_name(name)))


def names(world, folder):
    """Return the names in a folder of the spool, as root sees them."""
    return sorted(os.listdir(world.spool.path / folder))


def read_all(folder):
    """Read all files of a job that is done."""
    names = [name for name in os.listdir(folder) if (folder / name).is_file()]
    assert {"job.toml", "log", "result.json", "outcome.json"} <= {*names}
    for path in (*(folder / name for name in names), folder / "inputs" / "matrix.mtx"):
        path.read_bytes()


def mark(world, name):
    """Ask for the end of a job of that name."""
    (world.spool.path / "cancel" / name).touch()
