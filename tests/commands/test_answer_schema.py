"""The JSON Schema that is shipped: it is one, every command's answer is as it says, and it says what it must."""

import json
import os
import re
import subprocess
import sys
import time
from importlib.util import find_spec

import jsonschema
import numpy as np
import pytest
import scipy.sparse as sp

import sparsehess as sh
from sparsehess.coloring.coloring_files import FORMATS, save
from sparsehess.commands.answer_schema import schema_text
from sparsehess.eigen.problem.solve_spec import METHODS
from sparsehess.service.spool.job_outcomes import read_json
from sparsehess.service.spool.spool import Spool
from support import answers
from support.batch import JOB, ended, facts
from support.cases import prescribed, second_difference
from support.command_line import batch, run, write_problems
from support.command_line import facts as command_facts
from support.lattices import fcc
from support.phonopy_files import write as write_force_constants

# The fields that other people's scripts rely on; they stay as they are.
PROMISED = {
    "eigs": "schema task n nnz k which interval target method converged eigenvalues residuals orthogonality count "
    "iterations coloring evaluations verification timings memory mpi backend versions frequencies errors",
    "color": "n nnz kind order colors lower_bound valid seconds",
    "assemble": "n nnz coloring evaluations verification timings",
    "inertia": "negative zero positive infinite definite certified",
    "trace": "trace stderr samples",
    "rank": "rank n degeneracy threshold certified",
    "density": "grid density stderr moments",
    "count": "interval inertia found certified margin",
    "evaluations": "gradient hvp energy",
    "mpi": "size threads",
}
# Those of objects that are there only where there is something to say.
PROMISED_OF_OTHERS = {
    "coloring": "kind order colors lower_bound valid",
    "verification": "hvp_error asymmetry passed",
    "timings": "pattern coloring derivatives assembly factorization solve total",
}


@pytest.fixture(scope="module")
def problems(tmp_path_factory):
    """Inputs of all kinds, among them some on which commands cannot do all that is asked."""
    folder = write_problems(tmp_path_factory.mktemp("answers"))
    singular = np.ones(56)
    singular[::7] = 0
    sp.save_npz(folder / "singular.npz", sp.csr_matrix(sp.diags(singular)))
    sp.save_npz(folder / "scales.npz", sp.csr_matrix(sp.diags(np.geomspace(1e-12, 1, 2100)[::-1])))
    # An eigenvalue at what is taken for zero.
    near = prescribed([-1.0, 1e-3, 0.9999e-3, 1.0, *np.linspace(1, 2, 20)])
    sp.save_npz(folder / "near.npz", near)
    sp.save_npz(folder / "nothing.npz", sp.csr_matrix(0 * sp.identity(9)))
    sp.save_npz(folder / "nothing56.npz", sp.csr_matrix(0 * sp.identity(56)))
    sp.save_npz(folder / "load.npz", sp.load_npz(folder / "good.npz") / 8)
    for name, n in (("turn", 12), ("turn56", 56)):
        sp.save_npz(folder / f"{name}.npz", sp.csr_matrix(sp.diags([np.ones(n - 1), -np.ones(n - 1)], [1, -1])))
    np.save(folder / "places.npy", np.array([[0, 3], [5, 5]]))
    np.save(folder / "rows.npy", np.stack([np.ones(56), 2 * np.ones(56)]))
    tied = second_difference(40).tolil()
    tied[9:11, 9:11] = [[1e20, -1e20], [-1e20, 1e20]]
    sp.save_npz(folder / "tied.npz", sp.csr_matrix(tied))
    hole = second_difference(12).tolil()
    hole[5, :] = hole[:, 5] = 0
    sp.save_npz(folder / "hole.npz", sp.csr_matrix(hole))
    rounded = np.round(prescribed(np.linspace(1, 9, 12), 3).toarray(), 3)
    lines = [f"{i + 1} {j + 1} {rounded[i, j]:.3f}" for i in range(12) for j in range(i + 1)]
    head = f"%%MatrixMarket matrix coordinate real symmetric\n12 12 {len(lines)}\n"
    (folder / "digits.mtx").write_text(head + "\n".join(lines) + "\n")
    (folder / "job.toml").write_text('command = "eigs"\ninput = "good.npz"\nk = 3\n')
    (folder / "copper.xyz").write_text(
        '1\nLattice="0 1.8 1.8 1.8 0 1.8 1.8 1.8 0" Properties=species:S:1:pos:R:3 pbc="T T T"\nCu 0 0 0\n'
    )
    springs = fcc([2, 2, 2])
    write_force_constants(folder, springs, springs.dense(), springs.images.first)
    (folder / "pair.xyz").write_text("2\n\nCu 0 0 0\nCu 0 0 2.3\n")
    pair = (folder / "pair.xyz").read_text()
    (folder / "several.xyz").write_text(pair + pair.replace("Cu", "Si") + "1\n\nCu 0 0 0\n")
    return folder


# Commands, the statuses that they end with, and what must be so in the answer: each case is of another kind.
CASES = [
    (
        "eigs good.npz -k 3 -o good.h5",
        0,
        lambda found: found["count"]["certified"] and found["nnz"] == 56 * 5 - 30,
    ),
    ("report good.h5 -o good.html", 0, lambda found: found["of"] == "eigs" and len(found["lacks"]) == 1),
    ("eigs good.npz --interval -inf 1.2 -o good.npz.h5", 0, lambda found: found["interval"][0] is None),
    ("eigs good.npz --target 3 -k 2 --count no", 0, lambda found: found["count"] is None),
    ("eigs good.npz --which magnitude -k 2", 0, lambda found: found["which"] == "magnitude"),
    ("eigs negative.npz --which negative --method slicing", 0, lambda found: found["interval"][0] is None),
    ("eigs good.npz --mass singular.npz -k 2", 0, lambda found: found["inputs"]["mass"]["digest"]),
    ("eigs good.npz -k 2 --drop 0.5", 0, lambda found: found["thinned"]["bound"] == 0),
    ("eigs digits.mtx -k 3", 0, lambda found: found["digits"] == 3 and len(found["rounding"]["errors"]) == 3),
    ("eigs hole.npz -k 3 --mass hole.npz", 0, lambda found: found["held"] == [5]),
    ("eigs nothing.npz -k 3", 0, lambda found: found["zeros"] == 3),
    ("eigs truss.npz -k 4 --nullspace rigid --coordinates nodes.npy", 0, lambda found: found["deflated"] == 3),
    (
        "eigs good.npz -k 9 --which largest --method krylovschur --count no -- -eps_max_it 1 -eps_ncv 11",
        3,
        lambda found: found["converged"] < 9,
    ),
    ("eigs tied.npz -k 3", 4, lambda found: found["count"]["certified"] is False and found["shortfall"]),
    ("eigs good.npz --explain", 0, lambda found: found["reason"]),
    ("eigs job.toml", 0, lambda found: found["k"] == 3),
    ("eigs problems.py:good -k 2", 0, lambda found: found["verification"]["passed"] and found["errors"]),
    ("eigs problems.py:good -k 2 --no-verify --pattern detect", 0, lambda found: found["evaluations"]["pattern"]),
    (
        "eigs problems.py:good -k 2 --shell",
        0,
        lambda found: found["nnz"] is None and found["evaluations"]["noise"],
    ),
    ("eigs problems.py:summed -k 2", 0, lambda found: found["coloring"] is None),
    ("eigs problems.py:leaning -k 2", 0, lambda found: found["projected"]["frequencies"]["resisted"]),
    ("inverse good.npz -o v.npz", 0, lambda found: found["entries"] == 56 and found["values"] is None),
    ("inverse good.npz --at places.npy", 0, lambda found: len(found["values"]) == 2 and found["how"] == "mumps"),
    ("inverse problems.py:good --at pattern", 0, lambda found: found["entries"] == found["nnz"]),
    ("samples good.npz --count 3 --seed 2 -o s.npz", 0, lambda found: found["error"] < 1e-8),
    (
        "reduced good.npz --jacobian rows.npy --fixed 3 --covariance 4,5 -k 2 -o r.npz",
        0,
        lambda found: found["redundant"] == [1] and found["freedom"] == 54 and len(found["covariance"]) == 2,
    ),
    ("reduced nothing.npz --fixed 0", 4, lambda found: found["verdict"] == "undecided" and found["zero"] == 8),
    ("buckling good.npz negative.npz -k 2 -o b.h5", 0, lambda found: found["count"]["certified"]),
    ("buckling good.npz nothing56.npz", 0, lambda found: found["count"] is None and found["critical"] is None),
    ("buckling good.npz load.npz --which positive", 0, lambda found: found["count"]["opposite_margin"] > 10),
    ("buckling good.npz load.npz --max-factor 8", 4, lambda found: found["shortfall"] and not found["critical"]),
    ("damped good.npz -k 2 -o damped.h5", 0, lambda found: found["count"]["certified"] and found["units"] is None),
    ("damped good.npz --mass load.npz --damping load.npz -k 3", 0, lambda found: found["count"]["how"] == "all"),
    (
        "damped hole.npz --gyroscopic turn.npz --units Hz --matrix-units N/m kg --interval 0.1 0.2",
        0,
        lambda found: found["radius"] and found["frequencies"]["unit"] == "Hz",
    ),
    (
        "damped good.npz --damping negative.npz --circulatory turn56.npz -k 1",
        0,
        lambda found: not found["resolution"],
    ),
    ("inertia good.npz", 0, lambda found: found["definite"] == "positive definite"),
    ("inertia good.npz --mass singular.npz", 0, lambda found: found["infinite"] == 8),
    ("inertia near.npz --zero 1e-3", 4, lambda found: not found["certified"]),
    ("inertia nothing.npz --condition", 0, lambda found: found["condition"] is None),
    ("inertia negative.npz --condition --direction low.h5", 0, lambda found: found["lowest"]["certified"]),
    ("inertia problems.py:good --stationary 2", 0, lambda found: found["stationary"]["stationary"]),
    ("inertia problems.py:good --stationary 1e-3", 4, lambda found: not found["stationary"]["stationary"]),
    ("inertia problems.py:good --set n=2500 --shell", 0, lambda found: found["stderr"]),
    ("check good.h5 good.npz", 0, lambda found: found["passed"]),
    ("check good.npz.h5 negative.npz", 4, lambda found: found["differs"] and not found["passed"]),
    ("density good.npz --grid 9", 0, lambda found: found["method"] == "dense"),
    (
        "density good.npz --grid 9 --method lanczos --samples 3 --outliers 2",
        0,
        lambda found: len(found["atoms"]) == 2,
    ),
    ("density problems.py:good --shell --method chebyshev --samples 2 --grid 5 -o d.npz", 0, lambda found: True),
    ("trace good.npz", 0, lambda found: found["stderr"] == 0),
    ("trace good.npz --method hutchinson --samples 12 --tol 1e-9", 3, lambda found: not found["converged"]),
    ("trace scales.npz --function logdet --samples 8 --steps 60", 0, lambda found: found["stderr"] is None),
    ("rank good.npz --threshold gap", 0, lambda found: True),
    ("rank near.npz --absolute 1e-3", 4, lambda found: found["doubt"] and not found["certified"]),
    ("rank problems.py:good --method density --samples 4 --shell", 0, lambda found: not found["certified"]),
    ("rank nothing.npz", 0, lambda found: found["rank"] == 0),
    ("assemble problems.py:good -o h.npz", 0, lambda found: found["coloring"]["amplification"] == 1),
    ("assemble problems.py:missing -o h.npz --keep 40", 0, lambda found: found["repaired"] and found["thinned"]),
    ("assemble problems.py:summed -o h.npz --no-verify", 0, lambda found: found["verification"] is None),
    ("color good.npz", 0, lambda found: found["valid"]),
    ("color good.npz --coloring powell-toint --order natural", 0, lambda found: found["amplification"] >= 1),
    ("plan good.npz", 0, lambda found: found["evaluations"] is None and found["advice"]),
    ("plan problems.py:good --measure", 0, lambda found: found["seconds"]["all"] >= found["seconds"]["one"]),
    ("plan problems.py:good --pattern detect --products 0", 0, lambda found: found["estimated"]),
    ("plan problems.py:good --shell --products 8", 0, lambda found: found["nnz"] == 0),
    ("info", 0, lambda found: found["versions"]["sparsehess"]),
]

if find_spec("ase") is not None:
    CASES += [
        (
            "modes pair.xyz --calculator emt -o pair.h5",
            0,
            lambda found: len(found["rigid"]) == 5 and not found["forces"]["passed"] and found["notes"],
        ),
        (
            "modes pair.xyz --calculator emt --temperature 300 --spin 0.5",
            0,
            lambda found: found["thermochemistry"]["spin"] == 0.5 and found["thermochemistry"]["dominant"] == 0,
        ),
        (
            "modes pair.xyz --calculator lj:sigma=2 -k 6 --no-project --units meV",
            0,
            lambda found: found["minimum"] is None and not found["rigid"] and found["formula"] == "Cu2",
        ),
        (
            "phonons copper.xyz --calculator emt --supercell 2 2 2 --path GX --points 5 --mesh 2 2 2 -o bands.h5",
            0,
            lambda found: found["certified"] and found["bands"]["certified"] == 5 and found["density"]["below"],
        ),
        (
            "phonons FORCE_CONSTANTS --cell phonopy_params.yaml --mesh 2 2 2 --units meV",
            0,
            lambda found: found["bands"] is None and found["error"] is None and found["calculator"] is None,
        ),
        (
            "modes several.xyz --frames 0: --calculator emt -o several.h5",
            3,
            lambda found: found["failed"] == [1] and found["done"] == 2 and found["structures"][2]["k"] == 0,
        ),
        (
            "modes several.xyz --frames 0::2 --calculator emt --temperature 300",
            0,
            lambda found: [one["thermochemistry"]["geometry"][0] for one in found["structures"]] == ["l", "m"],
        ),
    ]


@pytest.mark.parametrize("ranks", [1, 2])
def test_every_answer_is_as_the_schema_says(problems, ranks):
    words = [command.split(" -- ") for command, *_ in CASES]
    told = batch(problems, [" -- ".join([f"{ours} -q --json -", *theirs]) for ours, *theirs in words], ranks)
    wrong = []
    for (codes, out, err, _), (command, status, holds) in zip(told, CASES, strict=True):
        try:
            assert codes == [status], err
            assert holds(answers.parse(out)), out
        except AssertionError as error:
            wrong.append(f"{command}: {error}")
    assert not wrong, "\n".join(wrong)
    stored = {name: _stored(problems / name)["task"] for name in ("good.h5", "d.npz", "low.h5")}
    assert stored == {"good.h5": "eigs", "d.npz": "density", "low.h5": "inertia"}


def _stored(path):
    """Return the answer that a result file holds."""
    if path.suffix == ".npz":
        with np.load(path) as archive:
            return answers.parse(str(archive["json"]))
    h5py = pytest.importorskip("h5py")
    with h5py.File(path) as file:
        return answers.parse(file.attrs["json"])


def test_jobs_and_the_files_of_a_spool(place):
    """Each answer that `facts` returns is validated there."""
    assert facts(place, "submit job.toml --scheduler local --dry-run")["script"].startswith("#!")
    facts(place, "submit job.toml --scheduler local")
    answers.parse((place / "jobs" / "1" / "job.json").read_text(), "batch_job")
    assert ended(place, 1)["state"] == "done" and facts(place, "result 1")["task"] == "eigs"
    assert facts(place, "cancel 1")["jobs"][0]["cancelled"] is False
    spool = Spool.open_or_create(place / "spool")
    (place / "wrong.toml").write_text('command = "eigs"\ninput = "good.npz"\nk = 100\n')
    (place / "slow.toml").write_text(JOB.replace("n = 24", "n = 24, wait = 0.5") + '[submit]\nname = "slow"\n')
    assert "eigs" in facts(place, "submit job.toml --spool spool --dry-run")["job"]
    dropped = facts(place, "submit job.toml --spool spool")["id"]
    assert facts(place, f"cancel {dropped} --spool spool")["jobs"][0]["cancelled"]
    ids = [facts(place, f"submit {name} --spool spool --priority 3")["id"] for name in ("wrong.toml", "slow.toml")]
    assert facts(place, "status --spool spool")["service"] is None
    words = [sys.executable, "-m", "sparsehess", "serve", "spool", "--once", "--allow-code", "."]
    with subprocess.Popen(words, cwd=place, env=dict(os.environ)) as service:
        slow, deadline = spool.path / "running" / ids[1], time.monotonic() + 60
        while not (slow / "status.json").exists():
            assert time.monotonic() < deadline and service.poll() is None
            time.sleep(0.02)
        answers.valid(read_json(slow / "status.json"), "progress")
        answers.valid(read_json(spool.path / "service.json"), "service")
        answers.valid(read_json(spool.path / "group-0.json"), "group")
        running = facts(place, "status --spool spool")
        assert running["service"]["ranks"] == 1 and running["jobs"][2]["progress"]
        assert service.wait(60) == 0
    outcomes = {
        path.parent.name: answers.parse(path.read_text(), "outcome")
        for path in spool.path.glob("*/*/outcome.json")
    }
    assert [outcomes[one]["state"] for one in (dropped, *ids)] == ["cancelled", "failed", "done"]
    assert [job["exit"] for job in facts(place, "status --spool spool")["jobs"]] == [None, 2, 0]
    assert facts(place, f"result {ids[1]} --spool spool")["k"] == 3


def test_what_python_saves(tmp_path):
    with sh.eigs(np.diag(np.arange(1.0, 30.0)), 3) as spectrum:
        spectrum.save(tmp_path / "modes.npz")
    with np.load(tmp_path / "modes.npz") as archive:
        assert answers.parse(str(archive["json"]))["task"] == "spectrum"


@pytest.mark.parametrize("suffix", ["npz", "h5"])
def test_what_is_stored_of_colourings(tmp_path, suffix):
    path, pattern = tmp_path / f"colors.{suffix}", sh.Pattern.from_scipy(second_difference(9))
    save(path, pattern, sh.color(pattern))
    assert answers.parse(FORMATS[path.suffix].facts(path)[0], "stored_coloring")["count"] == 3


def test_the_schema_is_one_and_says_all_that_it_must():
    jsonschema.Draft202012Validator.check_schema(answers.SCHEMA)
    led_to = set(re.findall(r"#/\$defs/(\w+)", schema_text()))
    assert led_to | {"outcome", "stored_coloring", "batch_job"} == set(answers.SCHEMA["$defs"])
    for name, definition in answers.SCHEMA["$defs"].items():
        assert definition["description"], name
        if name == "versions":
            continue
        assert definition["additionalProperties"] is True, name
        fields = definition["properties"]
        for field, said in fields.items():
            place = f"{name}.{field}"
            assert said["description"].endswith("."), place
            assert ("x-when" in said) == (field not in definition["required"]), place
            nullable = "null" in str(said.get("type")) or {"type": "null"} in said.get("anyOf", ())
            assert nullable == ("x-null" in said), place


@pytest.mark.parametrize(("name", "fields"), [*PROMISED.items(), *PROMISED_OF_OTHERS.items()])
def test_what_was_promised_stays(name, fields):
    definition = answers.SCHEMA["$defs"][name]
    assert set(fields.split()) <= set(definition["properties"])
    if name in PROMISED:
        assert set(fields.split()) <= set(definition["required"])


@pytest.mark.parametrize(
    "changed",
    [{"k": "three"}, {"count": {}}, {"eigenvalues": [None]}, {"task": "fly"}, {"unheard": 1}, {"which": "best"}],
)
def test_a_validator_tells_what_is_wrong(problems, changed):
    found = command_facts(problems, "eigs good.npz -k 3")
    with pytest.raises(AssertionError):
        answers.valid({**found, **changed})
    lenient = jsonschema.Draft202012Validator(answers.SCHEMA)
    assert lenient.is_valid({**found, **changed}) == ("unheard" in changed)


def test_every_method_may_answer():
    told = [
        each["properties"]["method"] for each in answers.SCHEMA["$defs"].values() if "krylovschur" in str(each)
    ]
    enums = [each["enum"] for each in told if "krylovschur" in each.get("enum", ())]
    # Where everything couples there is a method of its own, which no flag names.
    assert enums and all(["auto", *enum] == [*METHODS, "davidson"] for enum in enums)


def test_the_schema_is_shown(problems):
    code, out, _, _ = run(problems, "info --schema")
    assert code == 0 and json.loads(out) == answers.SCHEMA
