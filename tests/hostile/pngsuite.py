"""PngSuite, Willem van Schaik's test images: 160 sound ones and 14 corrupt ones, whose names begin
with an x. `make hostile` takes them from one of Debian's packages."""

from collections.abc import Iterator

from tests.servers import ROOT

FOLDER = ROOT / ".pngsuite"
SOUND, CORRUPT = 160, 14
# Only the checksum of its IDAT chunk is wrong, and Pillow goes by zlib's own checksum instead.
DECODED_ALL_THE_SAME = "xcsn0g01.png"


def read() -> dict[str, bytes]:
    """Each image's name and bytes. Raises FileNotFoundError if they are not all there."""
    found = {path.name: path.read_bytes() for path in FOLDER.rglob("pngsuite/**/*.png")}
    corrupt = sum(name.startswith("x") for name in found)
    if (len(found) - corrupt, corrupt) != (SOUND, CORRUPT):
        raise FileNotFoundError(f"{FOLDER} has {len(found)} images of PngSuite; remove it")
    return found


def parts() -> Iterator[tuple[str, set[int], list[tuple[str, bytes]]]]:
    """A part's name, the statuses that are right for it, and its images."""
    images = read()
    corrupt = {name for name in images if name.startswith("x") and name != DECODED_ALL_THE_SAME}
    yield "PngSuite, sound", {200}, [item for item in images.items() if item[0] not in corrupt]
    yield "PngSuite, corrupt", {415, 422}, [(name, images[name]) for name in sorted(corrupt)]
