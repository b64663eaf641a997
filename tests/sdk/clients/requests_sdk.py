"""Plain requests, for those who have no client: vLLM's score, and KServe's protocol in JSON."""

import httpx
from report import MODEL, Report, run


def main(report: Report) -> None:
    texts = list(report.texts)
    client = httpx.Client(base_url=report.url, timeout=60)

    # As in vLLM's examples/pooling/score: one to one, one to many, many to many.
    vectors = report.vectors(texts)
    cosines = vectors @ vectors.T
    for names in (("queries", "documents"), ("text_1", "text_2"), ("data_1", "data_2")):
        for first, second, expected in (
            (texts[0], texts[1], cosines[0, 1:2]),
            (texts[0], texts, cosines[0]),
            (texts, texts, cosines.diagonal()),
        ):
            body = {"model": MODEL, **dict(zip(names, (first, second), strict=True))}
            found = [row["score"] for row in client.post("/score", json=body).json()["data"]]
            report.check("score", lambda f=found, e=expected: bool((abs(f - e) < 1e-5).all()))
    images = {"content": [{"type": "image_url", "image_url": {"url": report.data_uris[0]}}]}
    body = {"queries": texts[0], "documents": images}
    found = client.post("/v1/score", json=body).json()["data"][0]["score"]
    expected = (vectors[0] * report.vectors(report.photo_items)[0]).sum()
    report.check("an image's score", lambda: bool(abs(found - expected) < 1e-5))
    body = {"queries": texts, "documents": texts[:2]}
    uneven = client.post("/score", json=body)
    message = uneven.json()["error"]["message"]
    report.check("uneven lists", lambda: "cannot be paired" in message)

    report.check("live", lambda: client.get("/v2/health/live").json() == {"live": True})
    for name, elements, items in (
        ("text", texts, texts),
        ("image", report.data_uris, report.photo_items),
        ("image", report.photo_urls, report.photo_items),
    ):
        tensor = {"name": name, "shape": [len(items)], "datatype": "BYTES", "data": elements}
        answer = client.post(f"/v2/models/{MODEL}/infer", json={"id": "1", "inputs": [tensor]})
        (output,) = answer.json()["outputs"]
        rows, width = output["shape"]
        found = [output["data"][i * width : (i + 1) * width] for i in range(rows)]
        report.same(f"{name}s by the open inference protocol", found, items)
    missing = client.get("/v2/models/resnet50")
    report.check("no such model", lambda: isinstance(missing.json()["error"], str))


if __name__ == "__main__":
    run("httpx", main)
