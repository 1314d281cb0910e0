"""Thermochemistry of normal modes by ASE's classes, with what the error of the Hessian makes of it."""

from __future__ import annotations

from collections.abc import Iterable
from inspect import signature
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsehess.errors import EvaluationError, InputError, none_of, raised
from sparsehess.hosts.ase.boxes import as_molecule, is_alone
from sparsehess.hosts.ase.mode_parts import CUTOFFS, LOW_MODES, LowModes, Part
from sparsehess.hosts.ase.objective import free_coordinates
from sparsehess.hosts.ase.thermal_answer import Bounded, Thermochemistry
from sparsehess.hosts.ase.vibrations import NormalModes
from sparsehess.runtime import agreement, on_root
from sparsehess.runtime.validation import positive_number, reals, whole_number

if TYPE_CHECKING:
    from ase import Atoms

MODELS = ("ideal-gas", "harmonic")
IMAGINARY = ("refuse", "transition-state", "omit")
GEOMETRIES = {3: "monatomic", 5: "linear", 6: "nonlinear"}

# In K and Pa: beyond them there are no molecules, and numbers leave their range.
_TEMPERATURES, _PRESSURES = (1e-6, 1e9), (1e-30, 1e30)

# Force on an atom, in eV/Å, above which atoms are told not to be at rest.
_AT_REST = 0.01

# Error of a Hessian, relative, above which error bars of eigenvalues are coarse themselves.
_COARSE = 2e-3

# Rounding that an eigenvalue must exceed not to be zero, and that a sum may have.
_ROUNDINGS = 8.0

_EPS = float(np.finfo(float).eps)

_IN_A_BOX = "compute the modes with molecule=True, on a command line --molecule,"

# ħ² / (2 k) in K amu Å², for temperatures of rotations.
_ROTATION = 24.2544


def thermochemistry(
    modes: NormalModes,
    temperature: float = 298.15,
    pressure: float = 101325.0,
    *,
    model: str | None = None,
    low_modes: str = "harmonic",
    cutoff: float | None = None,
    symmetry_number: int | None = None,
    spin: float | None = None,
    geometry: str | None = None,
    imaginary: str = "refuse",
    energy: float | None = None,
) -> Thermochemistry:
    """Return zero-point energy, enthalpy, entropy and Gibbs energy, with error bars from those of the modes.

    Collective. The values are those of ASE's `ase.thermochemistry`, with ASE's constants. The bars are what the
    error bars of all frequencies together allow: each mode is taken at both ends of its own. So they are bounds
    where each frequency is within its bar. Those are estimates: two standard deviations of what noise of forces
    makes of an eigenvalue, to first order, and what finite steps leave out (`ErrorBars`). What the calculator has
    wrong, forces that are left, and anharmonicity are not in them.

    Parameters
    ----------
    modes
        All vibrations, of `normal_modes`.
    temperature
        In K.
    pressure
        In Pa, of the ideal gas.
    model
        `ideal-gas`: translations, rotations of a rigid rotor, spin, and vibrations (McQuarrie, "Statistical
        Mechanics", 1976, chapters 5 to 8). `harmonic`: the modes alone, as of an adsorbate. Default the first
        where nothing is periodic or held, or `molecule` was given to `normal_modes`. A molecule in a box without
        that is refused, unless the model is said.
    low_modes
        `harmonic`; `quasi-harmonic`, where lower modes are raised to the cut-off (Ribeiro, Marenich, Cramer and
        Truhlar, J. Phys. Chem. B 115, 14556, 2011); or `msrrho`, where their entropy goes over to that of a rotor
        (Grimme, Chem. Eur. J. 18, 9955, 2012, equations 4 to 8). By the last two it is finite also where an error
        bar reaches zero.
    cutoff
        In cm⁻¹; default those of ASE, 100 and 35.
    symmetry_number, spin
        Of the ideal gas, such as 2 for water and 1 for a triplet; default 1 and 0, and the notes tell.
    geometry
        `linear`, `nonlinear` or `monatomic`, where it must be so; default as rotations were projected out.
    imaginary
        `refuse` them; `transition-state`, which has one, and it is left out; or `omit` all. Notes tell which.
    energy
        Potential energy in eV; default the calculator's.

    Returns
    -------
    Thermochemistry

    Raises
    ------
    InputError
        Modes are missing, closed or imaginary; an ideal gas is periodic, held, or has rigid motions among its
        modes; a parameter cannot be used.
    StackError
        The ASE that is installed has no class for the low modes.
    EvaluationError
        The calculator raised.

    Examples
    --------
    >>> from ase.build import molecule
    >>> from ase.calculators.emt import EMT
    >>> from ase.optimize import BFGS
    >>> import sparsehess as sh
    >>> atoms = molecule("N2", calculator=EMT())
    >>> found = BFGS(atoms, logfile=None).run(fmax=1e-4)
    >>> with sh.normal_modes(atoms) as modes:
    ...     gas = sh.thermochemistry(modes, 298.15, symmetry_number=2, spin=0)
    >>> gas.geometry, round(gas.entropy.value * 1e3, 2), gas.gibbs.error < 1e-6
    ('linear', 1.97, True)
    """
    if not isinstance(modes, NormalModes):
        raise InputError(f"thermochemistry takes what normal_modes returns, not {type(modes).__name__}")
    comm = modes.hessian.objective.comm
    with agreement(comm):
        _check(
            temperature,
            pressure,
            model,
            low_modes,
            cutoff,
            symmetry_number,
            spin,
            geometry,
            imaginary,
            energy,
        )
        cutoff = CUTOFFS.get(low_modes) if cutoff is None else float(cutoff)
        model = _model(modes, model)
        notes: list[str] = []
        _require_all(modes)
        used = _used(modes, imaginary, notes)
        gas = _gas(modes, geometry, symmetry_number, spin, notes) if model == "ideal-gas" else None
        if gas is None:
            _refuse_for_harmonic(symmetry_number, spin, geometry)
            if modes.rigid:
                notes.append(f"what {', '.join(modes.rigid)} would add is not in it")
        atoms = as_molecule(modes.atoms) if modes.molecule else modes.atoms.copy()
        low = LowModes(low_modes, cutoff or 0.0, atoms, temperature)
    if modes.spectrum.errors is None:
        notes.append("the error of the Hessian is not known: bars are those of rounding alone")
    elif not modes.hessian.error <= _COARSE:
        notes.append(
            f"the Hessian is off by about {modes.hessian.error:.1g} of itself: error bars of frequencies are "
            "coarse then, and may be too short; forces with more digits have better ones"
        )
    if not modes.force_max <= _AT_REST:
        notes.append(
            f"forces up to {modes.force_max:.2g} eV/Å are left: what relaxing changes of energy, shape and "
            "frequencies is not in the bars"
        )
    if abs(modes.resisted) > np.abs(modes.frequencies).min(initial=np.inf):
        notes.append("not at rest: forces give a rigid motion more than the lowest vibration has, relax first")
    energy = on_root(comm, _energy, modes.atoms) if energy is None else float(energy)
    values = modes.spectrum.eigenvalues
    ends = _ends(modes)
    quanta = _quanta(np.stack([ends[:, 0], values, ends[:, 1]]))
    parts = low.parts(*quanta[:, used])
    rigid = _rigid(atoms, gas, temperature, pressure, notes)
    still = energy + rigid[0]
    free = still - temperature * rigid[1]
    per_cm = _per_cm()
    flat = np.flatnonzero(used)[~np.isfinite(parts.entropy.high)]
    return Thermochemistry(
        formula=atoms.get_chemical_formula(),
        model=model,
        temperature=temperature,
        pressure=None if gas is None else pressure,
        low_modes=low_modes,
        cutoff=cutoff,
        geometry=None if gas is None else gas["geometry"],
        shape=modes.shape,
        symmetry_number=None if gas is None else gas["symmetrynumber"],
        spin=None if gas is None else gas["spin"],
        energy=energy,
        used=used,
        frequencies=quanta[1] / per_cm,
        ends=quanta[[0, 2]].T / per_cm,
        unbounded=tuple(flat.tolist()),
        notes=tuple(notes),
        zero_point=_sum(0.0, parts.zero_point, used),
        internal_energy=_sum(still, parts.energy, used),
        enthalpy=None if gas is None else _sum(still + low.thermal, parts.energy, used),
        entropy=_sum(rigid[1], parts.entropy, used),
        helmholtz=_sum(free, parts.free, used),
        gibbs=None if gas is None else _sum(free + low.thermal, parts.free, used),
    )


def check_conditions(**given: Any) -> None:
    """Refuse arguments of `thermochemistry` that no modes can be taken with; those not given have its defaults.

    Not collective.

    Raises
    ------
    InputError
        One of them cannot be used.
    """
    try:
        bound = signature(thermochemistry).bind(None, **given)
    except TypeError as error:
        raise InputError(f"thermochemistry {error}") from error
    bound.apply_defaults()
    _check(**{name: value for name, value in bound.arguments.items() if name != "modes"})


def _check(
    temperature: float,
    pressure: float,
    model: str | None,
    low_modes: str,
    cutoff: float | None,
    symmetry_number: int | None,
    spin: float | None,
    geometry: str | None,
    imaginary: str,
    energy: float | None,
) -> None:
    """Refuse what no modes can be taken with. Not collective."""
    for name, value, ends in (("temperature", temperature, _TEMPERATURES), ("pressure", pressure, _PRESSURES)):
        if not ends[0] <= positive_number(value, name) <= ends[1]:
            raise InputError(f"{name}={value:g}: give one from {ends[0]:g} to {ends[1]:g}")
    words: tuple[tuple[str, str, Iterable[str]], ...] = (
        ("model", "ideal-gas" if model is None else model, MODELS),
        ("low_modes", low_modes, LOW_MODES),
        ("geometry", "linear" if geometry is None else geometry, GEOMETRIES.values()),
        ("imaginary", imaginary, IMAGINARY),
    )
    for what, word, known in words:
        if word not in known:
            raise none_of(f"{what} {word!r}", word, known)
    if cutoff is not None:
        positive_number(cutoff, "cutoff")
        if low_modes == "harmonic":
            raise InputError("a cut-off is for low modes that are 'quasi-harmonic' or 'msrrho'")
    if symmetry_number is not None:
        whole_number(symmetry_number, "symmetry_number", 1)
    if spin is not None:
        twice = 2 * reals(spin, "spin")
        if twice.ndim or not (0 <= twice < np.inf and twice == np.round(twice)):
            raise InputError(f"spin={spin} is not 0, 0.5, 1 and so on")
    if energy is not None and (reals(energy, "energy").ndim or not np.isfinite(reals(energy, "energy"))):
        raise InputError(f"energy={energy} is not finite, or more than one number")
    if model == "harmonic":
        _refuse_for_harmonic(symmetry_number, spin, geometry)


def _refuse_for_harmonic(symmetry_number: int | None, spin: float | None, geometry: str | None) -> None:
    given = {"symmetry_number": symmetry_number, "spin": spin, "geometry": geometry}
    for name in (name for name, value in given.items() if value is not None):
        raise InputError(f"{name} is for model 'ideal-gas', and this one is harmonic")


def _model(modes: NormalModes, model: str | None) -> str:
    """Return the model, and refuse an ideal gas of what is none. Not collective."""
    atoms, no_gas = modes.atoms, ""
    if atoms.get_pbc().any() and not modes.molecule:
        no_gas = f"these atoms are periodic: {_IN_A_BOX} if they are a molecule"
        if model is None and free_coordinates(atoms).all() and is_alone(atoms):
            raise InputError(
                f"these atoms are periodic, and a molecule in a box as it seems: {_IN_A_BOX} for an ideal gas, or "
                "take model='harmonic', on a command line --thermo-model harmonic, for these modes alone"
            )
    elif not free_coordinates(atoms).all():
        no_gas = "some of these atoms are held"
    elif len(modes.rigid) not in GEOMETRIES and model != "harmonic":
        raise InputError("no ideal gas: rigid motions are among these modes, compute them with project=True")
    if model == "ideal-gas" and no_gas:
        raise InputError(f"no ideal gas: {no_gas}")
    return model or ("harmonic" if no_gas else "ideal-gas")


def _require_all(modes: NormalModes) -> None:
    """Refuse modes of which some are missing. Not collective."""
    there = modes.hessian.objective.n - len(modes.rigid)
    have = len(modes.frequencies)
    if have != there:
        raise InputError(f"thermochemistry takes all vibrations: here are {have} of {there}, use k={there}")
    if len(modes.spectrum.vectors) < have:
        raise InputError("the modes are closed: take thermochemistry before")


def _used(modes: NormalModes, imaginary: str, notes: list[str]) -> np.ndarray:
    """Return (k,) which modes are taken. Not collective."""
    numbers = np.flatnonzero(modes.imaginary)
    named = "imaginary modes of " + ", ".join(f"{-one:.4g}i" for one in modes.frequencies[numbers]) + " cm^-1"
    if imaginary == "transition-state" and len(numbers) != 1:
        have = f"here are {named}" if len(numbers) else "here is none"
        raise InputError(f"a transition state has one imaginary mode, and {have}")
    if len(numbers) and imaginary == "refuse":
        raise InputError(
            f"no thermochemistry at what is no minimum, with {named}: relax further, or take imaginary="
            "'transition-state', which leaves the one it has out, or 'omit'"
        )
    if len(numbers):
        notes.append(f"left out: {named}")
    return ~modes.imaginary


def _gas(
    modes: NormalModes, geometry: str | None, sigma: int | None, spin: float | None, notes: list[str]
) -> dict[str, Any]:
    """Return what ASE's ideal gas takes beside vibrations. Not collective."""
    here = GEOMETRIES[len(modes.rigid)]
    if geometry not in (None, here):
        raise InputError(f"geometry {geometry!r}, but the rotations that were projected out say {modes.shape}")
    if sigma is None and here != "monatomic":
        notes.append("symmetry number 1 is taken; another takes k ln of it off the entropy")
    if spin is None:
        notes.append("spin 0 is taken, all electrons paired")
    return {"geometry": here, "symmetrynumber": int(sigma or 1), "spin": float(spin or 0.0)}


def _energy(atoms: Atoms) -> float:
    """Return the potential energy. Not collective."""
    name = type(atoms.calc).__name__
    try:
        energy = float(atoms.get_potential_energy())
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # whatever a calculator raises
        raise EvaluationError(f"{raised(f'the energy of {name}', error)}; energy=... gives one") from error
    if not np.isfinite(energy):
        raise InputError(f"the energy of {name} is {energy}: give one, energy=...")
    return energy


def _ends(modes: NormalModes) -> np.ndarray:
    """Return (k, 2) the ends of the error bars of the eigenvalues.

    Not collective. Beside the error of the Hessian they hold what the solver has left.
    """
    spectrum = modes.spectrum
    values, known = spectrum.eigenvalues, 0.0 if spectrum.errors is None else spectrum.errors
    bars = spectrum.total_errors + np.maximum(_ROUNDINGS * spectrum.roundings - known, 0.0)
    # What is zero to its accuracy has zero within its bar.
    bars = np.where(modes.zero, np.maximum(bars, 2 * np.abs(values)), bars)
    return np.stack([values - bars, values + bars], axis=1)


def _quanta(eigenvalues: np.ndarray) -> np.ndarray:
    """Return quanta ħω in eV of eigenvalues in eV/Å²/amu, by ASE's constants; of imaginary modes negative ones."""
    from ase import units

    per = units._hbar * units.m / np.sqrt(units._e * units._amu)
    return np.asarray(per * np.sign(eigenvalues) * np.sqrt(np.abs(eigenvalues)))


def _per_cm() -> float:
    from ase import units

    return float(units.invcm)


def _rigid(
    atoms: Atoms, gas: dict[str, Any] | None, temperature: float, pressure: float, notes: list[str]
) -> tuple[float, float]:
    """Return energy and entropy of what does not vibrate, by ASE's ideal gas without modes. Not collective."""
    if gas is None:
        return 0.0, 0.0
    from ase.thermochemistry import IdealGasThermo

    thermo = IdealGasThermo([], atoms=atoms, vib_selection="all", **gas)
    inertia = np.array([]) if gas["geometry"] == "monatomic" else np.sort(atoms.get_moments_of_inertia())
    inertia = inertia[1:] if gas["geometry"] == "linear" else inertia
    with np.errstate(divide="ignore"):
        warmest = float((_ROTATION / inertia).max(initial=0.0))
    if not warmest <= temperature:
        notes.append(
            f"a rotation is quantised: ħ²/2Ik is {warmest:.3g} K, above the temperature, and energy and entropy "
            "of the rigid rotor are those of classical mechanics"
        )
    energy = thermo.get_internal_energy(temperature, verbose=False)
    return float(energy), float(thermo.get_entropy(temperature, pressure, verbose=False))


def _sum(rigid: float, part: Part, used: np.ndarray) -> Bounded:
    """Return the sum over modes and what does not vibrate. Not collective."""
    widths = np.zeros(len(used))
    widths[used] = part.high - part.low
    slack = _ROUNDINGS * _EPS * (abs(rigid) + float(np.abs(part.value).sum()))
    slack = slack if np.isfinite(slack) else 0.0
    low, high = rigid + float(part.low.sum()) - slack, rigid + float(part.high.sum()) + slack
    return Bounded(rigid + float(part.value.sum()), low, high, widths)
