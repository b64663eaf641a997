"""What callers send: how many of them, with how many images of what size in a request."""

import base64
from dataclasses import dataclass

import orjson

from benchmarks.load import Requests
from benchmarks.photos import jpeg, variant
from benchmarks.servers import Server


@dataclass(frozen=True)
class Scenario:
    """What the callers do. Least ratios are those that raylens promises itself."""

    name: str
    callers: int
    images: int
    """In each request."""
    width_height: tuple[int, int] = (640, 480)
    of_bare: float | None = None
    of_infinity: float | None = None

    @property
    def is_large(self) -> bool:
        """Whether its requests take so long that few of them are seen."""
        return self.images > 1 or self.width_height[0] > 1000


LONE = Scenario("1 x 1 image", 1, 1)
SCENARIOS = (
    Scenario("64 x 1 image", 64, 1, of_bare=0.92, of_infinity=1.15),
    Scenario("16 x 1 image", 16, 1, of_bare=0.88),
    Scenario("2 x 32 images", 2, 32, of_bare=0.95, of_infinity=1.15),
    LONE,
    Scenario("16 x 12 MP", 16, 1, (4000, 3000), of_infinity=2.5),
)


def requests(scenario: Scenario, server: Server) -> Requests:
    """JSON with data URIs, as all servers take it; no image twice in one body."""
    different = 4 if scenario.width_height[0] > 1000 else 16
    number = max(32, 2 * scenario.images)
    photos = [jpeg(seed, *scenario.width_height) for seed in range(different)]
    files = [variant(photos[i % different], i) for i in range(number)]
    uris = [f"data:image/jpeg;base64,{base64.b64encode(f).decode()}" for f in files]
    options = {"model": server.model, "modality": "image", "encoding_format": "base64"}
    bodies = [
        orjson.dumps({**options, "input": uris[start : start + scenario.images]})
        for start in range(0, len(uris) - scenario.images + 1, scenario.images)
    ]
    return Requests(server.url, bodies, scenario.images, {"Content-Type": "application/json"})
