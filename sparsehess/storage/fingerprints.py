"""Facts by which a problem is recognised, compared."""

from __future__ import annotations

# Relative tolerance of numbers in a fingerprint that are sums over ranks. Those whose name begins with ROUGH come
# from differences of gradients, which agree less.
_ROUNDING = 1e-8
ROUGH, _DIFFERENCES = "about ", 1e-3


def describe_difference(saved: dict, here: dict) -> str:
    """Return the first difference of two fingerprints in words; empty if they agree.

    Not collective.
    """
    for name in {**here, **saved}:
        a, b = saved.get(name), here.get(name)
        if isinstance(a, float) and isinstance(b, float):
            allowed = _DIFFERENCES if name.startswith(ROUGH) else _ROUNDING
            same = abs(a - b) <= allowed * max(abs(a), abs(b)) or a == b
        else:
            same = a == b
        if not same:
            return f"{name} {a}, here {b}"
    return ""
