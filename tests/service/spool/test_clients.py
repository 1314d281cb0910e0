"""Jobs of a spool found by id, beginning, end and name; what is printed of them; keys that are for schedulers."""

import os

import pytest

from sparsehess.cli import command_line
from sparsehess.commands import job_files
from sparsehess.errors import InputError
from sparsehess.service import spool_commands
from sparsehess.service.resident.admission import Allowance, admit
from sparsehess.service.spool import job_outcomes
from sparsehess.service.spool.clients import open_client
from sparsehess.service.spool.layout import hide_secrets, make_name, parse_name
from sparsehess.service.spool.spool import Spool
from support import answers

JOB = 'command = "eigs"\ninput = "matrix.npz"\nk = 2\n'


COMMANDS = {
    "status": spool_commands.print_spool_status,
    "result": spool_commands.print_spool_result,
    "cancel": spool_commands.cancel_in_spool,
}


@pytest.fixture
def spool(tmp_path):
    return Spool.open_or_create(tmp_path / "spool")


def put(spool, name, **more):
    client = open_client(spool)
    folder = client.make_draft()
    (folder / "job.toml").write_text(f"{JOB}[submit]\nname = {name!r}\n".replace("'", '"'))
    return client.enqueue([folder], **more)[0]


def rename(spool, old, new):
    """Give a job that waits another id."""
    os.rename(spool.path / "queued" / f"1000.{old}", spool.path / "queued" / f"1000.{new}")
    return new


def end(folder, state, exit_status, error, log):
    (folder / "log").write_text(log)
    facts = {"id": folder.name, "state": state, "exit": exit_status, "error": error}
    job_outcomes.write_outcome(folder, facts)


def run(spool, *words):
    arguments = command_line().parse([*words, "--spool", str(spool.path)])
    return COMMANDS[words[0]](arguments)


def test_a_job_is_found_by_id_beginning_end_and_name(spool):
    first = rename(spool, put(spool, "one"), "20260101-000000-000000-aaaaaa")
    second = rename(spool, put(spool, "two"), "20260102-000000-000000-abbbbb")
    client = open_client(spool)
    for text, found in (
        (first, first),
        ("20260101", first),
        ("20260102-0000", second),
        ("aaaa", first),
        ("0000-abbbbb", second),
        ("one", first),
        (" two ", second),
    ):
        assert client.find_job(text).id == found, text
    for text, reason in (
        ("2026", "2 jobs"),
        ("000000-a", "no job"),
        ("aaa", "no job"),
        ("", "no job"),
        ("o", "no"),
    ):
        with pytest.raises(InputError, match=reason):
            client.find_job(text)


def test_of_several_of_a_name_the_latest_is_meant(spool):
    jobs = [rename(spool, put(spool, "same"), f"2026010{day}-000000-000000-aaaaaa") for day in (3, 1, 2)]
    client = open_client(spool)
    assert client.find_job("same").id == jobs[0]
    assert client.cancel("same").id == jobs[0] and client.find_job("same").state == "failed"
    assert client.find_job("20260102").state == "queued"  # the others wait


def test_a_name_comes_before_a_part_of_an_id(spool):
    """Else `cancel` would end another job than was meant."""
    other = rename(spool, put(spool, "x"), "20260101-000000-000000-cafe00")
    named = put(spool, "cafe00")
    assert open_client(spool).find_job("cafe00").id == named != other


def test_cancelling_leaves_no_mark(spool):
    job = put(spool, "one")
    assert run(spool, "cancel", "one", "--quiet") == 0
    assert os.listdir(spool.path / "failed") == [job] and not os.listdir(spool.path / "cancel")
    assert run(spool, "cancel", "one", "--quiet") == 0  # it had ended before
    running = put(spool, "two")
    folder = spool.claim()
    open_client(spool).cancel("two")
    assert spool.is_cancelled(folder) and os.listdir(spool.path / "cancel") == [running]
    end(folder, "done", 0, None, "")
    spool.settle(folder)
    assert not os.listdir(spool.path / "cancel")


def test_an_error_is_told_once(spool, capfd):
    put(spool, "fails")
    folder = spool.claim()
    end(folder, "failed", 2, "k is too large", "before\nsparsehess: k is too large\n")
    spool.settle(folder)
    assert run(spool, "result", "fails") == 2
    out, err = capfd.readouterr()
    assert err == "sparsehess: k is too large\n" and "k is too large" not in out
    assert out.startswith("before\nfiles  ")


def test_nothing_of_a_job_moves_the_cursor(spool, capfd):
    client = open_client(spool)
    folder = client.make_draft()
    (folder / "job.toml").write_text(JOB + '[submit]\nname = "a\\u001b[2J\\nb\\u202e"\n')
    client.enqueue([folder])
    folder = spool.claim()
    end(folder, "failed", 2, "\x1b]0;title\x07 no", "\x1b[31mred\rover\n")
    spool.settle(folder)
    run(spool, "status")
    run(spool, "result", folder.name)
    out, err = capfd.readouterr()
    assert "red" in out and "title" in out and "title" in err
    assert not {*"\x1b\x07\r\u202e"} & {*(out + err)}
    assert "a\\x1b[2J" in out.splitlines()[1]  # in one line


def test_one_file_is_for_schedulers_and_spools(spool, tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "matrix.mtx").write_text("%%MatrixMarket matrix coordinate real symmetric\n1 1 1\n1 1 2.0\n")
    (tmp_path / "job.toml").write_text(
        'command = "eigs"\ninput = "matrix.mtx"\nk = 1\n[submit]\nranks = 8\nqueue = "long"\n'
        'setup = ["module load x"]\ntime = "1:00:00"\n'
    )
    line = command_line()

    def submit(*more):
        words, _ = job_files.expand_job_file(["submit", "job.toml", *more], line)
        arguments = line.parse([*words, "--spool", str(spool.path), "--json", "-"])
        spool_commands.submit_to_spool(arguments, line)
        out, err = capfd.readouterr()
        return answers.parse(out), err

    facts, err = submit()
    assert err.count("\n") == 1 and "ranks, queue, setup in [submit]: for schedulers, passed over" in err
    text = (spool.path / "queued" / f"1000.{facts['id']}" / "job.toml").read_text()
    assert "ranks" not in text and '"time" = "1:00:00"' in text
    assert submit("--quiet")[1] == ""
    for flag in (["--ranks", "4"], ["--queue", "other"], ["--account", "me"]):
        with pytest.raises(InputError, match=f"{flag[0]}: for schedulers"):
            submit(*flag)
    folder = spool.path / "queued" / f"1000.{facts['id']}"
    (folder / "job.toml").write_text(text + 'ranks = 8\naccount = "x"\n')  # by hand
    assert admit(folder, Allowance(), line).limits.time == 3600
    (folder / "job.toml").write_text(text + "rank = 8\n")
    with pytest.raises(InputError, match="rank: a spooled job has"):
        admit(folder, Allowance(), line)


def test_names_and_secrets():
    plain, secret = make_name(secret=False), make_name(secret=True)
    assert parse_name(plain) == (plain, None) and len({make_name(secret=True) for _ in range(1000)}) == 1000
    identity, bits = parse_name(secret)
    assert f"{identity}.{bits}" == secret and len(bits) == 32
    for text in (secret, f"/a/running/{secret}/log", f"1000.{secret}: no", f"taken.1000.{secret}"):
        assert bits not in hide_secrets(text) and identity in hide_secrets(text)
    for text in (
        "",
        ".",
        "..",
        "x",
        f"{plain}.",
        f"{plain}.{bits[:-1]}",
        f"{plain}.{bits}0",
        f"{secret}\n",
        "../x",
    ):
        assert parse_name(text) is None
