"""Job files: command lines that they stand for, and what they may not say."""

import pytest

from sparsehess.cli import command_line
from sparsehess.commands import job_files
from sparsehess.errors import InputError
from support.batch import JOB, facts, here, run


def words(place, text, line="eigs job.toml"):
    (place / "job.toml").write_text(text)
    ours, petsc = job_files.expand_job_file(line.split(), command_line())
    return " ".join(ours), " ".join(petsc)


def test_a_job_file_is_a_command_line(place):
    text = """
    command = "eigs"
    input = "problems.py:chain"
    mass = "/data/mass.npz"
    interval = [-1.5, 2]
    target = -3.0
    pattern = "detect"
    coloring = "colors.npz"
    shell = true
    no-verify = false
    json = "-"
    set = { n = 24, name = "argon", three = "3", ends = [1, 2.5], far = inf, on = true }
    [petsc]
    eps_ncv = 40
    log_view = true
    st_type = "sinvert"
    """
    ours, petsc = words(place, text, "eigs job.toml -k 4")
    assert ours == (
        "eigs --mass /data/mass.npz --interval -1.5 2 --target=-3.0 --pattern detect --coloring colors.npz "
        "--shell --json - --set n=24 --set name=argon --set three='3' --set ends=[1, 2.5] --set far=1e999 "
        "--set on=True problems.py:chain -k 4"
    )
    assert petsc == "-eps_ncv 40 -log_view -st_type sinvert"
    (place / "inner").mkdir()
    (place / "inner/job.toml").write_text('command="check"\nresult="r.h5"\ninput="p.py:f"\nnullspace="constant"')
    ours, _ = job_files.expand_job_file(["check", "-q", "inner/job.toml", "--tol", "1"], command_line())
    assert " ".join(ours) == "check --nullspace constant -q inner/r.h5 inner/p.py:f --tol 1"
    parsed = command_line().parse(ours)
    assert (parsed.result, parsed.input, parsed.tol, parsed.quiet) == ("inner/r.h5", "inner/p.py:f", 1.0, True)
    text = 'command = "eigs"\ninput = "package.module:name"\n[submit]\nranks = 4\nsetup = ["module load a"]'
    assert words(place, text)[0] == "eigs package.module:name"
    line = "submit -q job.toml --ranks 2"
    assert words(place, text, line)[0] == "submit --ranks 4 --setup module load a -q job.toml --ranks 2"
    # For a plan, what only another command takes is checked, but plays no part.
    text = 'command = "assemble"\ninput = "problems.py:chain"\nout = "h.npz"\nderivative = "forward"'
    assert (
        words(place, text, "plan job.toml")[0]
        == "plan --of assemble --out h.npz --derivative forward problems.py:chain"
    )
    text = 'command = "density"\ninput = "good.npz"\ngrid = 100'
    assert words(place, text, "plan job.toml")[0] == "plan --of density good.npz"
    for line in ("eigs good.npz --json job.toml", "result job.toml", "nothing job.toml", "-q"):
        assert job_files.expand_job_file(line.split(), command_line()) == (line.split(), [])


REFUSED = [
    ("whihc = 3", "line 3: whihc: nothing that eigs takes; did you mean which?"),
    ("zzz = 3", "line 3: zzz: nothing that eigs takes; it takes about, backend, "),
    ("k = 3.5", "line 3: k: a whole number, not 3.5"),
    ("k = true", "line 3: k: a whole number, not True"),
    ('tol = "small"', "line 3: tol: a number, not 'small'"),
    ("interval = [1]", "line 3: interval: 2 values are written [a, b], not [1]"),
    ('which = "best"', "line 3: which: 'best' is none of smallest, largest, magnitude, negative"),
    ("which = 3", "line 3: which: text, not 3"),
    ("mass = 3", "line 3: mass: text, not 3"),
    ("shell = 1", "line 3: shell: true or false, not 1"),
    ('set = "n=3"', "line 3: set: a table is written { name = value }"),
    ('set = { "n-1" = 3 }', "line 3: set: 'n-1' is no name of an argument"),
    ("set = { n = 1979-05-27 }", "line 3: set: numbers, truth values, texts and lists of them"),
    ("set = { n = nan }", "line 3: set: nan is no number"),
    ('json = "a\\u0000b"', "line 3: json: no control characters"),
    ('"a\\nb" = 3', "'a\\nb': nothing that eigs takes"),
    ("k = 99999999999999999999", "a whole number of more than 64 bits"),
    ("k = ", "no job file: Invalid value"),
    ("petsc = 3", "petsc must be a table"),
    ("[petsc]\neps_ncv = [1]", "line 4: eps_ncv: a number, a truth value or a text, not [1]"),
    ("a = " + "[" * 5000, "no job file: "),
]


@pytest.mark.parametrize("line, says", REFUSED)
def test_what_a_job_file_may_not_say(place, line, says):
    with pytest.raises(InputError, match=r"^job\.toml") as caught:
        words(place, f'command = "eigs"\ninput = "good.npz"\n{line}\n')
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_a_job_file_that_is_none_or_for_another_command(place):
    for text, line, says in (
        ('input = "good.npz"', "eigs job.toml", "says no command"),
        ('command = "cancel"', "eigs job.toml", "is a job of cancel, not of eigs"),
        ('command = "cancel"', "plan job.toml", "'cancel' is none of eigs, "),
        ('command = "trace"', "eigs job.toml", "is a job of trace, not of eigs"),
        ('command = "eigs"\n[submit]\njob = "x"', "submit job.toml", "nothing that submit takes"),
        ("#" * (2**20 + 1), "eigs job.toml", "at most 1048576 bytes"),
    ):
        with pytest.raises(InputError, match=says):
            words(place, text, line)
    (place / "job.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="no job file"):
        job_files.read_job_file("job.toml")
    with pytest.raises(InputError, match="no such file"):
        job_files.read_job_file("nowhere.toml")


def test_eigs_of_a_job_file_and_flags_that_override_it(place):
    (place / "job.toml").write_text(JOB + "[petsc]\neps_ncv = 20\n")
    found = here(place, "eigs job.toml")
    plain = here(place, "eigs problems.py:chain -k 3 --set n=24")
    assert found["eigenvalues"] == pytest.approx(plain["eigenvalues"], abs=1e-8)
    assert str(found["options"]["eps_ncv"]) == "20"
    other = here(place, "eigs job.toml -k 2 --set n=12 -- -eps_ncv 10")
    assert (other["n"], other["k"], str(other["options"]["eps_ncv"])) == (12, 2, "10")
    (place / "job.toml").write_text(JOB + "tols = 3\n")
    code, out, err = run(place, "eigs job.toml")
    assert code == 2 and not out and "job.toml, line 6: tols: nothing that eigs takes; did you mean tol?" in err


@pytest.mark.slow
def test_eigs_of_a_job_file_on_two_ranks(place):
    other = facts(place, "eigs job.toml -k 2 --set n=12 -- -eps_ncv 10", 2)
    assert (other["n"], other["k"], str(other["options"]["eps_ncv"])) == (12, 2, "10")
    (place / "job.toml").write_text(JOB + "tols = 3\n")
    code, out, err = run(place, "eigs job.toml", 2)
    assert code == 2 and not out and err.count("\n") == 1
