"""The keeper of a job's processes: it starts their launcher, and ends all that has come of them.

It is run as a file by itself, from the standard library alone, so that it is there in milliseconds and knows
nothing of MPI. What the processes of a job leave behind becomes its own child, wherever they have put it, and is
killed when the launcher has ended, or waits for ranks that are gone, and when who has started the keeper is gone.

The first line of its standard input is JSON: `command`, `cores` (those that it may use), `scratch` (folders that
are removed at the end), and `order`, which the command gets on its own standard input. The end of the input asks
it to end all. Its only line of output is JSON too: the `status` of the command, None where it was ended.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Container
from contextlib import suppress

# Of Linux: orphans among the descendants of a process become its children.
_SUBREAPER = 36

# Seconds between two looks at the command, and two at its ranks; that a process is given to die.
_LOOK, _SLOW, _LONG = 0.02, 1.0, 10.0

# Seconds that a launcher may wait for ranks that are gone.
DESERTED = 10.0


def adopt_orphans() -> None:
    """Make this process the parent of what its descendants leave behind, where the system can. Not collective."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "prctl"):
        libc.prctl(_SUBREAPER, 1, 0, 0, 0)


def list_descendants(root: int) -> dict[int, str]:
    """Return {process: state} of all that descends from a process; states are letters of /proc. Not collective."""
    states: dict[int, str] = {}
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc") if os.path.isdir("/proc/self") else ():
        if name.isdigit():
            with suppress(OSError), open(f"/proc/{name}/stat", "rb") as stream:
                state, parent = stream.read().rpartition(b")")[2].split()[:2]
                states[int(name)] = state.decode()
                children.setdefault(int(parent), []).append(int(name))
    found, ahead = {}, [root]
    while ahead:
        for process in children.get(ahead.pop(), ()):
            found[process] = states[process]
            ahead.append(process)
    return found


def end_descendants(spared: Container[int] = ()) -> bool:
    """Kill all that descends from this process, and reap it; return whether none is left. Not collective.

    Parameters
    ----------
    spared
        Processes that are no part of it.
    """
    deadline = time.monotonic() + _LONG
    while True:
        left = [process for process in list_descendants(os.getpid()) if process not in spared]
        for number in (signal.SIGSTOP, signal.SIGKILL):  # what is stopped starts no others meanwhile
            for process in left:
                with suppress(OSError):
                    os.kill(process, number)
        for process in left:
            with suppress(ChildProcessError):
                os.waitpid(process, os.WNOHANG)
        if not left:
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)


class DesertedLauncher:
    """Looks for how long a launcher of ranks has gone on since the last of them has ended.

    That of Open MPI 4.1 waits for ever where a rank is killed at a certain moment of its start. Ranks are its
    descendants that run this interpreter; of a launcher that has none here, as `srun`, nothing is said.

    Parameters
    ----------
    launcher
        Its number.
    """

    def __init__(self, launcher: int):
        self._launcher = launcher
        self._looked = -_SLOW
        self._left: float | None = None  # when ranks were last seen

    def seconds(self) -> float:
        """Return how long, 0 where it has ranks or has had none. Not collective."""
        now = time.monotonic()
        if now - self._looked > _SLOW:
            self._looked = now
            if any(map(_runs_python, list_descendants(self._launcher))):
                self._left = now
        return 0.0 if self._left is None else self._looked - self._left


def _runs_python(process: int) -> bool:
    """Return whether a process runs this interpreter, or may do so; one that has ended runs nothing."""
    try:
        return os.path.samefile(f"/proc/{process}/exe", "/proc/self/exe")
    except FileNotFoundError:
        return False
    except OSError:  # another user's
        return True


def main() -> None:
    """Do what the first line of standard input asks for. Not collective."""
    adopt_orphans()
    told = json.loads(sys.stdin.buffer.readline())
    if told["cores"] and hasattr(os, "sched_setaffinity"):
        with suppress(OSError):
            os.sched_setaffinity(0, told["cores"])
    command = subprocess.Popen(told["command"], stdin=subprocess.PIPE, stdout=sys.stderr)
    status = None
    if command.stdin is not None:
        with suppress(BrokenPipeError):
            command.stdin.write(json.dumps(told["order"]).encode() + b"\n")
        with suppress(BrokenPipeError):
            command.stdin.close()
    deserted = DesertedLauncher(command.pid)
    while not select.select([sys.stdin.buffer], [], [], _LOOK)[0]:
        _reap(command.pid)
        status = command.poll()
        if status is not None or deserted.seconds() > DESERTED:
            break
    end_descendants()
    for folder in told["scratch"]:
        shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps({"status": status}), flush=True)


def _reap(spared: int) -> None:
    """Reap children that have ended, up to one that others wait for."""
    with suppress(ChildProcessError):
        while (ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None:
            if ended.si_pid == spared:
                return
            os.waitpid(ended.si_pid, 0)


if __name__ == "__main__":
    main()
