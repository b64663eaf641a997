"""`raylens plan`: replicas and nodes for a load, from a profile."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from deployments.service.stacks import STACK_ITEMS
from raylens.cli import app
from raylens.plan import (
    MOST_IMAGES,
    Node,
    OutOfReachError,
    Profile,
    ProfileError,
    plan,
    predicted_p99_s,
)

GPU = Profile(
    replicas=1,
    cpus=16,
    has_gpu=True,
    images_per_s=640.0,
    batch_s=0.1,  # 64 images
    single_s=0.01,
    ingress_s=0.004,
    ingress_limits=False,
)
NODE = Node(cpus=16, gpus=2, replica_cpus=1)


def written(tmp_path: Path, **changes: Any) -> Path:
    """A file as `raylens bench --profile` writes it."""

    def run(callers: int, rate: float, p50_ms: float, model_ms: float, queue_ms: float) -> Any:
        stages = {"decode": 2.0, "queue": queue_ms, "model": model_ms, "total": p50_ms}
        return {
            "callers": callers,
            "images_per_request": 1,
            "images_per_s": rate,
            "p50_ms": p50_ms,
            "stages_p50_ms": stages,
        }

    profile = {
        "model": {"id": "fake", "device": "cpu"},
        "replicas": 1,
        "cpus": 4,
        "runs": [run(1, 40.0, 25.0, 20.0, 0.0), run(64, 100.0, 640.0, 40.0, 590.0)],
    }
    path = tmp_path / "profile.json"
    path.write_text(json.dumps({**profile, **changes}))
    return path


def p99_s(replicas: int, rate: float, *, ingresses: int = 8) -> float:
    return predicted_p99_s(GPU, replicas, ingresses=ingresses, requests_per_s=rate)


def test_a_fuller_service_answers_later_and_an_overfull_one_never() -> None:
    times = [p99_s(2, rate) for rate in (1, 400, 800, 1200)]
    assert times == sorted(times)
    assert times[0] < GPU.ingress_s + 2 * GPU.single_s
    assert times[-1] > GPU.ingress_s + GPU.batch_s
    assert math.isinf(p99_s(2, 1280))


def test_replicas_nodes_and_price_follow_the_load() -> None:
    small = plan(GPU, NODE, requests_per_s=500, p99_s=0.5)
    assert (small.replicas, small.nodes) == (1, 1)
    large = plan(GPU, Node(16, 2, 1, price=3.0), requests_per_s=5000, p99_s=0.5)
    assert large.replicas == 9  # 5000 / 640, and a tenth to spare
    assert large.nodes == 5  # two GPUs each
    assert large.price == 15.0
    assert large.ingresses == 29  # 20 processors' work, 70 % busy
    assert large.limit == "the model"
    assert large.p99_s <= 0.5


def test_a_shorter_p99_takes_more_replicas_until_none_can_do_it() -> None:
    in_time = plan(GPU, NODE, requests_per_s=5000, p99_s=0.05)
    assert in_time.replicas > 9
    assert in_time.limit == "the p99"
    assert in_time.p99_s <= 0.05
    assert p99_s(in_time.replicas - 1, 5000, ingresses=in_time.ingresses * 13 // 15) > 0.05
    with pytest.raises(OutOfReachError, match="a request takes 14 ms"):
        plan(GPU, NODE, requests_per_s=1, p99_s=0.01)


def test_the_images_of_a_request_wait_for_each_other() -> None:
    one = plan(GPU, NODE, requests_per_s=640, p99_s=1)
    several = plan(GPU, NODE, requests_per_s=20, images=32, p99_s=1)
    assert (one.replicas, one.ingresses) == (several.replicas, several.ingresses) == (2, 4)
    assert several.p99_s > GPU.request_s(32) > 1.5 * one.p99_s
    with pytest.raises(OutOfReachError, match="a request takes 182 ms"):
        plan(GPU, NODE, requests_per_s=20, images=32, p99_s=0.18)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(OutOfReachError, match="does not fit on a node"):
        plan(GPU, Node(cpus=1, gpus=1, replica_cpus=2), requests_per_s=1, p99_s=1)
    with pytest.raises(OutOfReachError, match="model replicas"):
        plan(GPU, NODE, requests_per_s=1e12, p99_s=1)


def test_a_profile_is_what_the_bench_wrote(tmp_path: Path) -> None:
    profile = Profile.of(json.loads(written(tmp_path).read_text()))
    assert (profile.replicas, profile.cpus, profile.has_gpu) == (1, 4, False)
    assert (profile.images_per_s, profile.batch_s, profile.single_s) == (100.0, 0.04, 0.02)
    assert profile.ingress_s == pytest.approx(0.005)
    assert not profile.ingress_limits
    two = Profile.of(json.loads(written(tmp_path, replicas=2).read_text()))
    assert two.images_per_s == 50.0


def test_the_command_prints_the_plan(tmp_path: Path) -> None:
    arguments = ["plan", "--rps", "1000", "--p99-ms", "200", "--profile", str(written(tmp_path))]
    result = CliRunner().invoke(app, [*arguments, "--price", "0.5"])
    assert result.exit_code == 0, result.output
    lines = {line[:17].strip(): line[17:].strip() for line in result.output.splitlines()}
    assert lines["model replicas"] == "12"
    assert lines["nodes"] == "14, with 4 processors each"  # the ingress takes 8 processors
    assert lines["images/s"] == "1000 of 1200 possible: 83% busy"
    assert lines["price"] == "7.00 an hour, 1.94 for a million images"
    tight = CliRunner().invoke(app, [*arguments[:4], "20", *arguments[5:]])
    assert tight.exit_code == 1
    assert "needs a faster model or processor" in " ".join(tight.output.split())


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "cannot read"),
        ("{", "is no JSON"),
        ("[" * 100_000, "is no JSON"),
        ("[]", "no profile of this version"),
        ('{"runs": []}', "no profile of this version"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path: Path, content: str | None, sentence: str) -> None:
    path = tmp_path / "wrong.json"
    if content is not None:
        path.write_text(content)
    options = ["--rps", "1", "--p99-ms", "100", "--profile", str(path)]
    result = CliRunner().invoke(app, ["plan", *options])
    assert result.exit_code == 2
    assert sentence in " ".join(result.output.split())


def test_an_older_profile_does_not_tell_how_many_replicas_it_measured(tmp_path: Path) -> None:
    profile = json.loads(written(tmp_path).read_text())
    del profile["replicas"]
    path = tmp_path / "old.json"
    path.write_text(json.dumps(profile))
    options = ["--rps", "1", "--p99-ms", "100", "--profile", str(path)]
    result = CliRunner().invoke(app, ["plan", *options])
    assert result.exit_code == 2
    assert "no profile of this version" in " ".join(result.output.split())


@pytest.mark.parametrize(("rate", "batch_s"), [(10.0, 0.5), (100.0, 0.014), (640.0, 0.009)])
def test_full_batches_have_the_measured_rate(rate: float, batch_s: float) -> None:
    """Also where two ran at a time, or callers hindered each other."""
    odd = replace(GPU, images_per_s=rate, batch_s=batch_s)
    assert odd.batch_size / odd.model_s(odd.batch_size) == pytest.approx(rate)
    found = plan(odd, NODE, requests_per_s=0.8 * rate, p99_s=5)
    assert (found.replicas, found.limit) == (1, "the model")


def test_a_model_that_was_idle_for_a_part_of_the_time_takes_what_its_batches_took() -> None:
    limited = replace(GPU, images_per_s=10.0, batch_s=0.02)
    assert limited.model_s(1) == pytest.approx(0.02)


def test_more_than_100_000_replicas_are_not_planned() -> None:
    with pytest.raises(OutOfReachError, match="more than 100,000 model replicas"):
        plan(GPU, NODE, requests_per_s=3e7, p99_s=0.0145)


@pytest.mark.parametrize("option", ["--rps", "--p99-ms", "--price"])
def test_only_finite_numbers_are_planned_for(tmp_path: Path, option: str) -> None:
    options = {"--rps": "1", "--p99-ms": "100", "--profile": str(written(tmp_path)), option: "inf"}
    result = CliRunner().invoke(app, ["plan", *(word for pair in options.items() for word in pair)])
    assert result.exit_code == 2
    assert "is no finite number" in " ".join(result.output.split())


@pytest.mark.parametrize("replicas", [math.inf, 10**400])
def test_a_profile_with_endless_numbers_is_refused(tmp_path: Path, replicas: float) -> None:
    path = written(tmp_path, replicas=replicas)
    with pytest.raises(ProfileError, match="no profile of this version"):
        Profile.of(json.loads(path.read_text()))


def test_a_request_is_at_most_one_call_of_the_model() -> None:
    assert MOST_IMAGES == STACK_ITEMS
