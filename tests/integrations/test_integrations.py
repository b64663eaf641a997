"""Other libraries, as they are, embed through the service and get the client's vectors."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lancedb
import numpy as np
import pytest
from lancedb.embeddings import get_registry
from lancedb.pydantic import LanceModel, Vector
from langchain_core.vectorstores import InMemoryVectorStore
from PIL import Image

import raylens.integrations.lancedb
from raylens import ApiError, Client
from raylens.integrations.langchain import RaylensEmbeddings
from tests.client.conftest import Serve
from tests.client.conftest import serve as serve  # the fixture
from tests.fakes import TEXT, FakeModel
from tests.servers import ROOT

COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}


@pytest.fixture
def client(serve: Serve, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Client]:
    """Of the service that the environment names, beside `photos/a.jpg` and others."""
    (tmp_path / "photos").mkdir()
    monkeypatch.chdir(tmp_path)
    for name, colour in zip("abc", COLOURS.values(), strict=True):
        Image.new("RGB", (30, 20), colour).save(f"photos/{name}.jpg")
    with serve(FakeModel(text=TEXT)) as url, Client(url) as client:
        monkeypatch.setenv("RAYLENS_URL", url)
        yield client


PHOTOS = ["photos/a.jpg", "photos/b.jpg", "photos/c.jpg"]


def test_langchain_gets_the_vectors_of_texts_and_images(client: Client) -> None:
    embeddings = RaylensEmbeddings()
    texts = ["x #ff0000", "photos/a.jpg"]  # a text, although there is such a file
    expected = client.embed([{"text": text} for text in texts])
    assert np.array_equal(embeddings.embed_documents(texts), expected)
    assert np.array_equal(embeddings.embed_query(texts[1]), expected[1])
    assert np.array_equal(embeddings.embed_image(PHOTOS), client.embed(PHOTOS))
    assert embeddings.embed_documents([]) == []
    store = InMemoryVectorStore(embeddings)
    store.add_texts(["red #ff0000", "blue #0000ff"])
    assert store.similarity_search("y #0000ff", k=1)[0].page_content == "blue #0000ff"
    with pytest.raises(ApiError, match="model_not_found"):
        RaylensEmbeddings(model="nosuch").embed_query("x")


def test_langchain_embeds_in_one_event_loop_after_another(client: Client) -> None:
    embeddings = RaylensEmbeddings()

    async def embedded() -> list[Any]:
        return await asyncio.gather(
            *(embeddings.aembed_query(f"x #0000f{n}") for n in range(9)),
            embeddings.aembed_documents(["z"]),
            embeddings.aembed_image(PHOTOS),
        )

    for _ in range(2):
        *queries, documents, images = asyncio.run(embedded())
        assert np.array_equal(queries, client.embed([{"text": f"x #0000f{n}"} for n in range(9)]))
        assert np.array_equal(documents, client.embed([{"text": "z"}]))
        assert np.array_equal(images, client.embed(PHOTOS))


def table_of(function: Any, name: str = "photos", kind: type = str) -> Any:
    class Row(LanceModel):  # type: ignore[misc]
        source: kind = function.SourceField()  # type: ignore[valid-type]
        vector: Vector(function.ndims()) = function.VectorField()  # type: ignore[valid-type]

    return lancedb.connect("db").create_table(name, schema=Row)


def test_lancedb_gets_the_vectors_of_images_by_path_and_as_bytes(client: Client) -> None:
    table_of(get_registry().get("raylens").create()).add([{"source": path} for path in PHOTOS])
    table = lancedb.connect("db").open_table("photos")
    assert np.array_equal(table.to_arrow()["vector"].to_pylist(), client.embed(PHOTOS))
    for query in ("y #0000ff", Path("photos/c.jpg"), Image.open("photos/c.jpg")):
        assert table.search(query).limit(1).to_list()[0]["source"] == "photos/c.jpg"
    data = [Path(path).read_bytes() for path in PHOTOS]
    table = table_of(get_registry().get("raylens").create(), "bytes", bytes)
    table.add([{"source": image} for image in data])
    assert np.array_equal(table.to_arrow()["vector"].to_pylist(), client.embed(data))


def test_lancedb_gets_the_vectors_of_texts(client: Client) -> None:
    texts = ["x #ff0000", "photos/a.jpg"]  # a text, although there is such a file
    table = table_of(get_registry().get("raylens").create(strings="text", dimensions=12))
    table.add([{"source": text} for text in texts])
    expected = client.embed([{"text": text} for text in texts], dimensions=12)
    assert np.array_equal(table.to_arrow()["vector"].to_pylist(), expected)


def test_lancedb_takes_one_item_a_list_or_a_column(client: Client) -> None:
    function = get_registry().get("raylens").create()
    one = client.embed(PHOTOS[:1])
    picture = np.full((20, 30, 3), (255, 0, 0), np.uint8)
    for items in (PHOTOS[0], PHOTOS[:1], np.array(PHOTOS[:1]), Path(PHOTOS[0])):
        assert np.array_equal(function.compute_source_embeddings(items), one)
    vectors = function.compute_source_embeddings(picture)
    assert np.array_equal(vectors, client.embed([picture]))


def test_no_key_and_no_url_get_into_a_lancedb_table(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAYLENS_API_KEY", "sesame")
    registered = get_registry().get("raylens")
    assert registered is raylens.integrations.lancedb.RaylensEmbeddings
    table_of(registered.create()).add([{"source": PHOTOS[0]}])
    for path in Path("db").rglob("*"):
        assert path.is_dir() or b"sesame" not in path.read_bytes()
    for name in ("api_key", "url"):
        with pytest.raises(ValueError, match=name):
            registered.create(**{name: "sesame"})


def test_lancedb_hears_why_an_image_has_no_vector(client: Client) -> None:
    Path("photos/broken.jpg").write_bytes(b"\xff\xd8broken")
    table = table_of(get_registry().get("raylens").create())
    with pytest.raises(Exception, match="unsupported_image"):
        table.add([{"source": "photos/broken.jpg"}])
    assert table.count_rows() == 0


@pytest.mark.parametrize(
    ("module", "library", "package"),
    [
        ("langchain", "langchain_core", "langchain-core"),
        ("lancedb", "lancedb", "lancedb"),
        ("chroma", "chromadb", "chromadb"),
    ],
)
def test_without_the_library_a_sentence_says_what_to_install(
    module: str, library: str, package: str
) -> None:
    code = f"import sys; sys.modules['{library}'] = None; import raylens.integrations.{module}"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stderr.splitlines()[-1].endswith(f": pip install {package}")


@pytest.mark.parametrize("library", ["LangChain", "LanceDB", "Chroma"])
def test_the_code_in_the_docs_runs(client: Client, library: str) -> None:
    if library == "Chroma":
        pytest.importorskip("chromadb", reason="chromadb is too heavy for every run of the tests")
    page = (ROOT / "docs" / "integrations.md").read_text()
    code = page.partition(f"## {library}\n")[2].partition("```python\n")[2].partition("```")[0]
    names: dict[str, Any] = {"__name__": "docs"}
    exec(code, names)
    assert names["found"]
