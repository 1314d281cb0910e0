"""A spool of several users: what they learn, cancel and leave behind; whose turn it is; what a crash leaves."""

import os
import signal

import pytest

from sparsehess.cli import command_line
from sparsehess.service.resident.admission import Allowance, admit
from sparsehess.service.spool.access import EVERYBODY, PRIVATE, find_closed_folders
from sparsehess.service.spool.clients import open_client
from sparsehess.service.spool.layout import has_secret, hide_secrets, job_id, job_name
from sparsehess.service.spool.recovery import recover_jobs
from sparsehess.service.spool.spool import Spool
from support import users
from support.shared_spool import (
    GROUPS,
    JOB,
    MATRIX,
    MEMBERS,
    World,
    claimed,
    end,
    mark,
    names,
    outcome,
    read_all,
    submit,
)
from support.users import ANNE, BERT, DORA, GROUP, SERVICE, as_user, can

pytestmark = [users.only_root, users.forks]


@pytest.fixture
def world():
    with users.open_place() as place:
        yield World(place, EVERYBODY)


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


@pytest.mark.parametrize("mode, closed", [(0o755, False), (0o711, False), (0o700, True), (0o750, True)])
def test_a_way_to_the_spool_that_is_closed_is_told(mode, closed):
    with users.open_place() as place:
        above = users.own_folder(place, "above", SERVICE, mode)
        found = as_user(SERVICE, lambda: find_closed_folders(above / "spool", EVERYBODY))
        assert found == ([above] if closed else [])
        assert as_user(SERVICE, lambda: find_closed_folders(above / "spool", PRIVATE)) == []


def test_a_folder_that_holds_something_is_not_opened():
    with users.open_place() as place:
        home = users.own_folder(place, "home", SERVICE, 0o700)
        as_user(SERVICE, (home / "letters").write_text, "private")
        with pytest.raises(AssertionError, match="holds files, and is no spool"):
            as_user(SERVICE, Spool.open_or_create, home, EVERYBODY)
        assert home.stat().st_mode & 0o777 == 0o700
        with pytest.raises(AssertionError, match="another user's"):
            as_user(BERT, Spool.open_or_create, users.own_folder(place, "other", SERVICE, 0o777), EVERYBODY)


def test_a_file_system_without_modes_is_refused(monkeypatch):
    with users.open_place() as place:
        users.own_folder(place, "mine", SERVICE, 0o700)
        monkeypatch.setattr(os, "chmod", lambda *_, **__: None)
        with pytest.raises(AssertionError, match="keeps no modes"):
            as_user(SERVICE, Spool.open_or_create, place / "mine" / "spool", EVERYBODY)


def test_jobs_of_others_are_no_data(world):
    """Also where the spool lies in a folder whose files jobs may read: some jobs have no secret."""
    data = Allowance(data=(str(world.place),))
    line = command_line()

    def ask(path):
        folder = world.folder("running", world.running)
        (folder / "job.toml").write_text(f'command = "eigs"\ninput = "{path}"\nk = 2\n')
        admit(folder, data, line)

    (world.place / "matrix.mtx").write_text(MATRIX)
    for path, refused in (
        (world.place / "matrix.mtx", False),
        ("inputs/matrix.mtx", False),
        (world.folder("done", world.done) / "inputs" / "matrix.mtx", True),
        (f"../../done/{world.done}/inputs/matrix.mtx", True),
        (world.spool.path / "lock", True),
    ):
        try:
            world.by(SERVICE, ask, path)
        except AssertionError as error:
            assert "is outside the job" in str(error)
            assert refused
        else:
            assert not refused, path


def test_a_private_spool_lets_nobody_in():
    with users.open_place() as place:
        users.own_folder(place, "mine", SERVICE, 0o755)
        spool = as_user(SERVICE, Spool.open_or_create, place / "mine" / "spool")
        for user in (ANNE, BERT):
            with pytest.raises(AssertionError, match="lets you not in"):
                as_user(user, Spool.open_existing, spool.path)


# --- marks -------------------------------------------------------------------------------------------


def test_who_knows_the_id_alone_cancels_nothing(world):
    near = world.running[:-1] + ("1" if world.running[-1] == "0" else "0")
    for name in (job_id(world.waiting), job_id(world.running), near, "*", job_id(world.done)):
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
    monkeypatch.setattr("sparsehess.service.spool.spool._OLD", -1.0)
    assert len(claimed(world)) == 1
    assert names(world, "cancel") == []
    assert os.path.exists("/etc/passwd")


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


@pytest.mark.parametrize("cancelled", [False, True])
@pytest.mark.parametrize(
    "box, beside", [("queued", "taken.{name}"), ("new", "{job}.copy"), ("new", "{job}.cancelled")]
)
def test_names_that_are_taken_before_the_service_takes_them(world, box, beside, cancelled):
    """A submitter knows the name of his own job, and what the service calls it next."""
    name = world.by(ANNE, submit, world.spool)
    other = world.spool.path / box / beside.format(name=name, job=job_name(name))

    def occupy():
        other.mkdir()
        (other / "file").touch()
        if cancelled:
            world.spool.ask_cancel(world.folder("queued", name))

    world.by(ANNE, occupy)
    honest = world.by(BERT, submit, world.spool)
    assert {job_name(honest), job_name(world.waiting)} <= {*claimed(world)}
    world.by(SERVICE, recover_jobs, world.spool)
    assert (other / "file").exists()  # nothing of his was removed
    if box == "new":  # cannot be foreseen
        ended = names(world, "failed") if cancelled else names(world, "running")
        assert job_name(name) in ended or job_name(name) in claimed(world)


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
        (world.folder("queued", name) / "inner").mkdir()
        (world.folder("queued", name) / "inner").chmod(0o755)

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
        few = [world.by(BERT, submit, world.spool, JOB, priority) for priority in (-5, 3)]
        own = world.by(SERVICE, submit, world.spool)
        order = claimed(world)
        assert len(order) == len(many) + len(few) + 1
        assert {order.index(job_name(name)) for name in (*few, own)} <= set(range(6))
        assert order.index(job_name(few[1])) < order.index(job_name(few[0]))  # a priority ranks one's own
        assert [name for name in order if name in {*map(job_name, many)}] == [*map(job_name, many)]


def test_groups_take_each_job_once(world):
    """Four groups of ranks at once, each with a list of the queue of its own."""
    world.by(SERVICE, world.spool.claim)
    jobs = [
        name for user in (ANNE, BERT) for name in world.by(user, lambda: [submit(world.spool) for _ in range(25)])
    ]
    gate, children, readers = os.pipe(), [], []

    def race():
        os.read(gate[0], 1)
        spool = Spool.open_existing(world.spool.path)
        return [folder.name for folder in iter(spool.claim, None)]

    for _ in range(4):
        reader, writer = os.pipe()
        child = os.fork()
        if not child:
            try:
                os.write(writer, " ".join(as_user(SERVICE, race)).encode())
            finally:
                os._exit(0)
        os.close(writer)
        children.append(child)
        readers.append(reader)
    os.write(gate[1], b"1234")
    taken = []
    for child, reader in zip(children, readers, strict=True):
        with os.fdopen(reader) as stream:
            taken.append(stream.read().split())
        os.waitpid(child, 0)
    for end_of_pipe in gate:
        os.close(end_of_pipe)
    whole = [name for some in taken for name in some]
    assert sorted(whole) == sorted(map(job_name, jobs)) and len(whole) == len({*whole})
    assert sum(bool(some) for some in taken) > 1
    assert names(world, "queued") == names(world, "new") == []


# --- what a service finds ----------------------------------------------------------------------------


@pytest.mark.parametrize("moment", ["rename", "copy", "append_line", "remove_draft", "settle"])
def test_a_service_killed_while_it_takes_a_job_loses_and_doubles_none(world, moment):
    places = {
        "rename": "sparsehess.service.spool.adoption.sync_folder",
        "copy": "sparsehess.service.spool.foreign_drafts.sync_folder",
        "append_line": "sparsehess.service.spool.adoption.append_line",
        "remove_draft": "sparsehess.service.spool.adoption.remove_draft",
        "settle": "sparsehess.service.spool.adoption.open_draft",
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
