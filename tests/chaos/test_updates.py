"""A version that cannot start leaves the old one serving, as `make chaos` has it in more forms."""

from collections.abc import Callable
from pathlib import Path

from tests.chaos.__main__ import write_config
from tests.chaos.updates import by_name, missing_model
from tests.servers import serve


def test_an_update_that_cannot_start_fails_no_request_and_tells_why(
    tmp_path: Path, jpeg: Callable[..., bytes]
) -> None:
    images = [jpeg(i, (320, 240)) for i in range(12)]
    config = write_config(tmp_path)
    with serve(tmp_path, config) as server:
        traffic = by_name(server.url, images, 2)
        with traffic:
            missing_model(server, config)
    print(f"{traffic.failed} of {len(traffic.outcomes)}, gap {traffic.longest_gap_s():.1f} s")
    assert traffic.good
    assert not traffic.failed
