"""ICC profiles for colour spaces that files describe in other ways: by numbers or by code points.

ICC.1:2022; code points of ITU-T H.273. Knows nothing of files.
"""

import struct
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

# x and y of white, red, green and blue. H.273, table 2, by code point.
SRGB = (0.3127, 0.3290, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
_PRIMARIES = {
    1: SRGB,
    9: (0.3127, 0.3290, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046),  # BT.2020
    12: (0.3127, 0.3290, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),  # Display P3
}
SRGB_CODE_POINTS = b"\x01\x0d"
# Parameters of ICC's curves. H.273, table 3.
VIDEO_CURVES, SRGB_CURVE = frozenset({1, 6, 14, 15}), 13
_CURVES: dict[int, tuple[float, ...]] = {
    **dict.fromkeys(VIDEO_CURVES, (2.4,)),  # as screens show them (BT.1886)
    SRGB_CURVE: (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045),
    4: (2.2,),
    5: (2.8,),
    8: (1.0,),
}
_D50 = np.array([0.9642, 1.0, 0.8249])
_BRADFORD = np.array(
    [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
)


@lru_cache(maxsize=32)
def from_code_points(primaries: int, transfer: int) -> bytes | None:
    """The profile of RGB with these code points. None for unknown ones, and for HDR (PQ, HLG),
    which would need tone mapping."""
    if primaries not in _PRIMARIES or transfer not in _CURVES:
        return None
    return _rgb(_PRIMARIES[primaries], _CURVES[transfer])


@lru_cache(maxsize=32)
def from_gamma(gamma: float, primaries: tuple[float, ...], *, grey: bool) -> bytes | None:
    """The profile of samples that encode light with the exponent 1 / `gamma`. `primaries` are x and
    y of white, red, green and blue. None for values that no profile can hold."""
    try:
        if grey:
            return _profile(b"GRAY", {b"kTRC": _curve((gamma,))})
        return _rgb(primaries, (gamma,))
    except (ValueError, OverflowError, struct.error):  # no such colours, or numbers too large
        return None


def _rgb(primaries: tuple[float, ...], curve: tuple[float, ...]) -> bytes:
    tags = {name: _curve(curve) for name in (b"rTRC", b"gTRC", b"bTRC")}
    colorants = _colorants(primaries).T
    for name, colorant in zip((b"rXYZ", b"gXYZ", b"bXYZ"), colorants, strict=True):
        tags[name] = _xyz(colorant)
    return _profile(b"RGB ", tags)


def _colorants(primaries: tuple[float, ...]) -> NDArray[np.float64]:
    """XYZ of red, green and blue in columns, adapted to D50 by Bradford's method (annex E)."""
    x, y = np.array(primaries, np.float64).reshape(4, 2).T
    if (y <= 0).any():
        raise ValueError("primaries have a y of at most 0")
    xyz = np.stack([x / y, np.ones(4), (1 - x - y) / y])
    white, colours = xyz[:, 0], xyz[:, 1:]
    colours = colours * np.linalg.solve(colours, white)
    gain = (_BRADFORD @ _D50) / (_BRADFORD @ white)
    return np.asarray(np.linalg.inv(_BRADFORD) @ np.diag(gain) @ _BRADFORD @ colours)


def _profile(space: bytes, tags: dict[bytes, bytes]) -> bytes:
    tags = {b"wtpt": _xyz(_D50), **tags}
    table, body = struct.pack(">I", len(tags)), b""
    begin = 128 + 4 + 12 * len(tags)
    for name, data in tags.items():
        table += name + struct.pack(">II", begin + len(body), len(data))
        body += data
    size = begin + len(body)
    head = struct.pack(">I4sI4s4s4s", size, b"", 0x04400000, b"mntr", space, b"XYZ ")
    head = head.ljust(36, b"\0") + b"acsp"
    return head.ljust(68, b"\0") + _numbers(_D50).ljust(60, b"\0") + table + body


def _xyz(values: NDArray[np.float64]) -> bytes:
    return b"XYZ \0\0\0\0" + _numbers(values)


def _curve(parameters: tuple[float, ...]) -> bytes:
    kind = {1: 0, 5: 3}[len(parameters)]  # a power alone, or with a straight part
    return b"para\0\0\0\0" + struct.pack(">HH", kind, 0) + _numbers(np.array(parameters))


def _numbers(values: NDArray[np.float64]) -> bytes:
    return struct.pack(f">{len(values)}i", *(round(value * 65536) for value in values.tolist()))
