"""Batch jobs under programs that do what Flux and LSF do: from submission to the end, whatever that is."""

import json
import os
import signal
import sys
import time

import pytest

from sparsehess.errors import InputError, StackError
from sparsehess.service.batch import jobs as batch_jobs
from sparsehess.service.batch import schedulers
from sparsehess.service.batch.flux import parse_flux_states, plain_number
from sparsehess.service.batch.lsf import parse_lsf_number, parse_lsf_states
from sparsehess.service.batch.scheduler_commands import State
from support import answers, scheduler_stubs
from support.batch import WORKER, ended, facts, here, made, run, state

PATH = os.environ["PATH"]


@pytest.fixture(params=["flux", "lsf"])
def queue(request, place, monkeypatch):
    """A queue of one of the two; `queue.scheduler` is its name."""

    class Queue(type(place / "programs")):
        scheduler = request.param

    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    return Queue(scheduler_stubs.install(place / "programs", monkeypatch, PATH, minute=10.0))


def until(true, within=60.0):
    deadline = time.monotonic() + within
    while not true():
        assert time.monotonic() < deadline, "not within the time"
        time.sleep(0.1)


def stored(queue):
    """Return what the queue itself knows of its last job."""
    path = max(queue.glob("*.json"), key=lambda one: int(one.stem))
    return json.loads(path.read_text())


def change(queue, job, **more):
    path = queue / f"{job['number']}.json"
    path.write_text(json.dumps(job | more))


def working(place, queue, seconds=None, body=WORKER):
    """Return a submitted job whose worker saves half of its work when it is told to stop."""
    (place / "worker.py").write_text(body)
    folder = batch_jobs.jobs_folder() / str(batch_jobs.next_number())
    job = made(
        place,
        queue.scheduler,
        resumable=True,
        time=seconds,
        launcher=["flux", "run"] if queue.scheduler == "flux" else ["mpiexec"],
        program=[sys.executable, "worker.py"],
        command=["eigs", "--checkpoint", str(folder / "checkpoint")],
    )
    job.file("checkpoint").mkdir()
    schedulers.SCHEDULERS[queue.scheduler].submit(job)
    return job


def begun(job):
    return (job.read_word("out") or "").startswith("begun")


def test_a_job_from_submission_to_result(place, queue):
    found = facts(place, f"submit job.toml --scheduler {queue.scheduler} --time 1h --account phys --queue long")
    assert found["scheduler"] == queue.scheduler and found["number"].lstrip("f").isalnum()
    (found,) = [ended(place, 1)]
    told = [batch_jobs.find_job("1").read_word(name) for name in ("out", "err", "scheduler")]
    assert (found["state"], found["exit"], found["progress"]) == ("done", 0, None), told
    assert facts(place, "result 1")["eigenvalues"] == pytest.approx(
        here(place, "eigs problems.py:chain -k 3 --set n=24")["eigenvalues"], abs=1e-8
    )
    options = stored(queue)["options"]
    long = {"flux": {"--bank": "phys", "--queue": "long", "--time-limit": "3600s", "--signal": "USR1@120s"}}
    short = {"lsf": {"-P": "phys", "-q": "long", "-W": "1:00", "-wa": "USR1", "-wt": "2", "-Q": "75", "-r": ""}}
    assert (long | short)[queue.scheduler].items() <= options.items()


def test_auto_finds_it(place, queue):
    for name in ("flux",) if queue.scheduler == "lsf" else ("bsub", "bjobs", "bkill"):
        (place / "programs" / name).unlink()
    assert facts(place, "submit job.toml --dry-run")["scheduler"] == queue.scheduler


def test_what_is_refused_is_told_and_forgotten(place, queue):
    code, out, err = run(place, f"submit job.toml --scheduler {queue.scheduler} --queue nowhere")
    assert (code, out) == (2, "") and "has refused: " in err and "nowhere" in err and err.count("\n") == 1
    assert not list((place / "jobs").iterdir())
    code, _, err = run(place, f"submit job.toml --scheduler {queue.scheduler} --directive=--no-such")
    assert code == 2 and "--no-such" in err


def test_one_that_waits_is_held_and_cancelled(place, queue):
    (queue / "closed").touch()
    facts(place, f"submit job.toml --scheduler {queue.scheduler}")
    (found,) = facts(place, "status 1")["jobs"]
    assert found["state"] == "pending"
    change(queue, stored(queue), held=True)
    assert facts(place, "status 1")["jobs"][0]["why"] == "held"
    code, _, err = run(place, "result 1")
    assert code == 2 and "job 1 is pending (held): no result yet" in err
    assert facts(place, "cancel 1")["jobs"][0]["cancelled"]
    job = batch_jobs.find_job("1")
    job.file("cancelled").unlink()  # then the queue itself is asked
    assert state(job).word == "cancelled"
    assert not facts(place, "cancel 1")["jobs"][0]["cancelled"]


def test_one_that_runs_is_cancelled_and_saves(place, queue):
    job = working(place, queue)
    until(lambda: begun(job))
    assert state(job) == State("running")
    assert facts(place, "cancel 1")["jobs"] == [{"id": 1, "name": "made", "state": "cancelled", "cancelled": True}]
    until(lambda: stored(queue)["state"] not in ("running", "pending"))
    time.sleep(1)
    assert job.exit_status is None and (job.read_word("starts") or "").count("\n") == 0  # not queued again
    job.file("cancelled").unlink()
    assert state(job).word == "cancelled" and state(job).exit is None


def test_one_that_its_limit_stops_goes_on(place, queue):
    job = working(place, queue, 240)  # four minutes of ten seconds each, the last part of them for saving
    first, seen = job.read_word("number"), set()

    def over():
        found = state(job)
        seen.add(found.word)
        return found.is_over

    until(over, 120)
    told = [job.read_word(name) for name in ("out", "err", "starts", "exit", "number")]
    assert state(job) == State("done", 0), (stored(queue), told)
    assert (job.read_word("out") or "").splitlines() == ["begun", "went on from half"]
    assert "running" in seen and not seen & {"failed", "cancelled", "unknown"}
    # LSF keeps the number, Flux gives another.
    assert (job.read_word("number") == first) == (queue.scheduler == "lsf")


@pytest.mark.slow
def test_one_that_cannot_save_ends_at_its_limit(place, queue):
    (place / "worker.py").write_text("import time; print('begun', flush=True); time.sleep(300)")
    job = made(
        place,
        queue.scheduler,
        time=30,
        launcher=["mpiexec"],
        program=[sys.executable, "worker.py"],
        command=["check"],
    )
    schedulers.SCHEDULERS[queue.scheduler].submit(job)
    until(lambda: state(job).is_over, 90)
    found = state(job)
    assert found.word == "failed" and found.exit in (None, 143)
    assert {"flux": "timeout", "lsf": "job killed after reaching LSF run time limit"}[queue.scheduler] == found.why


def test_a_job_that_stops_for_ever_is_not_queued_for_ever(place, queue):
    job = working(place, queue, body="import sys; sys.exit(75)")
    until(lambda: state(job).is_over or len((job.read_word("starts") or "").splitlines()) > 2)
    job.file("starts").write_text("start\n" * 99)
    until(lambda: state(job).is_over)
    assert state(job) == State("stopped", 75)
    time.sleep(1.5)
    assert len((job.read_word("starts") or "").splitlines()) == 100 and stored(queue)["state"] != "pending"


def test_one_that_is_killed_without_a_word_has_failed(place, queue):
    job = working(place, queue)
    until(lambda: begun(job))
    os.killpg(stored(queue)["pid"], signal.SIGKILL)
    until(lambda: state(job).is_over)
    assert state(job).word == "failed" and state(job).exit is None and job.exit_status is None


def test_ones_that_are_forgotten_are_unknown_and_the_others_are_known(place, queue):
    job = working(place, queue)
    until(lambda: begun(job))
    gone = made(place, queue.scheduler)
    gone.file("number").write_text({"flux": "f123", "lsf": "99"}[queue.scheduler])
    never = made(place, queue.scheduler)  # its submission was interrupted
    states = schedulers.ask_states([job, gone, never])
    lost = State("unknown", None, f"{queue.scheduler} does not know it")
    assert [states[one.id] for one in (job, gone, never)] == [State("running"), lost, lost]
    assert schedulers.ask_states([gone]) == {gone.id: lost}
    with pytest.raises(InputError, match="has refused"):
        schedulers.SCHEDULERS[queue.scheduler].cancel(gone)
    with pytest.raises(InputError, match="its submission was interrupted"):
        schedulers.SCHEDULERS[queue.scheduler].cancel(never)
    facts(place, f"cancel {job.id}")


def test_one_that_ends_while_it_is_cancelled_has_ended(place, queue):
    job = working(place, queue)
    until(lambda: begun(job))
    os.killpg(stored(queue)["pid"], signal.SIGKILL)
    until(lambda: stored(queue)["state"] != "running")
    with pytest.raises(InputError, match=r"inactive|already finished"):
        schedulers.SCHEDULERS[queue.scheduler].cancel(job)
    assert facts(place, "cancel 1")["jobs"] == [{"id": 1, "name": "made", "state": "failed", "cancelled": False}]


def test_a_scheduler_that_is_down_says_nothing_of_its_jobs(place, queue):
    job = working(place, queue)
    until(lambda: begun(job))
    local = made(place)
    local.file("exit").write_text("0\n")
    (queue / "down").touch()
    code, out, _ = run(place, "status")
    assert code == 0 and "does not answer" in out and "done" in out
    assert state(job).word == "unknown" and not state(job).is_over
    code, _, err = run(place, "submit job.toml --scheduler " + queue.scheduler)
    assert code == 2 and "has refused" in err
    code, _, err = run(place, "cancel 1")
    assert code == 2 and not job.is_cancelled
    (queue / "down").unlink()
    assert state(job) == State("running")
    facts(place, "cancel 1")


def test_one_that_has_just_queued_itself_again_has_not_ended(place, monkeypatch):
    job = made(place, "flux")
    job.file("number").write_text("fold\n")

    def ask_states(some):
        job.file("number").write_text("fnew\n")
        return {job.id: State("failed", 75)}

    monkeypatch.setattr(schedulers.SCHEDULERS["flux"], "ask_states", ask_states)
    assert state(job) == State("pending")
    monkeypatch.setattr(schedulers.SCHEDULERS["flux"], "ask_states", lambda some: {job.id: State("failed", 75)})
    assert state(job) == State("failed", 75)


def test_numbers_of_flux_in_any_locale():
    assert plain_number("ƒM7Zq9AKHno\n") == plain_number("fM7Zq9AKHno") == "fM7Zq9AKHno"
    for text in ("", "123", "ƒ0", "ƒM7Z q9", "flux-batch: ERROR"):
        with pytest.raises(StackError, match="printed no number"):
            plain_number(text)


def test_flux_by_what_it_prints():
    text = """ƒA|DEPEND||depends:['after']|
ƒB|SCHED||eta:2h|
fC|RUN||node[1-2]|
ƒD|CLEANUP|0|node1|
ƒE|COMPLETED|0|node1|Exit 0
ƒF|FAILED|3|node1|Exit 3
ƒG|FAILED|-9|node1|Killed
ƒH|TIMEOUT|143|node1|Timeout
ƒJ|CANCELED|-128||Canceled: no longer needed
ƒK|NONESUCH|||
warning: nothing of a job
"""
    assert parse_flux_states(text) == {
        "fA": State("pending", None, "depends:['after']"),
        "fB": State("pending", None, "eta:2h"),
        "fC": State("running"),
        "fD": State("running"),
        "fE": State("done", 0),
        "fF": State("failed", 3, "exit 3"),
        "fG": State("failed", None, "killed"),
        "fH": State("failed", None, "timeout"),
        "fJ": State("cancelled", None, "no longer needed"),
    }


def test_lsf_by_what_it_prints():
    for queue in ("queue <long>", "default queue <normal>"):
        assert parse_lsf_number(f"*** limits: 4 h ***\nJob <4711> is submitted to {queue}.\n") == "4711"
    with pytest.raises(StackError, match="printed no number but 'Request aborted by esub'"):
        parse_lsf_number("Request aborted by esub")
    text = """1|PEND|-|-
2|PSUSP|-|-
3|RUN|-|-
4|SSUSP|-|-
5|DONE|-|-
6|EXIT|3|-
7|EXIT|137|TERM_MEMLIMIT: job killed after reaching LSF memory usage limit
8|EXIT|140|TERM_RUNLIMIT: job killed after reaching LSF run time limit
9|EXIT|130|TERM_OWNER: job killed by owner
10|UNKWN|-|-
11|ZOMBI|-|-
12|EXIT|143|-
LSF is processing your request
"""
    assert parse_lsf_states(text) == {
        "1": State("pending"),
        "2": State("pending", None, "held"),
        "3": State("running"),
        "4": State("running", None, "suspended"),
        "5": State("done", 0),
        "6": State("failed", 3),
        "7": State("failed", None, "job killed after reaching LSF memory usage limit"),
        "8": State("failed", None, "job killed after reaching LSF run time limit"),
        "9": State("cancelled", None, "job killed by owner"),
        "10": State("unknown", None, "its host does not answer"),
        "11": State("unknown", None, "its host does not answer"),
        "12": State("failed"),
    }


def test_facts_are_those_of_the_schema(place, queue):
    (queue / "closed").touch()
    code, out, err = run(place, f"submit job.toml --scheduler {queue.scheduler} --json -")
    assert code == 0, err
    answers.parse(out)
    answers.parse(json.dumps(facts(place, "status")))
