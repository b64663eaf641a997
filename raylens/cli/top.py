"""`raylens top`: what a service is doing, refreshed each second."""

import time
from collections import deque
from typing import Annotated

import httpx
import typer
from rich import box
from rich.console import Group
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from raylens.cli.console import FAILED, UNREACHABLE, fail, out, plain
from raylens.client.http import needs_proxy
from raylens.readings import Figures, Reading, figures, local_endpoints

EVERY_S = 1.0


def top(
    metrics: Annotated[
        list[str] | None,
        typer.Option(
            envvar="RAYLENS_METRICS",
            help="A node's metrics, or Prometheus's /federate; repeat it for several nodes. "
            "Without it, those of the Ray that was started last on this machine.",
        ),
    ] = None,
    window: Annotated[
        float, typer.Option(min=0.1, help="Show rates and times of the last so many seconds.")
    ] = 10.0,
    once: Annotated[
        bool, typer.Option("--once", help="Watch for one window, print that and exit.")
    ] = False,
) -> None:
    """Watch a service: requests, images, times, queues, batches, replicas, refusals and errors.

    Example:

    raylens top
    raylens top --metrics http://10.0.0.5:8080/metrics --metrics http://10.0.0.6:8080/metrics
    """
    urls = metrics or local_endpoints()
    if not urls:
        fail("no Ray runs on this machine; name a service's metrics with --metrics", UNREACHABLE)
    readings = deque([_read(urls)])
    if once:
        time.sleep(window)
        out.print(_shown(figures(readings[0], _read(urls)), urls))
        return
    with Live(console=out, auto_refresh=False, screen=out.is_terminal) as live:
        try:
            while True:
                time.sleep(EVERY_S)
                readings.append(_read(urls))
                while len(readings) > 2 and readings[-1].at - readings[1].at >= window:
                    readings.popleft()
                live.update(_shown(figures(readings[0], readings[-1]), urls), refresh=True)
        except KeyboardInterrupt:
            pass


def _read(urls: list[str]) -> Reading:
    texts = []
    for url in urls:
        try:
            answer = httpx.get(url, timeout=10, trust_env=needs_proxy(url))
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            fail(f"no metrics at {url} ({error})", UNREACHABLE)
        if answer.status_code != 200:
            fail(f"{url} answered with status {answer.status_code}", FAILED)
        texts.append(answer.text)
    reading = Reading(texts)
    if not reading.values:
        fail(f"there are no metrics of raylens at {' and '.join(urls)}", FAILED)
    return reading


def _shown(now: Figures, urls: list[str]) -> Group:
    traffic = Table(box=box.SIMPLE_HEAD, title=escape(plain(", ".join(urls))), title_style="dim")
    for name in ("requests/s", "images/s", "texts/s", "p50", "p99", "cached"):
        traffic.add_column(name, justify="right")
    traffic.add_row(
        *(_rate(rate) for rate in (now.requests_per_s, now.images_per_s, now.texts_per_s)),
        *(_ms(now.p50_s), _ms(now.p99_s), "-" if now.cached is None else f"{now.cached:.0%}"),
    )
    failures = Table(box=box.SIMPLE_HEAD)
    for name in ("refused/s", "failed/s", "bad items/s"):
        failures.add_column(name, justify="right", style="red")
    lost = now.refused_per_s, now.failed_per_s, now.bad_items_per_s
    failures.add_row(*map(_rate, lost))
    parts = Table(box=box.SIMPLE_HEAD)
    parts.add_column("deployment")
    for name in ("replicas", "queue", "batch size", "batch"):
        parts.add_column(name, justify="right")
    for name, deployment in now.deployments.items():
        size = deployment.batch_size
        parts.add_row(
            escape(plain(name)),
            str(deployment.replicas),
            f"{deployment.waiting:.0f}",
            "-" if size is None else f"{size:.1f}",
            _ms(deployment.batch_s),
        )
    return Group(traffic, failures, parts)


def _rate(per_s: float) -> str:
    return f"{per_s:,.1f}"


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1e3:,.0f} ms"
