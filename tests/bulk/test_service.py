"""With `--service`, a running service embeds what is read here, and its errors are rows."""

import pickle
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from deployments.bulk.places import Place
from raylens import bulk, bulk_service
from raylens.bulk_service import Caller, Service, ServiceCalls
from raylens.client.errors import ApiError
from raylens.client.http import HttpTransport
from tests.client.conftest import Serve
from tests.client.conftest import serve as serve  # the fixture
from tests.conftest import Jpeg
from tests.fakes import PATCHES, FakeModel


def test_a_service_embeds_files_and_bytes(serve: Serve, jpeg: Jpeg, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(jpeg(1))
    names = [str(tmp_path / "a.jpg"), str(tmp_path / "none.jpg"), None, "/etc/passwd"]
    with serve() as url:
        calls = ServiceCalls(url, None)
        dimensions = calls.model.dimensions
        place = Place.of(str(tmp_path))
        with closing(Caller(Service(url, None), "source", place, dimensions)) as caller:
            by_path = caller(pa.table({"source": names}))
        with closing(Caller(Service(url, None), "bytes", None, dimensions)) as caller:
            by_bytes = caller(pa.table({"source": ["x#0", "x#1"], "bytes": [jpeg(1), b"no image"]}))
    assert [e and e.partition(":")[0] for e in by_path["error"].to_pylist()] == [
        None,
        "path_not_found",
        "unsupported_image",
        "path_not_found",
    ]
    assert by_path["width"].to_pylist() == [320, None, None, None]
    assert by_bytes.column_names[0] == "source"
    assert "bytes" not in by_bytes.column_names
    assert [e and e.partition(":")[0] for e in by_bytes["error"].to_pylist()] == [
        None,
        "unsupported_image",
    ]
    np.testing.assert_array_equal(by_path["embedding"][0].as_py(), by_bytes["embedding"][0].as_py())
    assert by_path["sha256"][0] == by_bytes["sha256"][0]


def test_a_model_that_gives_several_vectors_is_refused(serve: Serve) -> None:
    with (
        serve(FakeModel(PATCHES)) as url,
        pytest.raises(bulk_service.ServiceUrlError, match="patches gives 4 vectors for each image"),
    ):
        ServiceCalls(url, None)


def test_a_service_that_is_gone_stops_the_run_instead_of_failing_every_row(
    serve: Serve, jpeg: Jpeg, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk_service, "RETRIES", 1)
    with serve() as url:
        caller = Caller(Service(url, None), "bytes", None, 8)
    with closing(caller), pytest.raises(ConnectionError):
        caller(pa.table({"source": ["x#0"], "bytes": [jpeg(1)]}))


def test_a_service_that_is_too_busy_or_fails_costs_rows_and_not_the_run(
    serve: Serve, jpeg: Jpeg, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk_service, "RETRIES", 0)
    rows = pa.table({"source": ["x#0", "x#1"], "bytes": [jpeg(1), jpeg(2)]})
    for status, code in ((429, "overloaded"), (500, "internal")):

        async def refuse(*_: object, status: int = status, code: str = code, **__: object) -> None:
            raise ApiError("No.", code=code, status=status)

        monkeypatch.setattr(HttpTransport, "embed", refuse)
        with serve() as url, closing(Caller(Service(url, None), "bytes", None, 8)) as caller:
            table = caller(rows)
        assert table["error"].to_pylist() == [f"{code}: No."] * 2
        assert table["embedding"].null_count == 2


def test_images_larger_than_the_service_takes_are_not_read(
    serve: Serve, jpeg: Jpeg, tmp_path: Path
) -> None:
    (tmp_path / "a.jpg").write_bytes(jpeg(1))
    with (tmp_path / "large.jpg").open("wb") as file:
        file.truncate(1 << 40)
    with serve() as url:
        service, place = Service(url, None), Place.of(str(tmp_path))
        dimensions = ServiceCalls(url, None).model.dimensions
        with closing(Caller(service, "source", place, dimensions)) as caller:
            table = caller(pa.table({"source": ["a.jpg", "large.jpg"]}))
    good, large = table["error"].to_pylist()
    assert good is None
    assert large.startswith("image_too_large: ")


def test_a_row_that_was_not_read_keeps_its_error(serve: Serve) -> None:
    with serve() as url, closing(Caller(Service(url, None), "bytes", None, 8)) as caller:
        table = caller(pa.table({"source": ["x"], "bytes": [None], "_unread": ["a_code: Why."]}))
    assert table["error"].to_pylist() == ["a_code: Why."]
    assert "_unread" not in table.column_names


def test_the_key_is_taken_along_from_the_command_and_not_shown(
    serve: Serve, jpeg: Jpeg, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    made = HttpTransport.__init__

    def init(self: HttpTransport, *args: Any, api_key: str | None, **more: Any) -> None:
        seen.append(str(api_key))
        made(self, *args, api_key=api_key, **more)

    monkeypatch.setattr(HttpTransport, "__init__", init)
    monkeypatch.setenv("RAYLENS_API_KEY", "a-secret")
    with serve() as url:
        service = ServiceCalls(url, None).service
        monkeypatch.delenv("RAYLENS_API_KEY")  # as on a worker
        moved = pickle.loads(pickle.dumps(service))
        with closing(Caller(moved, "bytes", None, 8)):
            assert seen[-1] == "a-secret"
    assert "a-secret" not in repr(service)


def test_a_service_that_is_not_there_is_told_at_once() -> None:
    with pytest.raises(ConnectionError):
        ServiceCalls("http://127.0.0.1:9", None)


def test_what_is_no_url_is_a_usage_error() -> None:
    with (
        pytest.raises(bulk.BulkError, match="is not a URL of a service") as raised,
        bulk._explained(),
    ):
        ServiceCalls("ftp://host", None)
    assert raised.value.usage
