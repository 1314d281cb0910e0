import numpy as np

class Distance2:
    color: np.ndarray
    work: int
    most: int

    def __init__(
        self,
        indptr: np.ndarray,
        indices: np.ndarray,
        chunks: np.ndarray,
        color: np.ndarray,
        count: int,
        alone: bool,
        seed: int,
    ) -> None: ...
    def release(self, leaving: int, last: int) -> None: ...
    def take(self, vertices: np.ndarray, limit: int) -> int: ...
    def place(self, vertices: np.ndarray, colors: np.ndarray) -> None: ...

class Star(Distance2): ...
class Acyclic(Distance2): ...
