"""The commands on atoms: one entry for each."""

from __future__ import annotations

from sparsehess.commands.arguments import Command, Example, Flag, Group
from sparsehess.commands.command_groups import LONG_RUNS_GROUP, SPECTRA
from sparsehess.commands.flag_groups import ANSWER_FLAGS, PATIENCE_FLAG, SEED_FLAG

_ARGUMENTS_FLAG = Flag(
    "--set",
    metavar="KEY=VALUE",
    action="append",
    default=[],
    dest="settings",
    help="an argument of the calculator; may be repeated",
)
_REACH_FLAG = Flag(
    "--reach",
    metavar="REACH",
    help="how far a coupling reaches: pair, many-body, or a number of cut-offs (default: the calculator's, and "
    "many-body beside --cutoff)",
)

ATOMS = (
    Command(
        "modes",
        "normal modes of the atoms of a structure file, by any calculator of ASE, with error bars",
        SPECTRA,
        "sparsehess.commands.modes:run_modes",
        (
            Group(
                "input",
                Flag(
                    "input",
                    metavar="INPUT",
                    help="atoms in any format that ASE reads: .xyz, .traj, .cif, POSCAR, …",
                ),
                Flag(
                    "--calculator",
                    metavar="NAME",
                    required=True,
                    help="a calculator of ASE by its name, such as emt, lj, tblite or gpaw, or with arguments, "
                    "tblite:method=GFN2-xTB; or file.py:name or package.module:name of one, or of a function",
                ),
                _ARGUMENTS_FLAG,
                Flag(
                    "--frames",
                    metavar="N[:M[:STEP]]",
                    default="-1",
                    help="of a file of several structures: one of them, from 0, negative from the end (default "
                    "-1, the last); or a slice, such as 0: for all (mpiexec takes a lone : for its own), 0:100:10 "
                    "or =-20:, each of which is taken by itself, shared out over ranks",
                ),
                PATIENCE_FLAG,
            ),
            Group(
                "what to compute",
                Flag(
                    "-k",
                    type=int,
                    metavar="K",
                    help="how many of the lowest (default: all up to 1,000 coordinates, else 100)",
                ),
                Flag(
                    "--units",
                    choices=["cm^-1", "meV", "THz", "Hz", "rad/s"],
                    default="cm^-1",
                    help="of frequencies (default cm^-1)",
                ),
                Flag(
                    "--no-project",
                    action="store_true",
                    help="leave translations and rotations among the modes, with what the Hessian gives them",
                ),
                Flag(
                    "--molecule",
                    action="store_true",
                    help="atoms in a cell that repeats are a molecule in a box: project out its rotations too",
                ),
                Flag(
                    "--force-limit",
                    type=float,
                    metavar="F",
                    default=0.01,
                    help="force on an atom, in eV/Å, above which the structure is said not to be at rest "
                    "(default 0.01)",
                ),
                Flag(
                    "--tol",
                    type=float,
                    metavar="TOL",
                    default=1e-8,
                    help="backward error that each mode must reach (default 1e-8)",
                ),
            ),
            Group(
                "derivatives",
                Flag(
                    "--cutoff",
                    type=float,
                    metavar="R",
                    help="distance in Å past which no two atoms interact; inf for none (default the calculator's; "
                    "where that is not known, none up to 1,000 coordinates)",
                ),
                _REACH_FLAG,
                Flag(
                    "--differences",
                    action="store_true",
                    help="take differences of forces even where the calculator has second derivatives itself",
                ),
            ),
            Group(
                "thermochemistry",
                Flag(
                    "--temperature",
                    type=float,
                    metavar="T",
                    help="energies and entropies at T kelvin with error bars, of all vibrations",
                ),
                Flag("--pressure", type=float, metavar="P", help="of the ideal gas, in Pa (default 101325)"),
                Flag(
                    "--thermo-model",
                    choices=["ideal-gas", "harmonic"],
                    help="a molecule of an ideal gas, or its vibrations alone (default the first where nothing is "
                    "periodic or held, or with --molecule)",
                ),
                Flag(
                    "--low-modes",
                    choices=["harmonic", "quasi-harmonic", "msrrho"],
                    help="low modes as all others, raised to the cut-off, or with entropies towards a rotor's "
                    "(default harmonic)",
                ),
                Flag(
                    "--low-cutoff",
                    type=float,
                    metavar="W",
                    help="frequency in cm^-1 below which they are (default 100, of msrrho 35)",
                ),
                Flag(
                    "--symmetry-number",
                    type=int,
                    metavar="S",
                    help="in how many ways rotations bring the molecule onto itself: 2 for water (default 1)",
                ),
                Flag("--spin", type=float, metavar="S", help="0.5 for each unpaired electron (default 0)"),
                Flag(
                    "--geometry",
                    choices=["linear", "nonlinear", "monatomic"],
                    help="refuse another than this (default whichever is found)",
                ),
                Flag(
                    "--imaginary",
                    choices=["refuse", "transition-state", "omit"],
                    help="refuse imaginary modes, leave out the one of a transition state, or all of them "
                    "(default refuse)",
                ),
            ),
            LONG_RUNS_GROUP,
            Group(
                "output",
                Flag(
                    "-o",
                    "--out",
                    metavar="FILE",
                    help="write the result, .h5 or .npz: modes, atoms, and which coordinates are free",
                ),
                Flag(
                    "--modes",
                    metavar="FILE",
                    help="write modes for viewers: .xyz or .extxyz (OVITO, Jmol), .nmd (VMD), .molden, or .traj "
                    "(ASE), one file for each mode",
                ),
                Flag(
                    "--amplitude",
                    type=float,
                    metavar="A",
                    help="how far the atom that moves most swings in a .traj, in Å (default 0.3)",
                ),
                SEED_FLAG,
                *ANSWER_FLAGS,
            ),
        ),
        (
            Example(
                "all vibrations of a cluster in meV, with their shapes",
                "sparsehess modes cluster.xyz --calculator emt --units meV --modes cu.molden -o cu.h5",
            ),
            Example(
                "each structure of a file by itself, a calculator with arguments, saved on the way",
                "sparsehess modes cluster.xyz --frames 0: --calculator lj:sigma=2.3,epsilon=0.4,rc=8 --checkpoint "
                "saved -o all.h5",
            ),
            Example(
                "Gibbs energy with its error bar",
                "sparsehess modes cluster.xyz --calculator emt --temperature 298.15 --symmetry-number 12",
            ),
        ),
        needs_real=True,
    ),
    Command(
        "phonons",
        "phonons of a crystal: bands along a path, density of states, every wave vector certified",
        SPECTRA,
        "sparsehess.commands.phonons:run_phonons",
        (
            Group(
                "input",
                Flag(
                    "input",
                    metavar="INPUT",
                    help="phonopy's FORCE_CONSTANTS, force_constants.hdf5, phonopy_params.yaml or FORCE_SETS; or, "
                    "with --calculator, the atoms of a primitive cell in any format that ASE reads",
                ),
                Flag(
                    "--cell",
                    metavar="FILE.yaml",
                    help="phonopy_params.yaml or phonopy_disp.yaml: the cells of force constants of another",
                ),
                Flag("--born", metavar="FILE", help="phonopy's BORN: Born charges and dielectric constant"),
                Flag(
                    "--calculator",
                    metavar="NAME",
                    help="a calculator of ASE by its name, such as emt or lj, or with arguments, lj:sigma=3.4; "
                    "or file.py:name or package.module:name of one, or of a function",
                ),
                _ARGUMENTS_FLAG,
                Flag(
                    "--frame",
                    type=int,
                    metavar="N",
                    default=-1,
                    help="of a file of several structures, from 0; negative from the end (default -1, the last)",
                ),
                Flag(
                    "--supercell",
                    type=int,
                    nargs=3,
                    metavar=("N1", "N2", "N3"),
                    help="how often the cell is repeated along each of its vectors, with --calculator",
                ),
                Flag(
                    "--cutoff",
                    type=float,
                    metavar="R",
                    help="distance in Å past which no two atoms interact; inf for none (default the calculator's; "
                    "where that is not known, none)",
                ),
                _REACH_FLAG,
                PATIENCE_FLAG,
            ),
            Group(
                "what to compute",
                Flag(
                    "--path",
                    metavar="POINTS",
                    help="bands between special points as ASE names them, such as GXWKGL, or GX,KL with a jump "
                    "(default ASE's own; none where there is --mesh)",
                ),
                Flag(
                    "--points",
                    type=int,
                    metavar="N",
                    help="wave vectors along the path, about (default 200)",
                ),
                Flag(
                    "--mesh",
                    type=int,
                    nargs=3,
                    metavar=("M1", "M2", "M3"),
                    help="density of states on a mesh of so many wave vectors along each reciprocal vector",
                ),
                Flag(
                    "--width",
                    type=float,
                    metavar="W",
                    help="standard deviation of the Gaussian of each mode in the density, in --units (default a "
                    "hundredth of their range)",
                ),
                Flag(
                    "--units",
                    choices=["THz", "cm^-1", "meV"],
                    default="THz",
                    help="of frequencies (default THz)",
                ),
                Flag(
                    "--no-sum-rule",
                    action="store_true",
                    help="take the force constants as they are, not the nearest ones that are symmetric and "
                    "resist no translation",
                ),
                Flag(
                    "--no-polar",
                    action="store_true",
                    help="leave out the field of polar crystals, with Born charges",
                ),
                Flag(
                    "--nac",
                    choices=["gonze", "wang"],
                    help="how that field is added: dipoles after Gonze and Lee, or the sum of Wang et al. "
                    "(default gonze, as phonopy's)",
                ),
            ),
            Group(
                "output",
                Flag(
                    "-o",
                    "--out",
                    metavar="FILE",
                    help="write the result, .h5 or .npz: wave vectors, frequencies, velocities, density, cells",
                ),
                Flag("--plot", metavar="FILE.png", help="draw bands and density"),
                SEED_FLAG,
                *ANSWER_FLAGS,
            ),
        ),
        (
            Example(
                "copper by effective medium theory, in a supercell of 27 cells",
                "sparsehess phonons copper.xyz --calculator emt --supercell 3 3 3 --path GXWKGL",
            ),
            Example(
                "with a density of states, and a picture",
                "sparsehess phonons copper.xyz --calculator emt --supercell 2 2 2 --path GX --mesh 8 8 8 --plot "
                "bands.png",
            ),
            Example(
                "of force constants that phonopy has written",
                "sparsehess phonons FORCE_CONSTANTS --cell phonopy_params.yaml --path GXWKGL --units cm^-1 -o "
                "bands.h5",
            ),
        ),
        needs_real=True,
    ),
)
