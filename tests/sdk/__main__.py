"""Starts a service on loopback and has other services' clients call it: `make sdk`.

Exits with 1 if any of them gets other vectors than `/v1/embeddings` gives, or other errors than its
users would expect, or if a program in docs/clients fails. `python -m tests.sdk openai voyage` runs
the clients and pages of these names alone.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

from benchmarks.photos import jpeg
from tests.models import families
from tests.servers import ROOT, serve

CLIENTS = Path(__file__).parent / "clients"
NOT_CLIENTS = {"report"}
PAGES = ROOT / "docs" / "clients"
MODEL, SHORTENED = "clip-vit-base-patch32", "clip-matryoshka"
CLIENT_TIMEOUT_S = 300

Report = dict[str, Any]


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *args: Any) -> None:
        pass


def main(names: list[str]) -> int:
    console = Console(width=None if sys.stdout.isatty() else 120)
    found = [p for p in CLIENTS.glob("*.py") if p.stem not in NOT_CLIENTS]
    found = sorted([*found, *PAGES.glob("*.md")])
    chosen = [p for p in found if not names or any(name in p.stem for name in names)]
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        photos = scratch / "photos"
        photos.mkdir()
        for seed, name in enumerate(("cat.jpg", "dog.jpg", "house.jpg")):
            (photos / name).write_bytes(jpeg(seed))
        files = stack.enter_context(served(photos))
        config = write_config(scratch, photos, files)
        with console.status("Starting the service"):
            cache = {"XDG_CACHE_HOME": str(scratch / "cache")}
            server = stack.enter_context(serve(scratch, config, env=cache, ready_s=600))
        reports = [
            (page_report if path.suffix == ".md" else client_report)(
                path, server.url, photos, files
            )
            for path in chosen
        ]
    console.print(table(reports))
    problems = [f"{report['client']}: {text}" for report in reports for text in report["problems"]]
    for problem in problems:
        console.print(problem, markup=False, highlight=False)
    return 1 if problems or not reports else 0


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The folder over HTTP, on a loopback port."""
    handler = partial(QuietHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def write_config(folder: Path, photos: Path, files: str) -> Path:
    """A service of two small CLIPs with random weights. The second may be shortened."""
    config = yaml.safe_load((ROOT / "serve_config.yaml").read_text())
    first, second = (families.write("CLIP", folder / name) for name in (MODEL, SHORTENED))
    config["applications"][0]["args"] = {
        "model": {"id": str(first), "aliases": [f"openai/{MODEL}"], "precision": "float32"},
        "models": [{"id": str(second), "precision": "float32", "matryoshka": True}],
        "image_roots": [str(photos)],
        "fetch": {
            "allow_cidrs": ["127.0.0.0/8"],
            "allow_ports": [80, 443, int(files.rpartition(":")[2])],
        },
    }
    path = folder / "serve.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def client_report(client: Path, url: str, photos: Path, files: str) -> Report:
    """What the script prints on its last line."""
    done = run(client, photos, url, str(photos), PHOTOS_URL=files)
    try:
        report: Report = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        report = {**no_report(client.stem), "problems": [f"no report: {done.stderr[-2000:]}"]}
    return report


def page_report(page: Path, url: str, photos: Path, files: str) -> Report:
    """Whether each program on the page runs, in the folder with the photos that it reads."""
    report = no_report(str(page.relative_to(ROOT)))
    for program in re.findall(r"^```python\n(.*?)^```", page.read_text(), re.M | re.S):
        program = program.replace("127.0.0.1:8000", url.removeprefix("http://"))
        program = program.replace("https://example.org/cat.jpg", f"{files}/cat.jpg")
        path = photos.parent / "program.py"
        path.write_text(program)
        done = run(path, photos)
        report["calls"] += 1
        if done.returncode != 0:
            report["problems"].append(f"{program}\n{done.stderr[-2000:]}")
    return report


def no_report(name: str) -> Report:
    """As `clients/report.py` prints one."""
    counts = {"calls": 0, "exact": 0, "errors": 0}
    return {"client": name, "version": "", **counts, "least_cosine": None, "problems": []}


def run(
    program: Path, folder: Path, *args: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    """A Python program in the folder, with the clients installed and nothing of raylens."""
    # LangChain's client of Cohere needs an older SDK than the newest.
    venv = ".venv-sdk-cohere5" if "langchain_cohere" in program.read_text() else ".venv-sdk"
    return subprocess.run(
        [str(ROOT / venv / "bin" / "python"), str(program), *args],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": "", **environment},
        capture_output=True,
        text=True,
        timeout=CLIENT_TIMEOUT_S,
    )


def table(reports: list[Report]) -> Table:
    found = Table("client", "version", "checks", "least cosine", "integers", "errors", "")
    for report in reports:
        cosine = report["least_cosine"]
        found.add_row(
            report["client"],
            report["version"],
            str(report["calls"]),
            "" if cosine is None else f"{cosine:.7f}",
            f"{report['exact']} equal" if report["exact"] else "",
            f"{report['errors']} as documented" if report["errors"] else "",
            "[red]BAD[/]" if report["problems"] else "[green]good[/]",
        )
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
