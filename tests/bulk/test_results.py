"""What `raylens bulk` wrote is an embeddings file to the other commands."""

from contextlib import closing
from pathlib import Path

import pyarrow as pa

from deployments.bulk.parts import Destination, Model, write_part
from deployments.bulk.places import Place
from raylens.bulk_service import Caller, Service, ServiceCalls
from tests.client.conftest import Serve
from tests.client.conftest import serve as serve  # the fixture
from tests.commands import ended, raylens
from tests.conftest import Jpeg


def test_a_folder_of_parts_can_be_searched_compared_and_drawn(
    serve: Serve, jpeg: Jpeg, tmp_path: Path
) -> None:
    photos, folder = tmp_path / "photos", tmp_path / "vectors"
    photos.mkdir()
    for number in range(4):
        (photos / f"{number}.jpg").write_bytes(jpeg(number % 3))
    with serve() as url:
        model: Model = ServiceCalls(url, None).model
        target = Destination(Place.of(str(folder)), model)
        root = Place.of(str(photos))
        with closing(Caller(Service(url, None), "source", root, model.dimensions)) as caller:
            for names in (["0.jpg", "1.jpg"], ["2.jpg", "3.jpg", "gone.jpg"]):
                rows = caller(pa.table({"source": [str(photos / name) for name in names]}))
                target.commit(write_part(target.next_unfinished(), model, [rows]))
        target.close()
        query = str(photos / "2.jpg")
        found = raylens("search", query, "--in", str(folder), "--top", "1", "--url", url)
    assert ended(found) == 0, found.stderr
    assert found.stdout.splitlines() == [f"1.0000  {query}"]
    groups = raylens("dedupe", "--in", str(folder), "--threshold", "0.9999")
    assert ended(groups) == 0, groups.stderr
    assert [line.split()[-1] for line in groups.stdout.splitlines()[1:3]] == [
        str(photos / "0.jpg"),
        str(photos / "3.jpg"),
    ]
    page = tmp_path / "map.html"
    assert ended(raylens("map", "--in", str(folder), "-o", str(page), "--method", "pca")) == 0
    assert page.stat().st_size > 1000
