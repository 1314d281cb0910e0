"""Whether a run fits into the ranks, the memory and the time that it is to be submitted with."""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from typing import Any

from sparsehess.commands.cost_model import MOST_RANKS, Memory, Ranks
from sparsehess.commands.quantities import format_time, memory_bytes, parse_memory, parse_time

# What is asked for beyond an estimate of memory, as its parts are not measured.
_MARGIN = 1.25


@dataclass(frozen=True)
class Request:
    """What a run is to be submitted with; None where nothing is said.

    Attributes
    ----------
    ranks
        Processes.
    memory
        Bytes of each of them.
    time
        Seconds.
    """

    ranks: int | None
    memory: int | None
    time: int | None

    @classmethod
    def of(cls, arguments: argparse.Namespace) -> Request:
        """Return what the arguments of a plan say. Not collective."""
        return cls(
            arguments.ranks,
            None if arguments.memory is None else memory_bytes(parse_memory(arguments.memory)),
            None if arguments.time is None else parse_time(arguments.time),
        )


def judge_limits(
    asked: Request, ranks: int, needed: Memory, worth: Ranks, seconds: float | None
) -> tuple[dict[str, Any], str]:
    """Return what was asked for and whether a run fits into it, and the same for people.

    Not collective.

    Parameters
    ----------
    ranks
        That the plan is made for.
    needed, worth
        Memory of the run, and the ranks that it can use.
    seconds
        That one rank would take for all calls of the user's functions; None where nothing was measured.
    """
    told = []
    memory_fits = None if asked.memory is None else needed.per_rank(ranks) <= asked.memory
    if memory_fits is not None:
        told.append(f"memory: {_memory_told(asked.memory or 0, ranks, needed, memory_fits)}")
    useful = ranks if worth.derivatives is None else min(ranks, max(worth.solve, worth.derivatives, worth.memory))
    if useful < ranks:
        told.append(f"ranks: {ranks} are asked for, and {useful} have work")
    time_fits = None
    if asked.time is not None and seconds is None:
        told.append(f"time: {format_time(asked.time)}, and how long the solve takes is not known before it is run")
    elif asked.time is not None and seconds is not None:
        time_fits, text = _time_told(asked.time, seconds, useful)
        told.append(f"time: {text}")
    facts = {
        "ranks": asked.ranks,
        "memory": asked.memory,
        "time": asked.time,
        "memory_fits": memory_fits,
        "time_fits": time_fits,
        "useful_ranks": useful,
    }
    return facts, "\n".join(f"{'asked for' if not at else '':13}{text}" for at, text in enumerate(told))


def _memory_told(memory: int, ranks: int, needed: Memory, fits: bool) -> str:
    each = needed.per_rank(ranks)
    if fits:
        close = each * _MARGIN > memory
        return f"{_mebi(each)} of {_mebi(memory)} a rank: it fits{', with little room' if close else ''}"
    more = 2 * ranks
    while more < MOST_RANKS and needed.per_rank(more) > memory:
        more *= 2
    ways = [f"ask for {_mebi(math.ceil(_MARGIN * each), '')}M"]
    if needed.per_rank(more) <= memory:
        ways.append(f"take {more} ranks")
    return f"{_mebi(each)} do not fit into {_mebi(memory)} a rank: {', or '.join(ways)}"


def _time_told(time: int, seconds: float, useful: int) -> tuple[bool | None, str]:
    """Return whether a time limit is kept, None where that depends on how work is shared out, and words for it."""
    limit, alone = format_time(time), format_time(math.ceil(seconds))
    if seconds <= time:
        return True, f"{alone} for the calls of the functions on one rank, within {limit}"
    if seconds / useful <= time:
        return None, f"{alone} for the calls on one rank, {limit} if {math.ceil(seconds / time)} share them evenly"
    shared = format_time(math.ceil(seconds / useful))
    told = f"{alone} for the calls on one rank, {shared} shared by {useful}: beyond {limit}"
    return False, f"{told}; ask for more, or let it save and go on"


def _mebi(count: int, unit: str = " MiB") -> str:
    return f"{math.ceil(count / 2**20)}{unit}"
