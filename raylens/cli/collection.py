"""`raylens search`, `dedupe` and `map`: what is in a file that `raylens embed` wrote."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from raylens.cli.console import (
    FAILED,
    USAGE,
    ShowProgress,
    Url,
    calling,
    check_output,
    err,
    fail,
    out,
    plain,
)
from raylens.cli.query import check, embedded
from raylens.client.http import DEFAULT_URL
from raylens.client.items import local_file
from raylens.embeddings.duplicates import Member, MissingIndexError, groups
from raylens.embeddings.files import EmbeddingsError
from raylens.embeddings.galleries import Group, Picture, chosen, draw_map, gallery
from raylens.embeddings.projection import NEEDS_UMAP, best_method, has_umap, project
from raylens.embeddings.reading import Embeddings, read
from raylens.embeddings.search import nearest
from raylens.progress import counted

In = Annotated[Path, typer.Option("--in", metavar="FILE", help="What raylens embed wrote.")]
Gallery = Annotated[
    Path | None,
    typer.Option("--gallery", metavar="PAGE", help="Write an HTML page with thumbnails too."),
]
Json = Annotated[bool, typer.Option("--json", help="Print a JSON object a line, for scripts.")]
_SHOWN_GROUPS = 200


def search(
    query: Annotated[str, typer.Argument(help="An image file, an image's URL, or a text.")],
    file: In,
    top: Annotated[int, typer.Option(min=1, help="How many to show.")] = 10,
    gallery_page: Gallery = None,
    as_json: Json = False,
    progress: ShowProgress = True,
    url: Url = DEFAULT_URL,
) -> None:
    """Find the images most like an image or a text, best first.

    The service must run the model that made the embeddings. Example:

    raylens search "a dog on a beach" --in photos.parquet --gallery hits.html
    """
    check(query)
    _check_page(gallery_page)
    with _embeddings(file) as embeddings:
        with calling(url) as client:
            vector = embedded(client, query, embeddings, file, url)
        with err.status(f"Searching {len(embeddings):,} vectors"):
            hits = nearest(embeddings, vector, top)
        records = embeddings.records([hit.row for hit in hits])
        for hit, record in zip(hits, records, strict=True):
            if as_json:
                _print_json({"source": record.source, "score": hit.score, "row": hit.row})
            else:
                out.print(f"{hit.score:.4f}  {plain(record.source)}", markup=False, soft_wrap=True)
        if not hits:
            fail(f"{file} has no vectors: all its rows failed", FAILED)
        if gallery_page is not None:
            pictures = [
                Picture(record.source, f"{hit.score:.4f}")
                for hit, record in zip(hits, records, strict=True)
            ]
            found = [Group(f"The {len(hits)} most like it", pictures)]
            if local_file(query) is not None:
                absolute = str(Path(query).absolute())
                found.insert(0, Group("Searched for", [Picture(absolute, "")]))
            note = f"{len(embeddings):,} rows of {file}, by {embeddings.model}"
            _write_gallery(gallery_page, query, note, found, progress)


def dedupe(
    file: In,
    threshold: Annotated[
        float, typer.Option(help="The cosine from which two images count as alike.")
    ] = 0.97,
    gallery_page: Gallery = None,
    as_json: Json = False,
    progress: ShowProgress = True,
) -> None:
    """Find groups of near-duplicates, the largest first.

    A group is what a chain of likenesses connects, so its ends may be less alike than the
    threshold: the figure beside each image is its cosine with the group's first, which is the one
    with the most pixels. Example:

    raylens dedupe --in photos.parquet --gallery duplicates.html
    """
    if not 0 < threshold <= 1:
        raise typer.BadParameter("must be above 0 and at most 1", param_hint="--threshold")
    _check_page(gallery_page)
    with _embeddings(file) as embeddings:
        if not len(embeddings.good()):
            fail(f"{file} has no vectors: all its rows failed", FAILED)
        with counted(len(embeddings), shown=progress) as advance:
            try:
                found = groups(embeddings, threshold, advance=advance)
            except MissingIndexError as error:
                fail(str(error), FAILED)
        for number, members in enumerate(found, 1):
            if as_json:
                _print_json(_as_json(members))
                continue
            out.print(f"{number}. {_summary(members)}", markup=False, soft_wrap=True)
            for member in members:
                line = f"   {member.similarity:.4f}  {plain(member.record.source)}"
                out.print(line, markup=False, soft_wrap=True)
        surplus = sum(map(len, found)) - len(found)
        many = "1 group" if len(found) == 1 else f"{len(found):,} groups"
        images = "1 image" if surplus == 1 else f"{surplus:,} images"
        total = f"{many} at {threshold:g} or above; keeping one of each would remove {images}"
        err.print(total, markup=False, soft_wrap=True)
        if gallery_page is not None:
            _write_groups(gallery_page, file, threshold, found, progress)


def map_(
    file: In,
    page: Annotated[Path, typer.Option("--output", "-o", help="The HTML page to write.")],
    method: Annotated[
        Literal["auto", "umap", "pca"],
        typer.Option(help="How to make two dimensions of many; auto takes UMAP if installed."),
    ] = "auto",
    points: Annotated[
        int, typer.Option(min=1, help="Draw at most this many points; larger files are sampled.")
    ] = 50_000,
    max_mb: Annotated[int, typer.Option(min=1, help="At most so large a page.")] = 20,
    progress: ShowProgress = True,
) -> None:
    """Draw all images on a plane, like ones close together, in an HTML page.

    The page works offline. Hover for thumbnails, drag to move, turn the wheel to zoom. Example:

    raylens map --in photos.parquet -o map.html
    """
    _check_page(page)
    if method == "umap" and not has_umap():
        fail(NEEDS_UMAP, FAILED)
    with _embeddings(file) as embeddings:
        rows = chosen(embeddings, points)
        if not rows:
            fail(f"{file} has no vectors: all its rows failed", FAILED)
        used = best_method(len(rows)) if method == "auto" else method
        good = len(embeddings.good())
        what = f"{len(rows):,} of {good:,} images" if len(rows) < good else f"{good:,} images"
        note = f"{what} of {file}, by {used.upper() if used == 'pca' else 'UMAP'}"
        err.print(
            f"{plain(note)}{'' if has_umap() else f' ({NEEDS_UMAP})'}", markup=False, soft_wrap=True
        )
        with err.status("Finding places for the points"):
            places = project(embeddings.vectors[rows], used)
        with counted(len(rows), shown=progress) as advance:
            drawn = draw_map(
                embeddings,
                rows,
                places,
                title=f"Map of {file.name}",
                note=note,
                most_bytes=max_mb * 1_000_000,
                advance=advance,
            )
        _write(page, drawn.html)
        if drawn.thumbnails < drawn.points:
            err.print(
                f"{drawn.points - drawn.thumbnails:,} points have no thumbnail: the image is not "
                f"there, cannot be read, or there was no room in {max_mb} MB",
                markup=False,
                soft_wrap=True,
            )


def _check_page(page: Path | None) -> None:
    """So that a slip does not replace the embeddings, or a photo."""
    if page is not None and page.suffix.lower() not in (".html", ".htm"):
        fail(f"{page} would be an HTML page: give it a name that ends in .html", USAGE)
    check_output(page)


@contextmanager
def _embeddings(file: Path) -> Iterator[Embeddings]:
    """Opened; what is wrong with the file, now or later, ends the command with a sentence."""
    try:
        embeddings = read(file)
        if not len(embeddings):
            fail(f"{file} is empty", FAILED)
        yield embeddings
    except EmbeddingsError as error:
        fail(str(error), USAGE)


def _write_groups(
    page: Path,
    file: Path,
    threshold: float,
    found: Sequence[Sequence[Member]],
    progress: bool,
) -> None:
    shown = [
        Group(
            f"{number}. {_summary(members)}",
            [Picture(m.record.source, f"{m.similarity:.4f}") for m in members],
        )
        for number, members in enumerate(found[:_SHOWN_GROUPS], 1)
    ]
    more = f"; the {_SHOWN_GROUPS} largest are here" if len(found) > _SHOWN_GROUPS else ""
    note = (
        f"{len(found):,} groups in {file}, linked by cosines from {threshold:g}{more}. Figures are "
        "cosines with the first of the group, which has the most pixels."
    )
    _write_gallery(page, "Near-duplicates", note, shown, progress)


def _write_gallery(
    page: Path, title: str, note: str, groups: Sequence[Group], progress: bool
) -> None:
    with counted(sum(len(group.pictures) for group in groups), shown=progress) as advance:
        html = gallery(title, note, groups, advance=advance)
    _write(page, html)


def _summary(members: Sequence[Member]) -> str:
    least = min(member.similarity for member in members)
    return f"{len(members):,} images, at least {least:.4f} like the first"


def _as_json(members: Sequence[Member]) -> dict[str, Any]:
    listed = [
        {"source": m.record.source, "similarity": m.similarity, "row": m.row} for m in members
    ]
    return {"size": len(members), "images": listed}


def _print_json(value: dict[str, Any]) -> None:
    typer.echo(json.dumps(value))


def _write(page: Path, html: str) -> None:
    try:
        page.write_text(html, encoding="utf-8")
    except OSError as error:
        fail(f"cannot write {page}: {error.strerror}", FAILED)
    err.print(f"{plain(str(page))}: {len(html) / 1e6:.1f} MB", markup=False, soft_wrap=True)
