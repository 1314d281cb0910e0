"""The end of a process: what a user's code has left running does not keep it."""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import suppress

# Seconds in which a process without Python's threads, which have ended by then, is to leave MPI.
_LAST = 20


def end_within(seconds: float, status: int, who: str) -> None:
    """Have this process end by a status once it has been so long in ending; say so then.

    Not collective. Called last. Threads that never end, and functions that are called at the exit, would keep the
    process, and with it all ranks and the allocation that they have.

    Parameters
    ----------
    who
        Names the process in the line that is said.
    """

    def end() -> None:
        time.sleep(seconds)
        text = f"{who} has not ended in {seconds:g} s: threads or exit functions of the problem keep it; ending it"
        os.write(2, f"sparsehess: {text}\n".encode(errors="replace"))
        os._exit(status)

    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(int(seconds) + _LAST)
    with suppress(RuntimeError):  # no memory for a thread: the alarm is left
        threading.Thread(target=end, name="end", daemon=True).start()
