"""With `--service`, a running service embeds what is read here, and its errors are rows."""

from contextlib import closing
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from deployments.bulk.places import Place
from raylens.bulk_service import Caller, ServiceCalls
from tests.client.conftest import Serve
from tests.client.conftest import serve as serve  # the fixture
from tests.conftest import Jpeg


def test_a_service_embeds_files_and_bytes(serve: Serve, jpeg: Jpeg, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(jpeg(1))
    names = [str(tmp_path / "a.jpg"), str(tmp_path / "none.jpg"), None]
    with serve() as url:
        calls = ServiceCalls(url, None)
        dimensions = calls.model.dimensions
        place = Place.of(str(tmp_path))
        with closing(Caller(url, "source", place, dimensions)) as caller:
            by_path = caller(pa.table({"source": names}))
        with closing(Caller(url, "bytes", None, dimensions)) as caller:
            by_bytes = caller(pa.table({"source": ["x#0", "x#1"], "bytes": [jpeg(1), b"no image"]}))
    assert [e and e.partition(":")[0] for e in by_path["error"].to_pylist()] == [
        None,
        "path_not_found",
        "unsupported_image",
    ]
    assert by_bytes.column_names[0] == "source"
    assert "bytes" not in by_bytes.column_names
    assert [e and e.partition(":")[0] for e in by_bytes["error"].to_pylist()] == [
        None,
        "unsupported_image",
    ]
    np.testing.assert_array_equal(by_path["embedding"][0].as_py(), by_bytes["embedding"][0].as_py())
    assert by_path["sha256"][0] == by_bytes["sha256"][0]


def test_a_service_that_is_gone_stops_the_run_instead_of_failing_every_row(
    serve: Serve, jpeg: Jpeg
) -> None:
    with serve() as url:
        caller = Caller(url, "bytes", None, 8)
    with closing(caller), pytest.raises(ConnectionError):
        caller(pa.table({"source": ["x#0"], "bytes": [jpeg(1)]}))


def test_a_service_that_is_not_there_is_told_at_once() -> None:
    with pytest.raises(ConnectionError):
        ServiceCalls("http://127.0.0.1:9", None)
