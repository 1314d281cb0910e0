import numpy as np

def differences(
    indptr: np.ndarray, indices: np.ndarray, start: int, rows: np.ndarray, room: int
) -> tuple[np.ndarray, np.ndarray] | None: ...
def off_stencil(
    indptr: np.ndarray,
    indices: np.ndarray,
    own: int,
    places: np.ndarray,
    sides: np.ndarray,
    reach: np.ndarray,
    inside: np.ndarray,
) -> np.ndarray: ...
