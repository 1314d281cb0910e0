"""Several users at one spool: who may do what, row by row, as SECURITY.md says it; and what they do to each other."""

import fcntl
import os
import signal
import stat
import time
import types

import pytest

from sparsehess.errors import InputError
from sparsehess.service import job_outcomes, spool_lock
from sparsehess.service.spool import Spool
from sparsehess.service.spool_access import EVERYBODY, SharedAccess
from sparsehess.service.spool_clients import open_client
from sparsehess.service.spool_layout import has_secret, hide_secrets, job_id, job_name
from sparsehess.service.spool_recovery import recover_jobs
from support import ROOT, users
from support.users import ANNE, BERT, DORA, GROUP, SERVICE, as_user, can

pytestmark = [users.only_root, pytest.mark.skipif(os.name != "posix", reason="modes of folders")]

JOB = 'command = "eigs"\ninput = "inputs/matrix.mtx"\nk = 2\n[submit]\nname = "mine"\n'

# As `--group` makes it, for a group that has no name here.
MEMBERS = SharedAccess("members of a group", 0o750, 0o1730, 0o710, GROUP)

WHO = {"service's user": SERVICE, "submitter": ANNE, "another submitter": BERT, "anybody else": DORA}
GROUPS = {SERVICE: [GROUP], ANNE: [GROUP], BERT: [GROUP], DORA: []}


def submit(spool, text=JOB, priority=0, files=(("matrix.mtx", "1 2 3\n"),), spoil=None):
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
        """Return the folder of a job by what this user knows of it: Anne and the service its name, others its id."""
        knows = os.geteuid() in (SERVICE, ANNE)
        order = name[:5] if state == "queued" else ""
        return self.spool.path / state / (name if knows else order + job_id(name))


def refused(function, *arguments):
    """Do something; what a command refuses is denied like what the system refuses."""
    try:
        return function(*arguments)
    except InputError as error:
        raise PermissionError(str(error)) from error


def read_all(folder):
    """Read all files of a job."""
    names = [name for name in os.listdir(folder) if (folder / name).is_file()]
    assert {"job.toml", "log", "result.json", "outcome.json"} <= {*names}
    for path in (*(folder / name for name in names), folder / "inputs" / "matrix.mtx"):
        path.read_bytes()


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
    "list all jobs": lambda world: [os.listdir(world.spool.path / state) for state in ("queued", "running", "done")],
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


@pytest.fixture
def world():
    with users.open_place() as place:
        yield World(place, EVERYBODY)


def claimed(world):
    """Return what the service takes until nothing waits: the ids of jobs."""

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
    return sorted(os.listdir(world.spool.path / folder))


# --- what others know -------------------------------------------------------------------------------


def test_nobody_else_guesses_or_lists(world):
    def look():
        found = []
        for folder in ("new", "queued", "running", "done", "failed", "cancel"):
            for trial in (os.listdir, os.scandir):
                with pytest.raises(PermissionError):
                    trial(world.spool.path / folder)
            found += list(world.spool.path.glob(f"{folder}/*"))
        for state, name in (("done", world.done), ("running", world.running), ("queued", world.waiting)):
            for guess in (job_id(name), f"{job_id(name)}.", f"{job_id(name)}.{'0' * 32}"):
                found += [guess] if os.path.lexists(world.spool.path / state / guess) else []
        return found

    assert world.by(BERT, look) == []
    assert world.by(BERT, lambda: open_client(world.spool).list_jobs()) == []
    for guess in (job_id(world.done), "mine", job_id(world.done)[-6:]):
        with pytest.raises(AssertionError, match="no job"):
            world.by(BERT, lambda guess=guess: open_client(world.spool).find_job(guess))


def test_results_are_read_by_the_submitter_whatever_the_umask_and_by_nobody_else(world):
    folder = world.folder("done", world.done)
    world.by(ANNE, read_all, folder)
    assert has_secret(folder) and hide_secrets(str(folder)).endswith(f"done/{job_id(folder)}")
    assert world.by(SERVICE, (folder / "submitter").read_text) == f"{ANNE}\n"
    kept = world.place / "homes" / str(ANNE) / "spooled"
    assert {path.stat().st_mode & 0o777 for path in kept.iterdir()} == {0o600} and kept.stat().st_mode & 0o77 == 0


def test_a_spool_of_a_group_is_closed_to_others():
    with users.open_place() as place:
        world = World(place, MEMBERS)
        for user, inside in ((BERT, True), (DORA, False)):
            assert can(user, os.listdir, world.spool.path, groups=GROUPS[user]) == inside
        with pytest.raises(AssertionError, match="lets you not in"):
            world.by(DORA, Spool.open_existing, world.spool.path)
        assert {os.lstat(world.spool.path / name).st_gid for name in ("", "queued", "done")} == {GROUP}


def test_a_private_spool_lets_nobody_in():
    with users.open_place() as place:
        users.own_folder(place, "mine", SERVICE, 0o755)
        spool = as_user(SERVICE, Spool.open_or_create, place / "mine" / "spool")
        for user in (ANNE, BERT):
            with pytest.raises(AssertionError, match="lets you not in"):
                as_user(user, Spool.open_existing, spool.path)


# --- marks -------------------------------------------------------------------------------------------


def mark(world, name):
    (world.spool.path / "cancel" / name).touch()


def test_who_knows_the_id_alone_cancels_nothing(world):
    for name in (job_id(world.waiting), job_id(world.running), world.running[:-1] + "0", "*", job_id(world.done)):
        world.by(BERT, mark, world, name)
    assert not any(
        world.by(SERVICE, world.spool.is_cancelled, world.folder(state, name))
        for state, name in (("queued", world.waiting), ("running", world.running))
    )
    assert claimed(world) == [job_name(world.waiting)]


def test_jobs_of_the_service_itself_are_cancelled_by_it_alone(world):
    """Such a job may have no secret, where it was submitted before the spool was shared."""
    name = "20260101-000000-000000-abcdef"

    def put():
        folder = world.spool.path / "queued" / f"1000.{name}"
        folder.mkdir()
        (folder / "job.toml").write_text(JOB)
        return folder

    folder = world.by(SERVICE, put)
    world.by(BERT, mark, world, name)
    assert not world.by(SERVICE, world.spool.is_cancelled, folder)
    assert {name, job_name(world.waiting)} == {*claimed(world)}
    assert (world.spool.path / "running" / name).stat().st_mode & 0o777 == 0o700
    world.by(SERVICE, world.spool.remove_mark, name)
    world.by(SERVICE, mark, world, name)
    assert world.by(SERVICE, world.spool.is_cancelled, world.spool.path / "running" / name)


def test_what_its_submitter_cancels_is_cancelled_and_the_mark_goes(world):
    client = world.by(ANNE, lambda: open_client(world.spool).cancel("waits"))
    assert client.state == "queued" and claimed(world) == []
    assert outcome(world, world.waiting)["state"] == "cancelled"
    assert world.by(ANNE, lambda: open_client(world.spool).cancel("mine")).state == "running"
    assert world.by(SERVICE, world.spool.is_cancelled, world.folder("running", world.running))
    world.by(SERVICE, lambda: end(world.spool, world.folder("running", world.running)))
    assert world.by(ANNE, lambda: open_client(world.spool).cancel("mine")).state == "done"
    assert names(world, "cancel") == [] and names(world, "new") == [] and names(world, "queued") == []


def test_useless_marks_are_removed(world, monkeypatch):
    world.by(BERT, mark, world, "rubbish")
    world.by(BERT, mark, world, world.done)  # as if he knew it
    world.by(BERT, lambda: os.mkdir(world.spool.path / "cancel" / "folder"))
    world.by(BERT, lambda: os.symlink("/etc/passwd", world.spool.path / "cancel" / "link"))
    world.by(BERT, lambda: os.mkfifo(world.spool.path / "cancel" / "pipe"))
    monkeypatch.setattr("sparsehess.service.spool._OLD", -1.0)
    assert len(claimed(world)) == 1
    assert names(world, "cancel") == []
    assert os.path.exists("/etc/passwd")


# --- drafts ------------------------------------------------------------------------------------------


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
        return types.SimpleNamespace(f_bavail=facts.f_blocks // 21, f_frsize=facts.f_frsize, f_blocks=facts.f_blocks)

    monkeypatch.setattr("sparsehess.service.foreign_drafts._ROOM", 2**60)
    monkeypatch.setattr(os, "statvfs", full)
    assert claimed(world) == []
    assert names(world, "queued") == [world.waiting] and names(world, "new") == []
    monkeypatch.undo()
    assert claimed(world) == [job_name(world.waiting)]


SPOILERS = {
    "modes": "for mode in (0o000, 0o777): os.chmod(at(), mode); os.chmod(f'{at()}/inputs', mode)",
    "files": "os.chmod(f'{at()}/job.toml', 0o000); os.chmod(f'{at()}/job.toml', 0o644)",
    "renames": "os.rename(at(), f'{base}/new/elsewhere'); os.rename(f'{base}/new/elsewhere', f'{base}/queued/{name}')",
    "links": "os.unlink(f'{at()}/job.toml'); os.symlink('/etc/passwd', f'{at()}/job.toml')",
    "pipes": "os.unlink(f'{at()}/inputs/matrix.mtx'); os.mkfifo(f'{at()}/inputs/matrix.mtx')",
    "grows": "open(f'{at()}/inputs/matrix.mtx', 'ab').write(bytes(2**20))",
    "removes": "import shutil; shutil.rmtree(at())",
    "refills": "open(f'{at()}/inputs/{n}', 'w').close()",
    "swaps": "os.rename(f'{at()}/inputs', f'{at()}/old'); os.symlink('/etc', f'{at()}/inputs'); "
    "os.unlink(f'{at()}/inputs'); os.rename(f'{at()}/old', f'{at()}/inputs')",
}


@pytest.mark.parametrize("how", SPOILERS)
def test_what_is_done_to_a_draft_while_it_is_taken(world, how):
    """By its owner, again and again, in a process of his own; the service takes twenty such jobs, and honest ones."""
    world.by(SERVICE, world.spool.claim)
    jobs = [world.by(ANNE, submit, world.spool) for _ in range(12)]

    def spoil():
        base, n = world.spool.path, 0
        code = compile(SPOILERS[how], how, "exec")
        ends = time.monotonic() + 25
        while time.monotonic() < ends:
            for name in jobs:
                n += 1

                def at(name=name):
                    waits = f"{base}/queued/{name}"
                    return waits if os.path.lexists(waits) else f"{base}/queued/taken.{name}"

                try:
                    exec(code, {"os": os, "at": at, "base": base, "name": name, "n": n})
                except OSError:
                    continue

    child = os.fork()
    if not child:
        try:
            as_user(ANNE, spoil)
        finally:
            os._exit(0)
    try:
        taken = []
        for _ in range(6):
            honest = world.by(BERT, submit, world.spool)
            taken += claimed(world)
            assert job_name(honest) in taken, how
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
                assert facts.st_uid == SERVICE and not stat.S_ISLNK(facts.st_mode), (how, path)
                assert stat.S_ISDIR(facts.st_mode) or b"root:" not in path.read_bytes()
    assert known >= {name for name in taken if name in known}
    assert len(taken) == len({*taken})  # none twice
    assert names(world, "new") in ([], ["elsewhere"])


def test_garbage_of_others_ends_and_delays_nothing(world, caplog):
    base = world.spool.path

    def litter():
        for box in ("queued", "new", "cancel"):
            for number in range(40):
                (base / box / f"rubbish {number}\x1b[2J\n").touch()
            (base / box / "full").mkdir()
            (base / box / "full" / "file").touch()
            os.mkfifo(base / box / "1000.20260101-000000-000000-abcdef")
            os.symlink("/", base / box / "1000.20260101-000000-000000-abcdee")
            (base / box / "1000.20260101-000000-000000-abcded").mkdir()
            (base / box / "taken.1000.20260101-000000-000000-abcdec").mkdir()
            hidden = base / box / f"1000.20260101-000000-000000-abcdea.{'0' * 32}"
            hidden.mkdir()
            hidden.chmod(0)
        for name in ("20260101-000000-000000-abcdeb.cancelled", f"20260101-000000-000000-abcdeb.{'0' * 32}.copy"):
            (base / "new" / name).mkdir()
            os.mkfifo(base / "new" / name / "outcome.json")

    world.by(BERT, litter)
    world.by(SERVICE, recover_jobs, world.spool)
    world.by(SERVICE, Spool.open_or_create, base, EVERYBODY)
    honest = world.by(ANNE, submit, world.spool)
    assert {world.running, job_name(honest), job_name(world.waiting)} <= {*claimed(world)}
    assert world.by(SERVICE, lambda: open_client(Spool.open_existing(base)).list_jobs())
    left = {name for name in names(world, "queued") if "taken." not in name}
    assert left <= {"full"}
    assert world.by(SERVICE, lambda: world.spool.claim() or world.spool.count_jobs("queued")) == 0


def test_a_job_of_anothers_id_is_another_job(world):
    """Ids are public: a job that has one of another's is found by none but its own submitter."""
    name = f"{job_id(world.done)}.{'ab' * 16}"

    def put():
        folder = world.spool.path / "queued" / f"1000.{name}"
        folder.mkdir()
        (folder / "job.toml").write_text(JOB)
        for path in (folder, folder / "job.toml"):
            path.chmod(0o755)

    world.by(BERT, put)
    assert {name, job_name(world.waiting)} == {*claimed(world)}
    found = world.by(ANNE, lambda: open_client(world.spool).find_job(job_id(world.done)))
    assert found.state == "done" and found.folder.name == world.done


def test_a_job_is_not_taken_twice(world):
    """Its owner may leave a draft that nobody else can remove, or put it back."""
    name = world.by(ANNE, submit, world.spool)

    def keep():
        folder = world.folder("queued", name)
        (folder / "inner").mkdir()

    def reopen():
        os.rename(world.folder("queued", f"taken.{name}"), world.folder("queued", name))

    world.by(ANNE, keep)
    claimed(world)
    assert "no regular file" in outcome(world, name)["error"]
    assert names(world, "queued") == [f"taken.{name}"]
    world.by(ANNE, reopen)
    assert claimed(world) == [] and world.by(SERVICE, recover_jobs, world.spool)
    assert job_name(name) not in claimed(world)


# --- turns -------------------------------------------------------------------------------------------


def test_users_take_turns():
    with users.open_place() as place:
        world = World(place, EVERYBODY)
        world.by(SERVICE, world.spool.claim)
        many = world.by(ANNE, lambda: [submit(world.spool, priority=900) for _ in range(30)])
        few = [world.by(BERT, submit, world.spool, priority=priority) for priority in (-5, 3)]
        own = world.by(SERVICE, submit, world.spool)
        order = claimed(world)
        assert len(order) == len(many) + len(few) + 1
        assert {order.index(job_name(name)) for name in (*few, own)} <= set(range(6))
        assert order.index(job_name(few[1])) < order.index(job_name(few[0]))  # a priority ranks one's own
        assert [name for name in order if name in {*map(job_name, many)}] == [*map(job_name, many)]


# --- what a service finds ----------------------------------------------------------------------------


@pytest.mark.parametrize("moment", ["rename", "copy", "append_line", "remove_draft", "settle"])
def test_a_service_killed_while_it_takes_a_job_loses_and_doubles_none(world, moment):
    places = {
        "rename": "sparsehess.service.spool_adoption.sync_folder",
        "copy": "sparsehess.service.foreign_drafts.sync_folder",
        "append_line": "sparsehess.service.spool_adoption.append_line",
        "remove_draft": "sparsehess.service.spool_adoption.remove_draft",
        "settle": "sparsehess.service.spool_adoption.open_draft",
    }

    def dies():
        def end(*_):
            os.kill(os.getpid(), signal.SIGKILL)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(places[moment], end)
            world.spool.claim()

    with pytest.raises(AssertionError, match="was killed"):
        world.by(SERVICE, dies)
    world.by(SERVICE, recover_jobs, world.spool)
    assert {world.running, job_name(world.waiting)} == {*claimed(world)}
    assert names(world, "new") == names(world, "queued") == [] and len(names(world, "running")) == 2
    assert os.listdir(world.folder("running", job_name(world.waiting)) / "inputs") == ["matrix.mtx"]
