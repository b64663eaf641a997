"""The service with all of its Ray on loopback, as SECURITY.md offers it."""

import subprocess
import sys
from pathlib import Path

from raylens.cluster import LOOPBACK_ONLY
from tests.servers import ROOT, serve

JOB = """
import raylens
print(len(raylens.connect().embed_image_base64(open(0).read())))
"""


def test_nothing_listens_on_an_address_that_others_reach_and_jobs_still_join(
    tmp_path: Path, photos: list[Path]
) -> None:
    closed = {LOOPBACK_ONLY: "0", "RAYLENS_MODEL__COMPILE": "off"}
    with serve(tmp_path, ROOT / "serve_config.yaml", env=closed) as server:
        listening = server.listening()
        assert len(listening) > 10
        assert not {a: n for a, n in listening.items() if not a.startswith(("127.", "::1:"))}
        encoded = subprocess.run(
            ["base64", "-w0", photos[0]], capture_output=True, check=True
        ).stdout
        job = subprocess.run(
            [sys.executable, "-c", JOB],
            cwd=tmp_path,
            env={**server.ray_environment(), **closed},
            input=encoded,
            capture_output=True,
            timeout=60,
        )
        assert job.stdout.split()[-1:] == [b"1280"], job.stderr
