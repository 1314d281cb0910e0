"""The papers behind our methods, which PETSc's `-citations` names beside its own and SLEPc's.

A method that runs says so with `cite`; PETSc's first rank prints, when it ends, the papers of what has run there.
A new method of a paper is a row in `METHODS`.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass


@dataclass(frozen=True)
class Paper:
    """What BibTeX says of a paper.

    Attributes
    ----------
    author, title
        As BibTeX writes them.
    year
        It appeared.
    place
        Journal, volume and the like: BibTeX's fields by name.
    doi
        Digital object identifier, without an address.
    kind
        BibTeX's kind of entry.
    """

    author: str
    title: str
    year: int
    place: dict[str, str]
    doi: str
    kind: str = "Article"

    def bibtex(self, key: str) -> str:
        """Return the entry of this key. Not collective."""
        fields = {
            "Author": self.author,
            "Title": self.title,
            **{name.capitalize(): text for name, text in self.place.items()},
            "Year": str(self.year),
            "DOI": self.doi,
        }
        lines = ",\n".join(f"  {name} = {{{text}}}" for name, text in fields.items())
        return f"@{self.kind}{{{key},\n{lines}\n}}\n"


def _journal(name: str, volume: int, number: str, pages: str) -> dict[str, str]:
    return {"journal": name, "volume": str(volume), "number": number, "pages": pages}


PAPERS = {
    # Colourings and what is recovered with them.
    "CurtisPowellReid1974": Paper(
        "A. R. Curtis and M. J. D. Powell and J. K. Reid",
        "On the Estimation of Sparse {Jacobian} Matrices",
        1974,
        _journal("IMA Journal of Applied Mathematics", 13, "1", "117--119"),
        "10.1093/imamat/13.1.117",
    ),
    "PowellToint1979": Paper(
        "M. J. D. Powell and Ph. L. Toint",
        "On the Estimation of Sparse {Hessian} Matrices",
        1979,
        _journal("SIAM Journal on Numerical Analysis", 16, "6", "1060--1074"),
        "10.1137/0716078",
    ),
    "ColemanMore1983": Paper(
        r"Thomas F. Coleman and Jorge J. Mor{\'e}",
        "Estimation of Sparse {Jacobian} Matrices and Graph Coloring Problems",
        1983,
        _journal("SIAM Journal on Numerical Analysis", 20, "1", "187--209"),
        "10.1137/0720013",
    ),
    "ColemanMore1984": Paper(
        r"Thomas F. Coleman and Jorge J. Mor{\'e}",
        "Estimation of Sparse {Hessian} Matrices and Graph Coloring Problems",
        1984,
        _journal("Mathematical Programming", 28, "3", "243--270"),
        "10.1007/BF02612334",
    ),
    "GoldfarbToint1984": Paper(
        "D. Goldfarb and Ph. L. Toint",
        "Optimal Estimation of {Jacobian} and {Hessian} Matrices that Arise in Finite Difference Calculations",
        1984,
        _journal("Mathematics of Computation", 43, "167", "69--88"),
        "10.1090/S0025-5718-1984-0744925-5",
    ),
    "ColemanCai1986": Paper(
        "Thomas F. Coleman and Jin-Yi Cai",
        "The Cyclic Coloring Problem and Estimation of Sparse {Hessian} Matrices",
        1986,
        _journal("SIAM Journal on Algebraic and Discrete Methods", 7, "2", "221--235"),
        "10.1137/0607026",
    ),
    "GebremedhinMannePothen2005": Paper(
        "Assefaw H. Gebremedhin and Fredrik Manne and Alex Pothen",
        "What Color Is Your {Jacobian}? Graph Coloring for Computing Derivatives",
        2005,
        _journal("SIAM Review", 47, "4", "629--705"),
        "10.1137/S0036144504444711",
    ),
    "GebremedhinTarafdarMannePothen2007": Paper(
        "Assefaw H. Gebremedhin and Arijit Tarafdar and Fredrik Manne and Alex Pothen",
        "New Acyclic and Star Coloring Algorithms with Application to Computing {Hessians}",
        2007,
        _journal("SIAM Journal on Scientific Computing", 29, "3", "1042--1072"),
        "10.1137/050639879",
    ),
    # Patterns and derivatives.
    "Dorfman1943": Paper(
        "Robert Dorfman",
        "The Detection of Defective Members of Large Populations",
        1943,
        _journal("The Annals of Mathematical Statistics", 14, "4", "436--440"),
        "10.1214/aoms/1177731363",
    ),
    "GriewankToint1982": Paper(
        "A. Griewank and Ph. L. Toint",
        "Partitioned Variable Metric Updates for Large Structured Optimization Problems",
        1982,
        _journal("Numerische Mathematik", 39, "1", "119--137"),
        "10.1007/BF01399316",
    ),
    "MoreWild2011": Paper(
        r"Jorge J. Mor{\'e} and Stefan M. Wild",
        "Estimating Computational Noise",
        2011,
        _journal("SIAM Journal on Scientific Computing", 33, "3", "1292--1314"),
        "10.1137/100786125",
    ),
    "GowerMello2012": Paper(
        "R. M. Gower and M. P. Mello",
        "A New Framework for the Computation of {Hessians}",
        2012,
        _journal("Optimization Methods and Software", 27, "2", "251--273"),
        "10.1080/10556788.2011.580098",
    ),
    # Eigenvalues and their counts.
    "Sylvester1852": Paper(
        "J. J. Sylvester",
        "A Demonstration of the Theorem that Every Homogeneous Quadratic Polynomial is Reducible by Real "
        "Orthogonal Substitutions to the Form of a Sum of Positive and Negative Squares",
        1852,
        _journal("Philosophical Magazine, Series 4", 4, "23", "138--142"),
        "10.1080/14786445208647087",
    ),
    "GrimesLewisSimon1994": Paper(
        "Roger G. Grimes and John G. Lewis and Horst D. Simon",
        "A Shifted Block {Lanczos} Algorithm for Solving Sparse Symmetric Generalized Eigenproblems",
        1994,
        _journal("SIAM Journal on Matrix Analysis and Applications", 15, "1", "228--272"),
        "10.1137/S0895479888151111",
    ),
    "Parlett1998": Paper(
        "Beresford N. Parlett",
        "The Symmetric Eigenvalue Problem",
        1998,
        {"publisher": "SIAM", "series": "Classics in Applied Mathematics"},
        "10.1137/1.9781611971163",
        "Book",
    ),
    "Knyazev2001": Paper(
        "Andrew V. Knyazev",
        "Toward the Optimal Preconditioned Eigensolver: Locally Optimal Block Preconditioned Conjugate Gradient "
        "Method",
        2001,
        _journal("SIAM Journal on Scientific Computing", 23, "2", "517--541"),
        "10.1137/S1064827500366124",
    ),
    "HetmaniukLehoucq2006": Paper(
        "U. Hetmaniuk and R. Lehoucq",
        "Basis Selection in {LOBPCG}",
        2006,
        _journal("Journal of Computational Physics", 218, "1", "324--332"),
        "10.1016/j.jcp.2006.02.007",
    ),
    "Polizzi2009": Paper(
        "Eric Polizzi",
        "Density-Matrix-Based Algorithm for Solving Eigenvalue Problems",
        2009,
        _journal("Physical Review B", 79, "11", "115112"),
        "10.1103/PhysRevB.79.115112",
    ),
    "TangPolizzi2014": Paper(
        "Ping Tak Peter Tang and Eric Polizzi",
        "{FEAST} as a Subspace Iteration Eigensolver Accelerated by Approximate Spectral Projection",
        2014,
        _journal("SIAM Journal on Matrix Analysis and Applications", 35, "2", "354--390"),
        "10.1137/13090866X",
    ),
    "GavinPolizzi2018": Paper(
        "Brendan Gavin and Eric Polizzi",
        "{Krylov} Eigenvalue Strategy Using the {FEAST} Algorithm with Inexact System Solves",
        2018,
        _journal("Numerical Linear Algebra with Applications", 25, "5", "e2188"),
        "10.1002/nla.2188",
    ),
    # Estimates from products with random vectors.
    "GolubWelsch1969": Paper(
        "Gene H. Golub and John H. Welsch",
        "Calculation of {Gauss} Quadrature Rules",
        1969,
        _journal("Mathematics of Computation", 23, "106", "221--230"),
        "10.1090/S0025-5718-69-99647-1",
    ),
    "Simon1984": Paper(
        "Horst D. Simon",
        "The {Lanczos} Algorithm with Partial Reorthogonalization",
        1984,
        _journal("Mathematics of Computation", 42, "165", "115--142"),
        "10.1090/S0025-5718-1984-0725988-X",
    ),
    "Hutchinson1990": Paper(
        "M. F. Hutchinson",
        "A Stochastic Estimator of the Trace of the Influence Matrix for {Laplacian} Smoothing Splines",
        1990,
        _journal("Communications in Statistics: Simulation and Computation", 19, "2", "433--450"),
        "10.1080/03610919008812866",
    ),
    "Davidson1975": Paper(
        "E. R. Davidson",
        "The Iterative Calculation of a Few of the Lowest Eigenvalues and Corresponding Eigenvectors of Large "
        "Real-Symmetric Matrices",
        1975,
        _journal("Journal of Computational Physics", 17, "1", "87--94"),
        "10.1016/0021-9991(75)90065-0",
    ),
    "SleijpenVanDerVorst1996": Paper(
        "Gerard L. G. Sleijpen and Henk A. {Van der Vorst}",
        "A {Jacobi-Davidson} Iteration Method for Linear Eigenvalue Problems",
        1996,
        _journal("SIAM Journal on Matrix Analysis and Applications", 17, "2", "401--425"),
        "10.1137/S0895479894270427",
    ),
    "WeisseWelleinAlvermannFehske2006": Paper(
        r"Alexander Wei{\ss}e and Gerhard Wellein and Andreas Alvermann and Holger Fehske",
        "The Kernel Polynomial Method",
        2006,
        _journal("Reviews of Modern Physics", 78, "1", "275--306"),
        "10.1103/RevModPhys.78.275",
    ),
    "BekasKokiopoulouSaad2007": Paper(
        "C. Bekas and E. Kokiopoulou and Y. Saad",
        "An Estimator for the Diagonal of a Matrix",
        2007,
        _journal("Applied Numerical Mathematics", 57, "11--12", "1214--1229"),
        "10.1016/j.apnum.2007.01.003",
    ),
    "TangSaad2012": Paper(
        "Jok M. Tang and Yousef Saad",
        "A Probing Method for Computing the Diagonal of a Matrix Inverse",
        2012,
        _journal("Numerical Linear Algebra with Applications", 19, "3", "485--501"),
        "10.1002/nla.779",
    ),
    "DiNapoliPolizziSaad2016": Paper(
        "Edoardo {Di Napoli} and Eric Polizzi and Yousef Saad",
        "Efficient Estimation of Eigenvalue Counts in an Interval",
        2016,
        _journal("Numerical Linear Algebra with Applications", 23, "4", "674--692"),
        "10.1002/nla.2048",
    ),
    "LinSaadYang2016": Paper(
        "Lin Lin and Yousef Saad and Chao Yang",
        "Approximating Spectral Densities of Large Matrices",
        2016,
        _journal("SIAM Review", 58, "1", "34--65"),
        "10.1137/130934283",
    ),
    "UbaruChenSaad2017": Paper(
        "Shashanka Ubaru and Jie Chen and Yousef Saad",
        "Fast Estimation of $tr(f(A))$ via Stochastic {Lanczos} Quadrature",
        2017,
        _journal("SIAM Journal on Matrix Analysis and Applications", 38, "4", "1075--1099"),
        "10.1137/16M1104974",
    ),
    "MeyerMuscoMuscoWoodruff2021": Paper(
        "Raphael A. Meyer and Cameron Musco and Christopher Musco and David P. Woodruff",
        "{Hutch++}: Optimal Stochastic Trace Estimation",
        2021,
        {"booktitle": "Symposium on Simplicity in Algorithms (SOSA)", "pages": "142--155", "publisher": "SIAM"},
        "10.1137/1.9781611976496.16",
        "InProceedings",
    ),
    "EpperlyTroppWebber2024": Paper(
        "Ethan N. Epperly and Joel A. Tropp and Robert J. Webber",
        "{XTrace}: Making the Most of Every Sample in Stochastic Trace Estimation",
        2024,
        _journal("SIAM Journal on Matrix Analysis and Applications", 45, "1", "1--23"),
        "10.1137/23M1548323",
    ),
    # Matrices with a structure.
    "ByrdNocedalSchnabel1994": Paper(
        "Richard H. Byrd and Jorge Nocedal and Robert B. Schnabel",
        "Representations of Quasi-{Newton} Matrices and Their Use in Limited Memory Methods",
        1994,
        _journal("Mathematical Programming", 63, "1--3", "129--156"),
        "10.1007/BF01582063",
    ),
    "MartensGrosse2015": Paper(
        "James Martens and Roger Grosse",
        "Optimizing Neural Networks with {Kronecker}-Factored Approximate Curvature",
        2015,
        {"booktitle": "International Conference on Machine Learning (ICML)", "pages": "2408--2417"},
        "10.48550/arXiv.1503.05671",
        "InProceedings",
    ),
    "GeorgeLaurentBouthillierBallasVincent2018": Paper(
        r"Thomas George and C{\'e}sar Laurent and Xavier Bouthillier and Nicolas Ballas and Pascal Vincent",
        "Fast Approximate Natural Gradient Descent in a {Kronecker}-Factored Eigenbasis",
        2018,
        {"booktitle": "Advances in Neural Information Processing Systems (NeurIPS)"},
        "10.48550/arXiv.1806.03884",
        "InProceedings",
    ),
    # Phonons.
    "ParlinskiLiKawazoe1997": Paper(
        "K. Parlinski and Z. Q. Li and Y. Kawazoe",
        "First-Principles Determination of the Soft Mode in Cubic {ZrO2}",
        1997,
        _journal("Physical Review Letters", 78, "21", "4063--4066"),
        "10.1103/PhysRevLett.78.4063",
    ),
    "WangEtAl2010": Paper(
        "Y. Wang and J. J. Wang and W. Y. Wang and Z. G. Mei and S. L. Shang and L. Q. Chen and Z. K. Liu",
        "A Mixed-Space Approach to First-Principles Calculations of Phonon Frequencies for Polar Materials",
        2010,
        _journal("Journal of Physics: Condensed Matter", 22, "20", "202201"),
        "10.1088/0953-8984/22/20/202201",
    ),
    "GonzeLee1997": Paper(
        "X. Gonze and C. Lee",
        "Dynamical Matrices, {Born} Effective Charges, Dielectric Permittivity Tensors, and Interatomic Force "
        "Constants from Density-Functional Perturbation Theory",
        1997,
        _journal("Physical Review B", 55, "16", "10355--10368"),
        "10.1103/PhysRevB.55.10355",
    ),
}

_COLUMNS = ("CurtisPowellReid1974", "ColemanMore1983")
_TRIANGULAR = ("PowellToint1979", "ColemanMore1984")

# What runs, and whose it is: nobody's where it is our own. Kinds and rules of colourings are those of `KINDS`.
METHODS: dict[str, tuple[str, ...]] = {
    "star coloring": ("ColemanMore1984",),
    "acyclic coloring": ("ColemanCai1986",),
    "cpr coloring": _COLUMNS,
    "distance2 coloring": _COLUMNS,
    "powell-toint coloring": _TRIANGULAR,
    "rule 2007": ("GebremedhinTarafdarMannePothen2007",),
    "rule conservative": ("GebremedhinMannePothen2005",),
    "rule distance2": _COLUMNS,
    "rule columns": _COLUMNS,
    "rule triangular": _TRIANGULAR,
    "rule trees": ("GebremedhinTarafdarMannePothen2007",),
    "rule local": (),
    "rule template": ("GoldfarbToint1984",),
    "group testing": ("Dorfman1943",),
    "differences": ("CurtisPowellReid1974",),
    "noise": ("MoreWild2011",),
    "elements": ("GriewankToint1982",),
    "edge pushing": ("GowerMello2012",),
    "inertia": ("Sylvester1852", "Parlett1998"),
    "slicing": ("GrimesLewisSimon1994",),
    "lobpcg": ("Knyazev2001", "HetmaniukLehoucq2006"),
    "feast": ("Polizzi2009", "TangPolizzi2014", "GavinPolizzi2018"),
    "lanczos": ("Simon1984",),
    "davidson by true products": ("Davidson1975", "SleijpenVanDerVorst1996"),
    "gauss quadrature": ("GolubWelsch1969",),
    "stochastic quadrature": ("UbaruChenSaad2017",),
    "density by lanczos": ("LinSaadYang2016", "UbaruChenSaad2017"),
    "density by chebyshev": ("WeisseWelleinAlvermannFehske2006",),
    "counts by density": ("DiNapoliPolizziSaad2016",),
    "hutchinson": ("Hutchinson1990",),
    "hutch++": ("MeyerMuscoMuscoWoodruff2021",),
    "xtrace": ("EpperlyTroppWebber2024",),
    "diagonal by signs": ("BekasKokiopoulouSaad2007",),
    "diagonal by probing": ("TangSaad2012",),
    "quasi-newton": ("ByrdNocedalSchnabel1994",),
    "kfac": ("MartensGrosse2015",),
    "ekfac": ("MartensGrosse2015", "GeorgeLaurentBouthillierBallasVincent2018"),
    "dynamical matrices": ("ParlinskiLiKawazoe1997",),
    "polar crystals": ("WangEtAl2010",),
    "dipoles in crystals": ("GonzeLee1997",),
}

_ran: set[str] = set()  # methods of this process
_waiting: list[str] = []  # papers that PETSc is still to be told of


def cite(method: str) -> None:
    """Have PETSc name the papers of a method that runs, a row of `METHODS`; once in a process.

    Not collective. Where PETSc has not started it is told when it starts: it is not started for this.
    """
    if method not in _ran:
        _waiting.extend(METHODS[method])
        _ran.add(method)
        register_citations()


def register_citations() -> None:
    """Tell PETSc of what has run, if it is there. Not collective."""
    module = sys.modules.get("petsc4py.PETSc")
    if module is not None and module.Sys.isInitialized():
        while _waiting:
            key = _waiting.pop(0)
            module.Sys.registerCitation(PAPERS[key].bibtex(key))  # which takes the same text once
