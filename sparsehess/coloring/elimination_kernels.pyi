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
    def run(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]: ...

class Leaves(Elimination): ...
class Rows(Elimination): ...

def mirror_positions(indptr: np.ndarray, columns: np.ndarray) -> np.ndarray: ...
