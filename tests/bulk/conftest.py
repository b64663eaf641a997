"""A bucket of our own on loopback, for all tests of object stores."""

import contextlib
import subprocess
import sys
from collections.abc import Iterator

import pytest

from raylens.cluster import free_port
from tests.until import until


@pytest.fixture(scope="session")
def bucket() -> Iterator[str]:
    """A URI with `{}` for a path in the bucket."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "x")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "x")
        from pyarrow import fs

        system = fs.S3FileSystem(
            endpoint_override=f"127.0.0.1:{port}", scheme="http", allow_bucket_creation=True
        )

        def created() -> bool:
            with contextlib.suppress(OSError):
                system.create_dir("photos")
                return True
            assert process.poll() is None
            return False

        try:
            until(created)
            yield f"s3://photos/{{}}?endpoint_override=127.0.0.1:{port}&scheme=http"
        finally:
            process.kill()
            process.wait()
