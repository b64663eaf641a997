"""The most used checkpoints are served or refused as the docs promise."""

import pytest

from deployments import torchvision_operators
from docs.most_used import MOST_USED, Published, verdict

ALL = [published for group in MOST_USED.values() for published in group]

# A part of the reason.
REFUSED = {
    "jinaai/jina-clip-v2": "code of its own",
    "nomic-ai/nomic-embed-vision-v1.5": "code of its own",
    "ModernVBERT/colmodernvbert-merged": "more or fewer vectors of an image",
    "facebook/PE-Core-L14-336": "a pickle for code of its own",
}
EXTRAS = {"timm": "timm", "The same in OpenCLIP's format": "openclip"}


def row(group: str, published: Published) -> object:
    in_both = published.id.startswith("laion/")  # whose files of transformers are read
    extra = "" if in_both else EXTRAS.get(group, "")
    return pytest.param(published, extra, id=published.id)


@pytest.mark.parametrize(
    ("published", "extra"), [row(group, p) for group, all_ in MOST_USED.items() for p in all_]
)
def test_each_is_served_or_refused_as_promised(published: Published, extra: str) -> None:
    found = verdict(published)
    if published.id in REFUSED:
        assert REFUSED[published.id] in found.refusal
    elif published.text_of:
        assert found.refusal  # as a model of its own, because it embeds no images
        assert published.text_of in {other.id for other in ALL}
    else:
        assert (found.refusal, found.extra) == ("", extra)


def test_there_are_forty_and_none_twice() -> None:
    assert len({published.id for published in ALL}) == len(ALL) >= 40


@pytest.mark.slow
def test_timm_has_the_architectures() -> None:
    torchvision_operators.declare()
    timm = pytest.importorskip("timm")
    names = [published.id.removeprefix("timm/") for published in MOST_USED["timm"]]
    assert all(timm.is_model(name.partition(".")[0]) for name in names)
