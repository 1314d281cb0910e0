import numpy as np

class Elimination:
    left: int
    terms: np.ndarray

    def __init__(
        self,
        indptr: np.ndarray,
        columns: np.ndarray,
        mirror: np.ndarray,
        color: np.ndarray,
        colors: int,
        hollow: np.ndarray,
    ) -> None: ...
    def arrive(self, entries: np.ndarray, terms: np.ndarray) -> None: ...
    def meet(self, entries: np.ndarray, terms: np.ndarray) -> None: ...
    def mirrors(self, entries: np.ndarray) -> np.ndarray: ...
    def run(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]: ...

class Leaves(Elimination):
    def sizes(self, entries: np.ndarray) -> np.ndarray: ...
    def settle(self, entries: np.ndarray, remote: np.ndarray) -> None: ...
    def sides(self) -> np.ndarray: ...

class SmallerSides(Leaves):
    def __init__(
        self,
        indptr: np.ndarray,
        columns: np.ndarray,
        mirror: np.ndarray,
        color: np.ndarray,
        colors: int,
        hollow: np.ndarray,
        sides: np.ndarray,
    ) -> None: ...

class Rows(Elimination): ...

def mirror_positions(indptr: np.ndarray, columns: np.ndarray) -> np.ndarray: ...
