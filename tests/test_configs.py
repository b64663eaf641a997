"""Every config that comes with raylens is accepted by Serve, the settings and the graph."""

import re
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.serve.config import AutoscalingConfig
from ray.serve.schema import ServeDeploySchema

from deployments.app import build_app
from deployments.config import load_settings
from deployments.settings import BUNDLED_ID
from deployments.sources.netguard import is_public
from raylens.cluster import serve_environment
from raylens.serving import read_config
from tests.servers import ROOT

PROFILES = sorted((ROOT / "configs").glob("*.yaml"))
CONFIGS = [ROOT / "serve_config.yaml", *PROFILES]


def application(path: Path) -> dict[str, Any]:
    (found,) = yaml.safe_load(path.read_text())["applications"]
    assert isinstance(found, dict)
    return found


def named(path: Path) -> str:
    return path.name


def test_there_is_a_profile_for_each_purpose() -> None:
    models = {path.stem: application(path)["args"]["model"]["id"] for path in PROFILES}
    assert models == {
        "clip": "openai/clip-vit-base-patch32",
        "cpu-cluster": "openai/clip-vit-base-patch32",
        "clip-large-336": "openai/clip-vit-large-patch14-336",
        "dinov2": "facebook/dinov2-base",
        "gpu": "openai/clip-vit-large-patch14",
        "siglip2": "google/siglip2-base-patch16-224",
    }


@pytest.mark.parametrize("path", CONFIGS, ids=named)
def test_serve_accepts_the_config(path: Path) -> None:
    ServeDeploySchema.model_validate(yaml.safe_load(path.read_text()))
    read_config(path, host=None, port=None)


@pytest.mark.parametrize("path", CONFIGS, ids=named)
def test_the_config_names_deployments_that_exist(path: Path) -> None:
    found = application(path)
    ingress = build_app(found["args"])._bound_deployment
    models = [model._bound_deployment.name for model in ingress.init_args[1]]
    assert [d["name"] for d in found["deployments"]] == [ingress.name, *models]


@pytest.mark.parametrize("path", PROFILES, ids=named)
def test_a_profile_says_what_it_serves_and_how(path: Path) -> None:
    found = application(path)
    model = found["args"]["model"]
    assert {"id", "revision", "precision", "max_batch_size"} <= model.keys()
    assert re.fullmatch("[0-9a-f]{40}", model["revision"])
    (embedder,) = [d for d in found["deployments"] if d["name"] == "Embedder"]
    assert embedder["autoscaling_config"]["min_replicas"] == 1


@pytest.mark.parametrize("path", PROFILES, ids=named)
def test_the_variables_override_a_profiles_model(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAYLENS_MODEL__ID", "acme/vit")
    monkeypatch.setenv("RAYLENS_MODEL__REVISION", "v1")
    model = load_settings(application(path)["args"]).model
    assert (model.id, model.revision) == ("acme/vit", "v1")


def test_without_a_config_nothing_is_downloaded() -> None:
    assert load_settings(application(CONFIGS[0])["args"]).model.id == BUNDLED_ID


def test_only_the_gpu_profile_needs_a_gpu() -> None:
    devices = {p.stem: load_settings(application(p)["args"]).model.device for p in CONFIGS}
    assert {name for name, device in devices.items() if device == "cuda"} == {"gpu"}


def test_with_gpus_an_ingress_replica_may_die_and_four_processors_are_enough() -> None:
    ingress, embedder = application(ROOT / "configs" / "gpu.yaml")["deployments"]
    least = [d["autoscaling_config"]["min_replicas"] for d in (ingress, embedder)]
    assert least == [2, 1]
    each = [d["ray_actor_options"]["num_cpus"] for d in (ingress, embedder)]
    assert sum(n * cpus for n, cpus in zip(least, each, strict=True)) <= 4


@pytest.mark.parametrize("name", ["gpu", "cpu-cluster"])
def test_a_cluster_scales_by_our_policies_and_soon(name: str) -> None:
    found = application(ROOT / "configs" / f"{name}.yaml")["deployments"]
    scaling = [AutoscalingConfig(**d["autoscaling_config"]) for d in found]
    policies = [s.policy.get_policy()(**s.policy.policy_kwargs) for s in scaling]
    assert [type(p).__name__ for p in policies] == ["ProcessorPolicy", "WaitPolicy"]
    for deployment in scaling:
        assert deployment.metrics_interval_s < deployment.look_back_period_s <= 5
        assert deployment.upscale_delay_s == deployment.downscale_delay_s == 0
        assert deployment.target_ongoing_requests == AutoscalingConfig().target_ongoing_requests


def manifest(name: str) -> Any:
    """The first resource in a file."""
    return next(yaml.safe_load_all((ROOT / "configs" / "cluster" / name).read_text()))


def test_the_cluster_serves_the_profile_for_gpus() -> None:
    served = yaml.safe_load(manifest("rayservice.yml")["spec"]["serveConfigV2"])
    profile = yaml.safe_load((ROOT / "configs" / "gpu.yaml").read_text())
    for config in (served, profile):  # tests/test_manifests.py fits it to the nodes
        del config["applications"][0]["deployments"][0]["ray_actor_options"]
    assert served == profile


def test_the_cluster_has_the_switches_of_raylens_serve_and_rays_token(tmp_path: Path) -> None:
    cluster = manifest("rayservice.yml")["spec"]["rayClusterConfig"]
    assert cluster["authOptions"] == {"mode": "token"}
    # Except what KubeRay sets itself, and what concerns one machine only: its files, its ports and
    # `raylens top` without Prometheus.
    others = re.compile(
        r"RAY_AUTH_MODE|RAY_ENABLE_WINDOWS|RAY_SERVE_LOG_TO_STDERR|.*_PORT$|.*_(LOC|PATH|BASE|FILE)$|"
        r".*NBTHREAD|.*DRAINING_PERIOD_S|RAY_metrics_report_interval_ms"
    )
    ours = {
        name: value
        for name, value in serve_environment(tmp_path).items()
        if name.endswith(("IMPORT_PATH", "BINARY_PATH")) or not others.match(name)
    }
    script = Path(ours["RAY_SERVE_HAPROXY_BINARY_PATH"]).name
    ours["RAY_SERVE_HAPROXY_BINARY_PATH"] = f"/home/ray/anaconda3/bin/{script}"  # of Ray's image
    ours["RAYLENS_AUTH__KEYS_FILE"] = "/etc/raylens/keys"  # tests/test_manifests.py looks for it
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        (container,) = group["template"]["spec"]["containers"]
        told = {e["name"]: e["value"] for e in container["env"] if "value" in e}
        assert told == ours


def test_the_operator_may_deploy_whether_helm_or_kustomize_installed_it() -> None:
    rules = manifest("network-policy.yml")["spec"]["ingress"]
    (rule,) = (rule for rule in rules if "kuberay-operator" in str(rule.get("from")))
    (who,) = rule["from"]
    helm, kustomize = (
        {"app.kubernetes.io/name": name, "app.kubernetes.io/component": "kuberay-operator"}
        for name in ("kuberay-operator", "kuberay")
    )
    assert who["podSelector"]["matchLabels"].items() <= helm.items() & kustomize.items()
    assert {port["port"] for port in rule["ports"]} == {8265, 52365}


NODE_DNS = "169.254.20.10/32"


def test_callers_reach_one_port_and_the_cluster_reaches_no_private_address() -> None:
    policy = manifest("network-policy.yml")["spec"]
    cluster = manifest("rayservice.yml")["spec"]["rayClusterConfig"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        labels = group["template"]["metadata"]["labels"]
        assert policy["podSelector"]["matchLabels"].items() <= labels.items()
    (open_to_all,) = (rule for rule in policy["ingress"] if "from" not in rule)
    assert open_to_all["ports"] == [{"port": 8000, "protocol": "TCP"}]
    blocks = [to["ipBlock"] for rule in policy["egress"] for to in rule["to"] if "ipBlock" in to]
    everywhere, dns = (next(b for b in blocks if b["cidr"] == c) for c in ("0.0.0.0/0", NODE_DNS))
    (asked,) = (rule for rule in policy["egress"] if {"ipBlock": dns} in rule["to"])
    assert {port["port"] for port in asked["ports"]} == {53}
    closed = [ip_network(block) for block in everywhere["except"]]
    for address in ("10.1.2.3", "127.0.0.1", "169.254.169.254", "172.16.0.1", "192.168.1.1"):
        assert not is_public(address)
        assert any(ip_address(address) in block for block in closed)
