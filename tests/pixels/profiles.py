"""The smallest ICC profiles that colour management accepts."""

import struct

Primary = tuple[float, float, float]
"""In XYZ under D50."""


def icc_profile(space: bytes, connection: bytes, tags: dict[bytes, bytes]) -> bytes:
    """A minimal ICC version 2 profile (ICC.1:2001-04)."""
    white = struct.pack(">iii", 63190, 65536, 54061)  # D50
    tags = {
        b"desc": b"desc" + struct.pack(">II", 0, 2) + b"x\0" + b"\0" * 78,
        b"cprt": b"text\0\0\0\0x\0",
        b"wtpt": b"XYZ \0\0\0\0" + white,
        **tags,
    }
    table, body = struct.pack(">I", len(tags)), b""
    for name, tag in tags.items():
        table += name + struct.pack(">II", 132 + 12 * len(tags) + len(body), len(tag))
        body += tag + b"\0" * (-len(tag) % 4)
    header = struct.pack(
        ">I4sI4s4s4s12s4s28s12s48s",
        128 + len(table) + len(body),
        b"lcms",
        0x02100000,
        b"prtr" if space == b"CMYK" else b"mntr",
        space,
        connection,
        struct.pack(">6H", 2020, 1, 1, 0, 0, 0),
        b"acsp",
        b"",
        white,
        b"",
    )
    return header + table + body


def gamma(value: float) -> bytes:
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(value * 256))


def rgb_profile(red: Primary, green: Primary, blue: Primary, curve: bytes | None = None) -> bytes:
    """A profile of these primaries, with one curve for all three, by default gamma 2.2."""
    primaries = {
        name: b"XYZ \0\0\0\0" + struct.pack(">iii", *(round(v * 65536) for v in primary))
        for name, primary in ((b"rXYZ", red), (b"gXYZ", green), (b"bXYZ", blue))
    }
    curves = dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve or gamma(2.2))
    return icc_profile(b"RGB ", b"XYZ ", {**primaries, **curves})


XYZ_RED, XYZ_GREEN, XYZ_BLUE = (
    (0.4361, 0.2225, 0.0139),
    (0.3851, 0.7169, 0.0971),
    (0.1431, 0.0606, 0.7141),
)
RED_AND_BLUE_SWAPPED = rgb_profile(XYZ_BLUE, XYZ_GREEN, XYZ_RED)
