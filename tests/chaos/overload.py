"""More requests than the service can answer, from everybody or from one key."""

import asyncio
import hashlib
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from tests.chaos.traffic import Outcome, Traffic
from tests.load import at_once
from tests.servers import serve

# Several times what two processors can do.
FLOOD_PER_S = 400
SECONDS = 12


def flooded(config: Path, images: Sequence[bytes]) -> dict[str, Any]:
    """400 requests a second for 12 s."""
    with tempfile.TemporaryDirectory() as folder, serve(Path(folder), config) as server:
        began = time.monotonic()
        asyncio.run(at_once(server.url, [*images] * 20, callers=16))
        best_per_s = 20 * len(images) / (time.monotonic() - began)
        with Traffic(server.url, images, FLOOD_PER_S) as flood:
            time.sleep(SECONDS)
        lines = len(server.log.read_text().splitlines())
    refused = sorted(o.ended - o.began for o in flood.outcomes if o.status == 429)
    others = {what: n for what, n in flood.failed.items() if what != "429"}
    return {
        "fault": f"{FLOOD_PER_S} requests/s for {SECONDS} s",
        "sent": len(flood.outcomes),
        "failed": others,
        "gap_s": round(flood.longest_gap_s(), 2),
        "most_gap_s": 1,
        "p99_s": round(flood.p99_s(), 2),
        "refused": len(refused),
        "refused_p99_s": round(refused[int(0.99 * len(refused))], 2) if refused else None,
        "answered_per_s": round(per_s(flood.outcomes), 1),
        "best_per_s": round(best_per_s, 1),
        "log_lines": lines,
    }


def beside_a_busy_key(config: Path, images: Sequence[bytes]) -> dict[str, Any]:
    """One key's steady traffic, alone and beside ten times as much as the service can do."""
    keys = {name: f"secret of {name}" for name in ("quiet", "busy")}
    content = yaml.safe_load(config.read_text())
    content["applications"][0]["args"]["auth"] = {
        "keys": [
            {"name": name, "sha256": hashlib.sha256(key.encode()).hexdigest()}
            for name, key in keys.items()
        ]
    }
    config.write_text(yaml.safe_dump(content))
    with tempfile.TemporaryDirectory() as folder, serve(Path(folder), config) as server:
        alone = Traffic(server.url, images, 4, key=keys["quiet"])
        with alone:
            time.sleep(SECONDS)
        beside = Traffic(server.url, images, 4, key=keys["quiet"])
        busy = Traffic(server.url, images, FLOOD_PER_S, key=keys["busy"])
        with busy:
            time.sleep(2)
            with beside:
                time.sleep(SECONDS)
        lines = len(server.log.read_text().splitlines())
    return {
        "fault": "one key beside a busy one",
        "sent": len(beside.outcomes),
        "failed": beside.failed,
        "gap_s": round(beside.longest_gap_s(), 2),
        "most_gap_s": 1,
        "p99_s": round(beside.p99_s(), 3),
        "p99_alone_s": round(alone.p99_s(), 3),
        "busy": busy.failed | {"200": busy.good},
        "log_lines": lines,
    }


def per_s(outcomes: Sequence[Outcome]) -> float:
    """Good answers a second, from the first request to the last answer."""
    began, ended = min(o.began for o in outcomes), max(o.ended for o in outcomes)
    return sum(o.is_good for o in outcomes) / (ended - began)
