"""`make chaos`: hurts a running service while callers use it, and says what they saw.

One service for each fault, the bundled model, the cache off. Prints a table and writes JSON.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import httpx
import yaml
from rich.console import Console
from rich.table import Table

from tests.chaos.faults import FAULTS, Fault, SkippedError
from tests.chaos.growth import growth
from tests.chaos.hazards import HAZARDS
from tests.chaos.leaving import head_lost, taken_back
from tests.chaos.nodes import gcs_restarted, node_lost
from tests.chaos.overload import beside_a_busy_key, flooded
from tests.chaos.replica import REPLICA
from tests.chaos.updates import UPDATES
from tests.hostile import pictures
from tests.servers import ROOT, serve

PER_SECOND = 12


def main() -> int:
    parser = argparse.ArgumentParser(prog="make chaos")
    parser.add_argument("--only", default="", help="faults whose names contain this")
    parser.add_argument(
        "--longer", type=float, default=1, help="how many times as long to look for leaks"
    )
    parser.add_argument("--to", type=Path, help="write the results to this file, as JSON")
    arguments = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 120)
    faults = (*FAULTS, *REPLICA, *UPDATES, *HAZARDS, *growth(arguments.longer))
    runs: dict[str, Callable[[], dict[str, Any]]] = {
        **{fault.name: partial(run, fault) for fault in faults},
        "overload": partial(overload, flooded),
        "overload by one key": partial(overload, beside_a_busy_key),
        "node lost, model": partial(overload, partial(node_lost, lost={"model": 1})),
        "node lost, both": partial(overload, partial(node_lost, lost={"model": 1, "ingress": 1})),
        "GCS restarted": partial(overload, gcs_restarted),
        "head lost": partial(overload, head_lost),
        "node taken back": partial(overload, taken_back),
    }
    chosen = [name for name in runs if arguments.only in name]
    if not chosen:
        parser.error(f"no name contains {arguments.only!r}; there are: {', '.join(runs)}")
    results = []
    for name in chosen:
        try:
            with console.status(name):
                results.append(runs[name]())
        except SkippedError as reason:
            console.print(f"{name}: skipped, {reason}")
            continue
        console.print(line(results[-1]))
    console.print(table(results))
    if arguments.to is not None:
        arguments.to.write_text(json.dumps(results, indent=2) + "\n")
    return 0 if all(map(is_good, results)) else 1


def is_good(result: dict[str, Any]) -> bool:
    is_complete: bool = sum(result["failed"].values()) <= result.get("most_failed", 0)
    is_quick: bool = result["gap_s"] <= result["most_gap_s"]
    return is_complete and is_quick and "broken" not in result


def photos() -> list[bytes]:
    return [pictures.saved(pictures.picture(seed=n, side=320), "JPEG") for n in range(32)]


def overload(flood: Callable[[Path, Sequence[bytes]], dict[str, Any]]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        return flood(write_config(Path(folder)), photos())


def run(fault: Fault) -> dict[str, Any]:
    images = photos()
    with tempfile.TemporaryDirectory() as folder:
        config = write_config(Path(folder), fault.ingresses, fault.embedders, fault.settings)
        with serve(Path(folder), config, env=fault.env) as server:
            traffic = fault.traffic(server.url, images, PER_SECOND)
            figures: Mapping[str, Any]
            with traffic:
                time.sleep(3)
                try:
                    figures = fault.strike(server, config) or {}
                except (AssertionError, httpx.HTTPError) as error:
                    figures = {"broken": str(error) or type(error).__name__}
                time.sleep(3)
            log = server.log.read_text()
    return {
        "fault": fault.name,
        "sent": len(traffic.outcomes),
        "failed": traffic.failed,
        "most_failed": fault.most_failed,
        "gap_s": round(traffic.longest_gap_s(), 2),
        "most_gap_s": fault.most_gap_s,
        "p99_s": round(traffic.p99_s(), 2),
        "log_lines": len(log.splitlines()),
        **figures,
    }


def write_config(
    folder: Path,
    ingresses: int = 1,
    embedders: int = 1,
    settings: Mapping[str, Any] = MappingProxyType({}),
) -> Path:
    """The default service with the cache off, more replicas and other `settings` of raylens."""
    config = yaml.safe_load((ROOT / "serve_config.yaml").read_text())
    application = config["applications"][0]
    application["args"] |= {"cache": {"max_bytes": 0}, **settings}
    for deployment in application["deployments"]:
        replicas = ingresses if deployment["name"] == "Ingress" else embedders
        deployment["num_replicas"] = replicas
    path = folder / "serve.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def line(result: dict[str, Any]) -> str:
    shown = ("fault", "sent", "failed", "gap_s", "most_gap_s", "p99_s")
    failed = result["failed"] or "none"
    more = "".join(f", {name} {value}" for name, value in result.items() if name not in shown)
    return (
        f"{result['fault']}: {result['sent']} sent, failed {failed}, longest gap "
        f"{result['gap_s']:g} s (at most {result['most_gap_s']:g}), p99 {result['p99_s']:g} s{more}"
    )


def table(results: list[dict[str, Any]]) -> Table:
    shown = Table("fault", "sent", "failed", "longest gap", "at most", "p99", title="Faults")
    for r in results:
        failed = ", ".join(f"{n} x {what}" for what, n in r["failed"].items()) or "0"
        failed += "; " + r["broken"] if "broken" in r else ""
        shown.add_row(
            *(r["fault"], str(r["sent"]), failed),
            *(f"{r[key]:g} s" for key in ("gap_s", "most_gap_s", "p99_s")),
        )
    return shown


if __name__ == "__main__":
    sys.exit(main())
