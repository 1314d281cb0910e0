"""Programs with the names of Flux's and LSF's commands, which keep a queue in a folder and run its jobs here.

They do what the manuals say of the options that are used, refuse others, and print what the real ones print:

- Flux: the manual pages flux-batch(1), flux-jobs(1), flux-cancel(1), flux-job(1) and RFC 36 on directives, of
  flux-core 0.88. Ids have the letter ƒ where the locale can print it, f elsewhere, and both are read. `flux jobs`
  ends with 1 where it knows none of the ids, and says `JobID … unknown` of each. `flux batch` copies the script. A
  job beyond its time has the status TIMEOUT; `--signal` comes before. With `--parent` the queue around is meant.
- LSF: bsub, bjobs, bkill of IBM Spectrum LSF 10.1 (command reference and administration guide). bsub reads the
  script from its standard input and `#BSUB` lines in it, times of `-W` and `-wt` are minutes or hours:minutes,
  `-Q` names the exit status by which a job is queued again under the same number. bkill sends SIGINT, SIGTERM and
  SIGKILL, one after another, and ends with 255 for a job that has ended. bjobs says of a job that it has forgotten
  (CLEAN_PERIOD) `Job <n> is not found`, and ends with 255. At a run limit comes SIGUSR2, ten minutes before
  SIGKILL.

The signals of one job come to all of its processes. `minute` makes their minutes shorter.
"""

import stat
import sys
from pathlib import Path

COMMON = r'''
import json, os, re, shlex, signal, subprocess, sys, time
from pathlib import Path

HOME = Path(os.environ["STUB_QUEUE"])
MINUTE = float((HOME / "minute").read_text()) if (HOME / "minute").exists() else 60.0

def fail(text, status=1):
    sys.stderr.write(text + "\n")
    sys.exit(status)

def load(number):
    path = HOME / f"{number}.json"
    return json.loads(path.read_text()) if path.exists() else None

def store(job):
    path = HOME / f"{job['number']}.json"
    path.with_suffix(".new").write_text(json.dumps(job))
    os.replace(path.with_suffix(".new"), path)

def change(number, **facts):
    store(load(number) | facts)

def new_number():
    numbers = [int(path.stem) for path in HOME.glob("*.json")]
    return 1 + max(numbers, default=100)

def started(number):
    """Leave a process that runs a job, and watches over its time."""
    if (HOME / "closed").exists():
        return  # it pends
    subprocess.Popen([sys.executable, __file__, "--watch", str(number)], start_new_session=True,
                     stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

def kill(job, number):
    if job.get("pid"):
        try:
            os.killpg(job["pid"], number)
        except ProcessLookupError:
            pass

def run(job, environment):
    """Return the status of the script as `wait` tells it: negative for a signal; signal it before its limit."""
    output = open(job["output"], "ab")
    begun = time.monotonic()
    process = subprocess.Popen([job["shell"], job["script"]], start_new_session=True, cwd=job["cwd"],
                               stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                               env=job["environment"] | environment)
    change(job["number"], state="running", pid=process.pid)
    steps = sorted(job["steps"])
    while process.poll() is None:
        if steps and time.monotonic() - begun > steps[0][0]:
            _, number, reason = steps.pop(0)
            if reason:
                change(job["number"], reason=reason)
            kill({"pid": process.pid}, number)
        time.sleep(0.02)
    return process.returncode
'''

FLUX = r'''
LETTERS = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"

def name_of(number):
    digits, rest = "", number
    while rest:
        rest, digit = divmod(rest, 58)
        digits = LETTERS[digit] + digits
    locale = next(filter(None, map(os.environ.get, ("LC_ALL", "LC_CTYPE", "LANG"))), "")
    return ("\u0192" if "utf" in locale.lower() else "f") + digits

def number_of(text):
    if not re.fullmatch(f"[\u0192f][{LETTERS}]+", text):
        fail(f"flux-jobs: ERROR: {text}: invalid JobID value")
    number = 0
    for letter in text[1:]:
        number = 58 * number + LETTERS.index(letter)
    return number

def duration(text, unit):
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", text)
    if not match:
        fail(f"flux-batch: ERROR: invalid Flux standard duration: {text}")
    return float(match[1]) * {"s": 1, "m": 60, "h": 3600, "d": 86400, "": unit}[match[2]] / 60 * MINUTE

def directives(text):
    """The options of RFC 36: one sentinel, nothing else between the lines that have it."""
    found, sentinel, closed = [], None, False
    for line in text.splitlines():
        match = re.match(r"^([^\w]*)((?:flux|FLUX):)(.*)$", line)
        if match:
            if closed:
                fail("flux-batch: ERROR: orphan 'flux:' detected: directives disabled")
            if sentinel not in (None, match[1] + match[2]):
                fail("flux-batch: ERROR: sentinel changed")
            sentinel = match[1] + match[2]
            words = shlex.split(match[3], comments=True)
            if words and not words[0].startswith("-"):
                fail(f"flux-batch: ERROR: Unknown directive: {match[3]}")
            found += words
        elif sentinel and line.strip() and not line.startswith(sentinel[: -len("flux:")].rstrip()):
            closed = True
    return found

OPTIONS = {"--job-name", "--nslots", "--cores-per-slot", "--time-limit", "--bank", "--queue", "--output",
           "--signal", "--exclusive", "--setattr"}

def batch(words):
    (script,) = words
    text = Path(script).read_text()
    options = {}
    for word in directives(text):
        key, _, value = word.partition("=")
        if key not in OPTIONS:
            fail(f"flux-batch: error: unrecognized arguments: {word}", 2)
        options[key] = value
    if options.get("--queue") == "nowhere":
        fail("flux-batch: ERROR: [Errno 22] Invalid queue 'nowhere' specified")
    if int(options["--nslots"]) > 64:
        fail("flux-batch: ERROR: [Errno 22] unsatisfiable request")
    number = new_number()
    copy = HOME / f"{number}.script"
    copy.write_text(text)
    copy.chmod(0o700)
    steps = []
    if "--time-limit" in options:
        limit = duration(options["--time-limit"], 60)
        if "--signal" in options:
            name, _, before = options["--signal"].partition("@")
            steps.append([limit - duration(before, 1), getattr(signal, f"SIG{name}"), ""])
        steps += [[limit, signal.SIGTERM, "timeout"], [limit + 5, signal.SIGKILL, ""]]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("FLUX_")}
    store({"number": number, "state": "pending", "script": str(copy), "shell": "/bin/bash", "steps": steps,
           "output": options.get("--output", f"flux-{name_of(number)}.out"), "cwd": os.getcwd(),
           "environment": environment, "options": options, "code": "", "reason": ""})
    print(name_of(number))
    started(number)

def watch(number):
    job = load(number)
    # The script runs in an instance of its own: its commands would not see this queue without --parent.
    code = run(job, {"FLUX_URI": "local:///of-the-job", "FLUX_JOB_ID": name_of(number)})
    reason = load(number)["reason"]
    word = {"timeout": "TIMEOUT", "cancel": "CANCELED"}.get(reason, "FAILED" if code else "COMPLETED")
    change(number, state=word, code=code if code >= 0 else code, pid=0)

def columns(job):
    state = {"pending": "SCHED", "running": "RUN"}.get(job["state"], job["state"])
    code = "" if state in ("SCHED", "RUN") else job["code"]
    if state == "CANCELED" and not job.get("pid") and job["code"] == "":
        code = -128
    why = {"CANCELED": "Canceled", "TIMEOUT": "Timeout", "COMPLETED": "Exit 0"}.get(state, "")
    if state == "FAILED":
        why = f"Exit {code}" if code >= 0 else "Killed"
    information = {"SCHED": "held" if job.get("held") else "eta:2h", "RUN": "node7"}.get(state, "")
    return {"id.f58": name_of(job["number"]), "status": state, "returncode": code,
            "contextual_info": information, "inactive_reason": why}

def jobs(words):
    layout, ids = None, []
    while words:
        word = words.pop(0)
        if word == "-n":
            continue
        if word in ("-o", "-c"):
            value = words.pop(0)
            layout = value if word == "-o" else layout
        elif word.startswith("-"):
            fail(f"flux-jobs: error: unrecognized arguments: {word}", 2)
        else:
            ids.append(word)
    found = 0
    for one in ids:
        job = load(number_of(one))
        if job is None:
            sys.stderr.write(f"JobID {one} unknown\n")
            continue
        found += 1
        line = layout
        for field, value in columns(job).items():
            line = line.replace("{" + field + "}", str(value))
        print(line)
    sys.exit(0 if found or not ids else 1)

def cancel(words):
    for one in words:
        job = load(number_of(one))
        if job is None:
            fail(f"flux-cancel: ERROR: {one}: unknown job id")
        if job["state"] not in ("pending", "running"):
            fail(f"flux-cancel: ERROR: {one}: job is inactive")
        if job["state"] == "pending":
            change(job["number"], state="CANCELED")
            continue
        change(job["number"], reason="cancel")
        kill(job, signal.SIGTERM)

words = sys.argv[1:]
if words[0] == "--watch":
    watch(int(words[1]))
    sys.exit()
if words[0] == "run":  # flux run -n N command: forwards SIGTERM and SIGUSR1, as flux job attach does
    process = subprocess.Popen(words[3:], env={k: v for k, v in os.environ.items() if not k.startswith("FLUX_")})
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, lambda got, _: process.send_signal(got))
    sys.exit(process.wait())
if words[0] == "--parent":
    words.pop(0)
elif os.environ.get("FLUX_URI"):
    fail("flux: ERROR: this instance has no such job")
if (HOME / "down").exists():
    fail("flux-jobs: ERROR: Unable to connect to Flux: broker socket /run/flux/local was not found")
{"batch": batch, "jobs": jobs, "cancel": cancel}[words[0]](words[1:])
'''

LSF = r"""
def minutes(text):
    match = re.fullmatch(r"(?:(\d+):)?(\d+)", text)
    if not match:
        fail(f"{text}: Bad time specification. Job not submitted.", 255)
    return (60 * int(match[1] or 0) + int(match[2])) * MINUTE

VALUED = {"-J", "-n", "-W", "-R", "-P", "-q", "-o", "-wa", "-wt", "-Q", "-m"}
PLAIN = {"-r", "-rn", "-x"}

def bsub(words):
    if words:
        fail(f"{words[0]}: Command not understood by the stub. Job not submitted.", 255)
    text = sys.stdin.read()
    options = {}
    for line in text.splitlines():
        if line.startswith("#BSUB "):
            given = shlex.split(line[len("#BSUB "):])
            while given:
                key = given.pop(0)
                if key not in VALUED | PLAIN:
                    fail(f"{key}: Illegal option. Job not submitted.", 255)
                options[key] = given.pop(0) if key in VALUED else ""
    if options.get("-q") == "nowhere":
        fail("nowhere: No such queue. Job not submitted.", 255)
    if "-R" in options and not re.fullmatch(r"rusage\[mem=\d+[KMGT]B/task\]", options["-R"]):
        fail("Bad resource requirement syntax. Job not submitted.", 255)
    if ("-wa" in options) != ("-wt" in options) or {"-r", "-rn"} <= set(options):
        fail("Conflicting options. Job not submitted.", 255)
    number = new_number()
    copy = HOME / f"{number}.script"
    copy.write_text(text)
    shell = text.partition("\n")[0].removeprefix("#!").strip()
    steps = []
    if "-W" in options:
        limit = minutes(options["-W"])
        if "-wa" in options:
            steps.append([limit - minutes(options["-wt"]), getattr(signal, "SIG" + options["-wa"]), ""])
        reason = "TERM_RUNLIMIT: job killed after reaching LSF run time limit"
        steps += [[limit, signal.SIGUSR2, reason], [limit + 10 * MINUTE, signal.SIGKILL, reason]]
    store({"number": number, "state": "pending", "script": str(copy), "shell": shell, "steps": steps,
           "output": options["-o"], "cwd": os.getcwd(), "environment": dict(os.environ), "options": options,
           "again": options.get("-Q", "").split(), "reason": "", "code": 0})
    print("Welcome to the cluster.\nJob <%d> is submitted to %s <%s>."
          % (number, "queue" if "-q" in options else "default queue", options.get("-q", "normal")))
    started(number)

def watch(number):
    while True:
        job = load(number)
        change(number, reason="")
        code = run(job, {"LSB_JOBID": str(number)})
        code = 128 - code if code < 0 else code
        again = str(code) in job["again"] and not load(number)["reason"].startswith("TERM_OWNER")
        if not again:
            break
        change(number, state="pending", pid=0)
        time.sleep(0.5)
    change(number, state="done" if code == 0 else "exit", code=code, pid=0)

def bjobs(words):
    if words[:3] != ["-a", "-noheader", "-o"]:
        fail("Illegal option", 255)
    layout = words[3]
    if not re.fullmatch(r"[a-z_ ]+delimiter='\|'", layout):
        fail("Invalid format", 255)
    fields = layout.split()[:-1]
    lost = 0
    for word in words[4:]:
        job = load(word)
        if job is None or job.get("forgotten"):
            sys.stderr.write(f"Job <{word}> is not found\n")
            lost += 1
            continue
        waits = "PSUSP" if job.get("held") else "PEND"
        state = {"pending": waits, "running": "RUN", "done": "DONE", "exit": "EXIT"}
        ended = job["state"] == "exit"
        values = {"jobid": word, "stat": job.get("stat") or state[job["state"]],
                  "exit_code": str(job["code"]) if ended else "-", "exit_reason": (ended and job["reason"]) or "-"}
        print("|".join(values[field] for field in fields))
    sys.exit(255 if lost else 0)

def bkill(words):
    for word in words:
        job = load(word)
        if job is None or job.get("forgotten"):
            sys.stderr.write(f"Job <{word}>: No matching job found\n")
            sys.exit(255)
        if job["state"] in ("done", "exit"):
            sys.stderr.write(f"Job <{word}>: Job has already finished\n")
            sys.exit(255)
        change(word, reason="TERM_OWNER: job killed by owner")
        if job["state"] == "pending":
            change(word, state="exit", code=130)
        print(f"Job <{word}> is being terminated")
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
            kill(load(word), number)
            time.sleep(0.3)

name, words = Path(sys.argv[0]).name, sys.argv[1:]
if words[:1] == ["--watch"]:
    watch(int(words[1]))
    sys.exit()
if (HOME / "down").exists():
    fail("Failed in an LSF library call: LIM is down; try later", 255)
{"bsub": bsub, "bjobs": bjobs, "bkill": bkill}[name](words)
"""

# A launcher that passes on what mpiexec passes on.
MPIEXEC = """#!/bin/bash
shift 2
trap 'kill -USR1 $child' USR1
"$@" &
child=$!
while kill -0 $child; do (trap '' USR1; exec sleep 0.1); done 2> /dev/null
wait $child
"""


def install(folder, monkeypatch, path, minute=60.0):
    """Write the programs into a folder, put it first on the path, and return the folder of their queue."""
    queue = folder / "queue"
    queue.mkdir(parents=True)
    (queue / "minute").write_text(str(minute))
    programs = {name: COMMON + body for name, body in _PROGRAMS.items()}
    for name, text in programs.items():
        write(folder / name, f"#!{sys.executable}\n{text}")
    write(folder / "mpiexec", MPIEXEC)
    monkeypatch.setenv("STUB_QUEUE", str(queue))
    monkeypatch.setenv("PATH", f"{folder}:{path}")
    return queue


_PROGRAMS = {"flux": FLUX, "bsub": LSF, "bjobs": LSF, "bkill": LSF}


def write(path: Path, text: str) -> None:
    """Write a program."""
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
