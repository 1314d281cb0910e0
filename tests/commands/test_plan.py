"""Plans beside runs: what is told of every question and input is what is then called, in text, JSON and advice."""

import re

from mpi4py import MPI

import numpy as np
import pytest
import scipy.sparse

from sparsehess.cli import command_line
from sparsehess.commands import job_files
from sparsehess.errors import CheckError, InputError
from support import answers
from support.batch import run
from support.cases import laplacian

PROBLEM = """
import numpy as np
import scipy.sparse as sp
import sparsehess as sh

def bits(*arrays):
    out = 0
    for array in arrays:
        words = np.ascontiguousarray(array, np.float64).view(np.uint64)
        out ^= int(np.bitwise_xor.reduce(words * np.arange(1, 2 * len(words), 2, dtype=np.uint64)) % 2**62)
    return out

def chain(comm, n=60, form="gradient", pattern=True, dense=False, noise=0.0, mass=False, exact=8, skew=0.0,
          peaks=0, different=0):
    '''A quartic chain; noise is a function of x and v, so that every call for the same gives the same.'''
    d = 1.0 + 0.5 * np.sin(np.arange(n))
    if different:  # curvatures, and nothing coupled: Lanczos ends early
        d = 1.0 + np.arange(n) % different if different > 0 else np.zeros(n)
    d[:peaks] *= np.arange(3, 3 + peaks)
    G = np.random.default_rng(1).standard_normal((n, n)) / np.sqrt(n) if dense else None
    rounded = {8: np.float64, 4: np.float32}[exact]

    def couple(v):
        if different:
            return d * v
        out, stretch = np.zeros(n), np.diff(v)
        out[1:] += stretch
        out[:-1] -= stretch
        return out + (G + G.T) @ v if dense else out

    def gradient(x):
        g = (0.0 if different else d * x**3) + couple(x)
        return (g + noise * np.random.default_rng(bits(x)).standard_normal(n)).astype(rounded)

    def product(x, v):
        p = (0.0 if different else 3 * d * x**2 * v) + couple(v)
        p[0] += skew * v[-1]
        size = noise * np.linalg.norm(p) / np.sqrt(n)
        return (p + size * np.random.default_rng(bits(x, v)).standard_normal(n)).astype(rounded)

    def energy(x):
        return float((d * x**4).sum() / 4 + 0.5 * x @ couple(x))

    known = None
    if pattern:
        full = np.ones((n, n)) if dense else sp.diags([np.ones(n - 1), np.ones(n), np.ones(n - 1)], [-1, 0, 1])
        known = sh.Pattern.from_scipy(sp.csr_matrix(full), comm=comm)
    functions = {"gradient": gradient, "hvp": product, "energy": energy}
    given = {name: function for name, function in functions.items() if name in form.split("-")}
    return sh.Objective(x=1.0 + 0.3 * np.cos(np.arange(n)), pattern=known, comm=comm, name="chain",
                        mass=1.0 + np.arange(n) / n if mass else None, **given)
"""

INPUTS = {
    "pattern known": "",
    "pattern to be found": "--set pattern=False --pattern detect",
    "dense pattern": "--set dense=True",
    "no pattern": "--set pattern=False --shell",
    "products": "--set form=hvp",
    "products alone": "--set form=hvp --shell",
    "energy": "--set form=energy --set n=16",
    "energy alone": "--set form=energy --set n=16 --shell",
    "all three": "--set form=gradient-hvp-energy",
    "all three alone": "--set form=gradient-hvp-energy --shell",
    "noise measured": "--set noise=1e-5",
    "noise measured alone": "--set noise=1e-5 --shell",
    "noisy products alone": "--set form=gradient-hvp --set noise=1e-5 --shell",
    "single precision": "--set exact=4",
    "single precision alone": "--set exact=4 --set form=hvp --shell",
    "mass": "--set mass=True",
    "mass alone": "--set mass=True --shell",
    "forward": "--derivative forward",
    "extrapolated": "--derivative extrapolated",
    "unverified": "--set form=gradient-energy --no-verify",
    "unverified alone": "--set form=gradient-hvp-energy --shell --no-verify",
    "acyclic": "--coloring acyclic",
    "one curvature alone": "--set form=hvp --set different=1 --shell",
    "seven curvatures alone": "--set different=7 --shell",
}

QUESTIONS = {
    "lowest": "eigs -k 3",
    "largest": "eigs -k 3 --which largest",
    "interval": "eigs --interval 2 4",
    "nearest": "eigs -k 3 --target 3",
    "negative": "eigs --which negative",
    "trace": "trace",
    "trace of a function": "trace --function inverse",
    "density": "density",
    "rank": "rank",
    "inertia": "inertia",
    "inverse": "inverse",
    "reduced": "reduced",
}

# What runs find out as they go; what is found has its bar.
ESTIMATED = {"pattern to be found"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("plans")
    (place / "problems.py").write_text(PROBLEM)
    return place


@pytest.fixture
def place(folder, monkeypatch):
    monkeypatch.chdir(folder)
    return folder


def called(words, folder):
    """Return (facts, text) of a command in this process."""
    line = command_line()
    arguments = line.parse([*words.split(), "--json", str(folder / "facts.json")])
    assert line.run(arguments, {}, MPI.COMM_SELF) == 0
    return answers.parse((folder / "facts.json").read_text())


def planned_and_used(place, given, question):
    command, _, flags = question.partition(" ")
    plan = called(f"plan problems.py:chain {given} --of {command} {flags}", place)
    return plan, called(f"{command} problems.py:chain {given} {flags} -q", place)


def is_as_planned(plan, used):
    """Hold the calls that a run has counted to those that were told, by purpose."""
    told, spent = plan["evaluations"], used["evaluations"]
    total = sum(spent.values())
    assert told["least"] <= total and (told["most"] is None or total <= told["most"]), (told, spent)
    assert told["least"] <= told["total"] and (told["most"] is None or told["total"] <= told["most"])
    if not told["estimated"]:
        assert told["least"] == told["most"] == told["total"] == total
        assert told["derivatives"] == spent["gradient"] + spent["hvp"] + spent["energy"]
        for part in ("noise", "verification", "pattern"):
            assert told[part] == spent[part]


@pytest.mark.parametrize("given", INPUTS)
def test_what_is_planned_is_what_is_called(place, given):
    for name, question in QUESTIONS.items():
        plan, used = planned_and_used(place, INPUTS[given], question)
        is_as_planned(plan, used)
        by_samples = name == "trace" and used["method"] != "exact"
        assert plan["evaluations"]["estimated"] == (given in ESTIMATED or by_samples), name
        if used["task"] == "eigs" and plan["evaluations"]["products"] is None and plan["advice"] is not None:
            asked = next(way for way in plan["advice"]["alternatives"] if way["asked"])
            assert used["method"] in (asked["flags"].split()[-1], "krylovschur")


def test_a_matrix_of_zeros_takes_as_many_as_are_planned(place):
    for form in ("hvp", "gradient"):
        for question in ("eigs -k 3", "trace", "density", "rank"):
            plan, used = planned_and_used(place, f"--set form={form} --set different=-1 --shell", question)
            is_as_planned(plan, used)


@pytest.mark.parametrize(
    "given", ["--shell", "--set pattern=False --pattern detect", "", "--set noise=1e-4 --shell"]
)
def test_text_json_and_advice_say_the_same_number(place, given, capsys):
    plan = called(f"plan problems.py:chain {given}", place)
    text, told = capsys.readouterr().out, plan["evaluations"]
    head = next(line for line in text.splitlines() if line.startswith("derivatives"))
    numbers = [int(word) for word in re.findall(r"\d+", head.rpartition(": ")[2])]
    exact = [told["total"]] if not told["estimated"] else [told["total"], told["least"], told["most"]]
    assert numbers == exact
    asked = [way for way in plan["advice"]["alternatives"] if way["asked"]]
    assert len(asked) == 1 and asked[0]["likely"] == told["total"]
    assert asked[0]["calls"] == [told["least"], told["most"]]
    row = next(line for line in text.splitlines() if line.startswith(asked[0]["name"]))
    assert f" {told['total']} " in row and "asked" in row
    assert asked[0]["memory"] == pytest.approx(plan["memory"]["per_rank"], rel=0.05)
    measured = called(f"plan problems.py:chain {given} --measure", place)
    asked = next(way for way in measured["advice"]["alternatives"] if way["asked"])
    assert measured["seconds"]["all"] == pytest.approx(asked["seconds"])
    assert measured["seconds"]["all"] == pytest.approx(measured["seconds"]["one"] * told["total"])


def test_nothing_measured_has_the_least_that_it_may_be(place):
    for given in ("", "--shell", "--set noise=1e-5"):
        plan = called(f"plan problems.py:chain {given} --products 0", place)
        told = plan["evaluations"]
        used = sum(called(f"eigs problems.py:chain {given} -q", place)["evaluations"].values())
        assert told["estimated"] and told["most"] is None and told["least"] <= used <= told["least"] + 40
    exact = called("plan problems.py:chain --set form=hvp --products 0", place)["evaluations"]
    assert not exact["estimated"] and exact["most"] == exact["total"]


@pytest.mark.parametrize(
    "question", ["eigs -k 3 --which largest", "density --samples 3 --steps 30", "rank --samples 2 --steps 30"]
)
def test_many_variables_are_within_their_bar(place, question):
    plan, used = planned_and_used(place, "--set form=hvp --set n=2100 --set peaks=5 --shell", question)
    is_as_planned(plan, used)


def test_of_a_matrix_the_method_is_planned_by_what_its_factors_take(place, monkeypatch):
    scipy.sparse.save_npz(place / "grid.npz", laplacian(12, 12, 12)[0].tocsr())

    def planned_and_taken(flags=""):
        plan = called(f"plan grid.npz -k 3 {flags}", place)
        asked = next(way for way in plan["advice"]["alternatives"] if way["asked"])
        assert plan["advice"]["method"] == asked["name"] and plan["memory"]["factor"] > 0
        return asked["flags"], called(f"eigs grid.npz -k 3 -q {flags}", place)["method"]

    assert planned_and_taken() == ("--method krylovschur", "krylovschur")
    assert planned_and_taken("--method oneshift") == ("--method oneshift", "oneshift")
    monkeypatch.setattr("sparsehess.eigen.solvers.method_choice.LARGE", 1000)
    assert planned_and_taken() == ("--method krylovschur", "krylovschur")
    monkeypatch.setattr("sparsehess.eigen.solvers.predicted_seconds._BLOCK", 1.0)
    assert planned_and_taken() == ("--method oneshift", "oneshift")


def test_more_than_there_are_and_contradictions_are_refused_as_the_run_does(place):
    for flags in (
        "-k 61",
        "--which largest --target 1",
        "--method lanczo",
        "--tol 2",
        "--derivative forward --shell",
    ):
        said = []
        for command in ("plan", "eigs"):
            with pytest.raises((InputError, SystemExit)) as caught:
                called(f"{command} problems.py:chain {flags}", place)
            said.append(str(caught.value))
        assert said[0] == said[1], flags


def test_a_job_file_is_planned_for_its_own_command(place):
    line = command_line()
    for command, more, expected in (
        ("trace", 'function = "heat"\ntime = 0.5\nshell = true', "--of trace --function heat --shell"),
        ("samples", 'count = 4\nout = "s.npz"', "--of samples --out s.npz"),
        ("eigs", "k = 2", "-k 2"),
    ):
        (place / "job.toml").write_text(f'command = "{command}"\ninput = "problems.py:chain"\n{more}\n')
        words, _ = job_files.expand_job_file(["plan", "job.toml"], line)
        assert " ".join(words) == f"plan {expected} problems.py:chain"
        assert line.run(line.parse([*words, "-q"]), {}, MPI.COMM_SELF) == 0


# --- noise: what a plan accepts and tells is what a run does -----------------------------------


NOISY = {
    "gradient": "--set noise=1e-5",
    "gradient in single precision": "--set exact=4",
    "products": "--set form=hvp --set noise=1e-5",
    "products and gradient": "--set form=gradient-hvp --set noise=1e-6",
    "products in single precision": "--set form=hvp --set exact=4",
}


@pytest.mark.parametrize("kind", NOISY)
def test_the_tolerance_follows_from_the_noise_that_is_measured(place, kind):
    plan = called(f"plan problems.py:chain {NOISY[kind]} --shell", place)
    look = plan["look"]
    assert look["noise"] > 1e-9
    assert look["tolerance"] == max(1e-8, 4 * look["noise"])
    # Of more variables than are made whole, pairs are held to that very tolerance.
    many = f"{NOISY[kind]} --set n=2050 --set peaks=4 --shell -k 2 --which largest"
    planned = called(f"plan problems.py:chain {many}", place)["look"]
    used = called(f"eigs problems.py:chain {many} -q", place)
    assert used["held_to"] == pytest.approx(planned["tolerance"], rel=1e-6)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", NOISY)
def test_no_digits_below_the_noise_are_promised(place, kind, seed, capsys):
    exact = called("eigs problems.py:chain --set form=hvp --method dense -q", place)["eigenvalues"]
    found = called(f"eigs problems.py:chain {NOISY[kind]} --shell --seed {seed}", place)
    text = capsys.readouterr().out
    errors = np.array(found["errors"])
    assert (errors > 0).all() and "what the error of products, at least" in text
    assert (np.abs(np.array(found["eigenvalues"]) - exact) <= errors).all()


def test_what_is_lost_in_noise_is_refused_by_plan_and_run(place):
    for given in ("--set noise=30.0", "--set form=hvp --set noise=1.0"):
        for command in ("plan", "eigs", "rank", "inertia"):
            of = "" if command == "plan" else "-q"
            with pytest.raises(CheckError, match="lost in the noise"):
                called(f"{command} problems.py:chain {given} --shell {of}", place)
    # A matrix that is assembled may stand more: then its plan says why there is no advice.
    plan = called("plan problems.py:chain --set noise=30.0", place)
    assert plan["advice"] is None and plan["evaluations"]["total"] > 0


def test_single_columns_that_are_lost_are_told_beforehand(place):
    given = "--set noise=0.02 --set n=200 --shell"
    plan = called(f"plan problems.py:chain {given}", place)
    way = next(way for way in plan["advice"]["alternatives"] if way["asked"])
    assert not way["possible"] and "leaves nothing of single columns" in way["why"]
    with pytest.raises(CheckError, match="lost in the noise"):
        called(f"eigs problems.py:chain {given} -q", place)


def test_products_that_are_not_symmetric_are_no_noise(place):
    for command in ("plan", "eigs"):
        with pytest.raises(InputError, match="not symmetric"):
            called(f"{command} problems.py:chain --set form=hvp --set skew=1e-5 --shell", place)
        with pytest.raises(InputError, match="not symmetric"):  # nor are they hidden by a little noise
            called(f"{command} problems.py:chain --set form=hvp --set skew=0.1 --set noise=1e-7 --shell", place)


def test_noise_is_not_counted_as_entries(place):
    for noise in ("0.0", "1e-6", "1e-4"):
        given = f"--set pattern=False --set noise={noise} --shell"
        assert called(f"plan problems.py:chain {given}", place)["look"]["row"] == pytest.approx(3, abs=0.4)


# --- where there is no pattern, or a dense one ---------------------------------------------------


def test_shell_is_named_where_there_is_no_pattern_and_where_it_is_dense(place, capsys):
    with pytest.raises(InputError, match=r"--pattern detect.*--shell"):
        called("plan problems.py:chain --set pattern=False", place)
    plan = called("plan problems.py:chain --set dense=True", place)
    shell = next(way for way in plan["advice"]["alternatives"] if way["name"].startswith("matrix-free"))
    assert f"the pattern is dense: --shell takes about {shell['likely']} calls" in plan["advice"]["reason"]
    assert plan["advice"]["reason"] in capsys.readouterr().out
    used = called("eigs problems.py:chain --set dense=True --shell -q", place)
    assert sum(used["evaluations"].values()) == shell["likely"]


# --- on two and three ranks -------------------------------------------------------------------


def in_processes(place, words, ranks):
    status, out, error = run(place, f"{words} --json -", ranks)
    assert status == 0, error
    return answers.parse(out[out.index("{") :])


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [2, 3])
def test_plans_are_the_same_on_several_ranks(place, ranks):
    for given in ("--set noise=1e-5", "--set pattern=False --shell"):
        for question in ("eigs -k 3", "trace"):
            command, _, flags = question.partition(" ")
            words = f"problems.py:chain {given} {flags} -q"
            plan = in_processes(place, f"plan {words} --of {command}", ranks)
            is_as_planned(plan, in_processes(place, f"{command} {words}", ranks))
            alone = called(f"plan {words} --of {command}", place)
            assert plan["evaluations"] == alone["evaluations"]
            same = 1e-3 if "noise" in given else 1e-6  # noise is that of sums over ranks, too
            assert plan["look"]["effective_rank"] == pytest.approx(alone["look"]["effective_rank"], rel=same)
