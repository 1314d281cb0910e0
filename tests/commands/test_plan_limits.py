"""Whether a run is said to fit where it does, and not to fit where it does not."""

import pytest

from sparsehess.cli import command_line
from sparsehess.commands.cost_model import Memory, Ranks, choose_ranks
from sparsehess.commands.job_files import expand_job_file
from sparsehess.commands.plan_limits import Request, judge_limits
from sparsehess.errors import InputError
from support.batch import JOB, here

MEBI = 2**20
NEEDED = Memory(
    matrix=100 * MEBI, factor=800 * MEBI, analysed=True, vectors=100 * MEBI, columns=0, process=150 * MEBI
)
WORTH = Ranks(solve=4, derivatives=30, memory=1, best=4)


@pytest.mark.parametrize("ranks", [1, 2, 8, 100])
@pytest.mark.parametrize("memory", [100, 200, 300, 1000, 2000])
def test_memory_fits_exactly_where_the_fullest_rank_has_it(ranks, memory):
    facts, told = judge_limits(Request(ranks, memory * MEBI, None), ranks, NEEDED, WORTH, None)
    assert facts["memory_fits"] == (NEEDED.per_rank(ranks) <= memory * MEBI)
    assert ("it fits" in told) == facts["memory_fits"]
    if not facts["memory_fits"]:
        asked = int(told.split("ask for ")[1].split("M")[0]) * MEBI
        assert judge_limits(Request(ranks, asked, None), ranks, NEEDED, WORTH, None)[0]["memory_fits"]
        if "take " in told:
            more = int(told.split("take ")[1].split()[0])
            assert more > ranks and NEEDED.per_rank(more) <= memory * MEBI


def test_where_a_process_alone_is_too_large_no_number_of_ranks_is_named():
    _, told = judge_limits(Request(None, 100 * MEBI, None), 1, NEEDED, WORTH, None)
    assert "take" not in told
    assert choose_ranks(1000, 0, None, NEEDED, 100 * MEBI).memory == 1
    assert choose_ranks(1000, 0, None, NEEDED, 300 * MEBI).memory == 16


@pytest.mark.parametrize(
    "time, fits", [(3000, True), (2999, None), (100, None), (99, False), (1, False), (None, None)]
)
def test_time_is_kept_for_sure_or_not_at_all_or_by_sharing(time, fits):
    facts, told = judge_limits(Request(64, None, time), 64, NEEDED, WORTH, 3000.0)
    assert facts["time_fits"] is fits and facts["useful_ranks"] == 30
    assert "64 are asked for, and 30 have work" in told
    if fits is None and time:
        share = int(told.split(" if ")[1].split()[0])
        assert 3000 / share <= time < 3000 / (share - 1)


def test_nothing_is_said_of_what_is_not_known_or_not_asked_for():
    assert judge_limits(Request(None, None, None), 1, NEEDED, WORTH, None)[1] == ""
    facts, told = judge_limits(Request(None, None, 60), 1, NEEDED, WORTH, None)
    assert facts["time_fits"] is None and "not known" in told
    together = Ranks(solve=4, derivatives=None, memory=1, best=4)
    assert judge_limits(Request(64, None, None), 64, NEEDED, together, None)[0]["useful_ranks"] == 64


def test_a_plan_of_a_job_file_is_made_for_what_it_will_be_submitted_with(place):
    submit = '\n[submit]\nranks = 4\nmemory = "4GB"\ntime = "1-00"\nname = "chain"\nspool = "here"\njson = "no"\n'
    (place / "job.toml").write_text(JOB + submit)
    words, _ = expand_job_file(["plan", "job.toml"], command_line())
    assert " ".join(words) == "plan --ranks 4 --time 1-00 --memory 4GB -k 3 --set n=24 problems.py:chain"
    found = here(place, "plan job.toml")
    assert found["memory"]["ranks"] == 4
    assert found["request"] == {
        "ranks": 4,
        "memory": 4 * 2**30,
        "time": 86400,
        "memory_fits": True,
        "time_fits": True,
        "useful_ranks": 3,
    }
    found = here(place, "plan job.toml --ranks 2 --memory 1M")  # the command line wins
    assert found["request"]["ranks"] == 2 and found["request"]["memory_fits"] is False
    (place / "job.toml").write_text(JOB + "\n[submit]\nrank = 4\n")
    with pytest.raises(InputError, match="rank: nothing that submit takes; did you mean ranks"):
        here(place, "plan job.toml")
    for text, says in (("--memory 4", "with its unit"), ("--time 90", "write 90m"), ("--ranks 0", "at least 1")):
        with pytest.raises(InputError, match=says):
            here(place, f"plan good.npz {text}")
