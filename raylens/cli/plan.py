"""`raylens plan`: how many replicas and nodes a load needs."""

import json
import math
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from raylens.cli.console import FAILED, USAGE, fail, out
from raylens.plan import MOST_IMAGES, Node, OutOfReachError, Profile, ProfileError
from raylens.plan import plan as planned


def plan(
    rps: Annotated[float, typer.Option(min=0.001, help="Requests a second.")],
    p99_ms: Annotated[
        float, typer.Option(min=1, help="99 of 100 are to be answered in this time.")
    ],
    profile: Annotated[
        Path, typer.Option(help="What raylens bench --profile wrote on such a machine.")
    ],
    images: Annotated[
        int,
        typer.Option(
            min=1, max=MOST_IMAGES, help="In each request; a larger one counts as several."
        ),
    ] = 1,
    node_cpus: Annotated[
        int | None, typer.Option(min=1, help="Of a node; without it, as it was measured.")
    ] = None,
    node_gpus: Annotated[int, typer.Option(min=1, help="Of a node, if the model is on GPUs.")] = 1,
    replica_cpus: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="num_cpus of a model replica; without it, one beside a GPU, and otherwise a "
            "replica's part of the machine that was measured.",
        ),
    ] = None,
    price: Annotated[
        float | None, typer.Option(min=0, help="Of a node for an hour, in any currency.")
    ] = None,
) -> None:
    """Plan replicas and nodes for a load, from what raylens bench measured.

    The prediction is for a steady load; an autoscaled service follows a changing one. Example:

    raylens plan --rps 5000 --p99-ms 200 --profile profile.json --price 1.2
    """
    for name, value in (("--rps", rps), ("--p99-ms", p99_ms), ("--price", price or 0.0)):
        if math.isinf(value):
            raise typer.BadParameter("is no finite number", param_hint=name)
    try:
        measured = Profile.of(json.loads(profile.read_text()))
    except OSError as error:
        fail(f"cannot read {profile}: {error.strerror}", USAGE)
    except ProfileError as error:
        fail(f"{profile}: {error}", USAGE)
    except (ValueError, RecursionError):
        fail(f"{profile} is no JSON", USAGE)
    part = 1 if measured.has_gpu else max(1, measured.cpus // measured.replicas)
    node = Node(
        cpus=node_cpus or measured.cpus,
        gpus=node_gpus,
        replica_cpus=replica_cpus or part,
        price=price,
    )
    images_per_s = rps * images
    try:
        found = planned(measured, node, requests_per_s=rps, images=images, p99_s=p99_ms / 1e3)
    except OutOfReachError as error:
        fail(str(error), FAILED)
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_row("model replicas", str(found.replicas))
    table.add_row("ingress replicas", f"{found.ingresses}, with one processor each")
    gpus = f" and {node.gpus} GPUs" if measured.has_gpu else ""
    table.add_row("nodes", f"{found.nodes}, with {node.cpus} processors{gpus} each")
    table.add_row(
        "images/s", f"{images_per_s:g} of {found.images_per_s:.0f} possible: {found.busy:.0%} busy"
    )
    table.add_row("predicted p99", f"{found.p99_s * 1e3:.0f} ms")
    table.add_row("limited by", found.limit)
    if found.price is not None:
        million = found.price / (images_per_s * 3600) * 1e6
        table.add_row("price", f"{found.price:.2f} an hour, {million:.2f} for a million images")
    out.print(table)
    if measured.ingress_limits:
        out.print(
            "The model waited for the ingress when this was measured, so fewer model replicas may "
            "do. Measure again with more ingress replicas.",
            soft_wrap=True,
        )
