"""Starts a service on loopback, attacks it and prints how it held up: `make hostile`.

Exits with 1 if anything got in, got out or fell over.
"""

import asyncio
import sys
import tempfile
import time
from collections.abc import Awaitable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import psutil
import yaml
from rich.console import Console
from rich.table import Table

from tests.hostile import addresses, dialects, images, paths, pictures, pngsuite, requests
from tests.hostile.attack import Attack, Part
from tests.hostile.servers import OPEN_HOST, Secret, redirecting
from tests.hostile.traffic import GoodTraffic
from tests.servers import ROOT, Server, serve

MODEL = "efficientnet-lite0"
MOST_GROWTH_MB = 150
MOST_P99_S = 1.0
UPLOADS, UPLOAD_BYTES = 40, 20 * 1000 * 1000
BUDGET_BYTES = 100 * 1024 * 1024


def main() -> int:
    console = Console(width=None if sys.stdout.isatty() else 120)
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        root = scratch / "root"
        root.mkdir()
        photo = pictures.saved(pictures.picture(seed=7, side=400), "JPEG")
        (root / "good.jpg").write_bytes(photo)
        secret_file = scratch / "secret.jpg"
        secret_file.write_bytes(pictures.saved(pictures.picture(seed=8), "JPEG"))
        paths.lay(root, secret_file)
        secret = Secret(secret_file.read_bytes())
        stack.callback(secret.close)
        urls = list(addresses.all_urls(secret.port))
        redirector = stack.enter_context(redirecting([url for _, url in urls]))
        config = write_config(scratch, root, [secret.port, int(redirector.rpartition(":")[2])])
        with console.status("Starting the service"):
            server = stack.enter_context(serve(scratch, config))
        traffic = GoodTraffic(server.url, photo)
        # In batches of all sizes, because the model takes memory for each.
        with ThreadPoolExecutor(8) as threads:
            for embedding in [threads.submit(traffic.embed) for _ in range(200)]:
                embedding.result()
        before = memory_mb(server)
        traffic.start()
        began = time.monotonic()
        parts = asyncio.run(attack(server, root, secret_file, urls, redirector, photo, console))
        took_s = time.monotonic() - began
        traffic.stop()
        after = traffic.embed()
        time.sleep(5)
        later = memory_mb(server)
    before_mb, after_mb = sum(before.values()), sum(later.values())
    growth = {name: later[name] - before.get(name, 0.0) for name in later}
    most = max(growth, key=growth.__getitem__)
    console.print(table(parts))
    for kind in ("images", "addresses"):
        number = sum(part.tried for part in parts if part.name.startswith(kind))
        console.print(f"{kind} in all: {number:,}")
    verdicts = {
        "connections to the secret": (str(secret.accepted), secret.accepted == 0),
        "good requests during the attack": (
            f"{len(traffic.latencies_s):,} in {took_s:.0f} s, p99 {traffic.p99_s():.2f} s "
            f"(less than {MOST_P99_S:g}, on an otherwise idle machine), "
            f"{len(traffic.problems)} failed",
            traffic.p99_s() < MOST_P99_S and not traffic.problems,
        ),
        "the same image's vector": (
            f"largest difference {np.abs(after - traffic.first).max():.1e}",
            bool(np.allclose(after, traffic.first, atol=1e-5)),
        ),
        "memory of all processes": (
            f"{before_mb:,.0f} MB before, {after_mb:,.0f} after (at most {MOST_GROWTH_MB} more), "
            f"{growth[most]:+,.0f} of it {most}",
            after_mb - before_mb <= MOST_GROWTH_MB,
        ),
    }
    for what, (figure, good) in verdicts.items():
        console.print(f"{'[green]good[/]' if good else '[red]BAD[/] '} {what}: {figure}")
    problems = [f"{part.name}: {problem}" for part in parts for problem in part.problems]
    for problem in [*problems, *traffic.problems][:40]:
        console.print(problem, markup=False, highlight=False)
    return 1 if problems or not all(good for _, good in verdicts.values()) else 0


def write_config(folder: Path, root: Path, ports: list[int]) -> Path:
    config = yaml.safe_load((ROOT / "serve_config.yaml").read_text())
    config["applications"][0]["args"] |= {
        "image_roots": [str(root)],
        "cache": {"max_bytes": 0},
        "limits": {"max_inflight_bytes": BUDGET_BYTES},
        "fetch": {
            "allow_cidrs": [f"{OPEN_HOST}/32"],
            "allow_ports": [80, 443, *ports],
            "max_redirects": 3,
        },
    }
    path = folder / "serve.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


async def attack(
    server: Server,
    root: Path,
    secret: Path,
    urls: list[tuple[str, str]],
    redirector: str,
    photo: bytes,
    console: Console,
) -> list[Part]:
    attacker = Attack(server.url)
    refused = {400, 403, 404}
    by_url = ((name, {"url": url}) for name, url in urls)
    by_redirect = (
        (name, {"url": f"{redirector}/{i}"})
        for i, (name, url) in enumerate(urls)
        if "\0" not in url  # not valid HTTP, so it is the origin that fails
    )
    by_path = ((name, {"path": path}) for name, path in paths.all_paths(root, secret))
    upload = photo + bytes(UPLOAD_BYTES - len(photo))
    turns: list[Awaitable[Part]] = [
        attacker.send_images(Part(f"images: {name}"), some, allowed=allowed)
        for name, allowed, some in [*pngsuite.parts(), *images.all_images()]
    ]
    turns += [
        attacker.send_items(Part("addresses"), by_url, allowed=refused),
        attacker.send_items(Part("addresses, by a redirect"), by_redirect, allowed={*refused, 422}),
        attacker.send_items(Part("paths"), by_path, allowed={400, 404}),
        attacker.send_tricks(Part("HTTP"), requests.all_tricks()),
        attacker.send_tricks(Part("dialects"), (odd.trick() for odd in dialects.all_odd(MODEL))),
        attacker.upload_at_once(Part("40 uploads of 20 MB at once"), upload, UPLOADS),
    ]
    parts: list[Part] = []
    for turn in turns:
        with console.status(f"Part {len(parts) + 1} of {len(turns)}"):
            parts.append(await turn)
        console.print(
            f"{parts[-1].name}: {parts[-1].tried:,} tried, {len(parts[-1].problems)} wrong"
        )
    await attacker.close()
    return parts


def table(parts: list[Part]) -> Table:
    shown = Table("part", "tried", "answers", "wrong", title="What was tried, and what came back")
    for part in parts:
        answers = ", ".join(f"{n} of {code}" for code, n in part.answers.most_common())
        shown.add_row(part.name, f"{part.tried:,}", answers, str(len(part.problems)))
    return shown


def memory_mb(server: Server) -> dict[str, float]:
    """The proportional set size of the service's processes, so that what they share counts once."""
    found: dict[str, float] = {}
    for process in [psutil.Process(server.process.pid), *server.family()]:
        try:
            name = " ".join(process.cmdline()).strip()[-45:] or process.name()
            found[name] = found.get(name, 0.0) + process.memory_full_info().pss / 1e6
        except psutil.NoSuchProcess:
            continue
    return found


if __name__ == "__main__":
    sys.exit(main())
