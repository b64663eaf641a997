"""The files of configs/cluster/ fit the schemas of those who read them, and each other."""

import copy
import json
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from raylens.cluster import serve_environment
from tests.crds.excerpt import NAMES, excerpt, kept_excerpt, manifest, mistakes, published
from tests.servers import ROOT

CLUSTER = ROOT / "configs" / "cluster"
API_VERSIONS = {
    "NetworkPolicy": "networking.k8s.io/v1",
    "PersistentVolumeClaim": "v1",
    "PodDisruptionBudget": "policy/v1",
    "PodMonitor": "monitoring.coreos.com/v1",
    "PrometheusRule": "monitoring.coreos.com/v1",
    "RayService": "ray.io/v1",
    "Service": "v1",
    "StatefulSet": "apps/v1",
}


def resources(kind: str | None = None) -> list[dict[str, Any]]:
    files = sorted(CLUSTER.glob("*.yml"))
    found = [r for file in files for r in yaml.safe_load_all(file.read_text())]
    return [r for r in found if kind in (None, r["kind"])]


def spec() -> dict[str, Any]:
    found: dict[str, Any] = manifest("rayservice")["spec"]
    return found


def pods() -> dict[str, dict[str, Any]]:
    """The specification of each group's pods, and Redis's, by name."""
    cluster = spec()["rayClusterConfig"]
    groups = {g["groupName"]: g["template"]["spec"] for g in cluster["workerGroupSpecs"]}
    (redis,) = resources("StatefulSet")
    head = cluster["headGroupSpec"]["template"]["spec"]
    return {"head": head, **groups, "redis": redis["spec"]["template"]["spec"]}


def labels() -> dict[str, dict[str, str]]:
    """The labels of these pods, with those that KubeRay adds."""
    cluster = spec()["rayClusterConfig"]
    (redis,) = resources("StatefulSet")
    head = cluster["headGroupSpec"]["template"]["metadata"]["labels"]
    return {
        "head": {**head, "ray.io/node-type": "head", "ray.io/group": "headgroup"},
        **{
            group["groupName"]: {
                **group["template"]["metadata"]["labels"],
                "ray.io/node-type": "worker",
                "ray.io/group": group["groupName"],
            }
            for group in cluster["workerGroupSpecs"]
        },
        "redis": redis["spec"]["template"]["metadata"]["labels"],
    }


def selected(selector: dict[str, str]) -> set[str]:
    return {name for name, has in labels().items() if selector.items() <= has.items()}


# Schemas


@pytest.mark.parametrize("name", NAMES)
def test_the_operators_schema_takes_the_manifest(name: str) -> None:
    assert mistakes(kept_excerpt(name), manifest(name)) == []


def test_a_field_that_the_schema_does_not_know_and_a_wrong_type_are_mistakes() -> None:
    wrong = copy.deepcopy(manifest("rayservice"))
    wrong["spec"]["rayClusterConfig"]["workerGroupSpecs"][0]["minReplica"] = 1
    wrong["spec"]["rayClusterConfig"]["rayVersion"] = 2.60
    found = "\n".join(mistakes(kept_excerpt("rayservice"), wrong))
    assert "'minReplica' was unexpected" in found
    assert "2.6 is not of type 'string'" in found


def test_an_excerpt_has_the_fields_in_use_and_what_the_schema_says_of_them() -> None:
    count = {"type": "integer", "description": "how many"}
    fields = {"n": count, "other": {"type": "string"}, "metadata": {"type": "object"}}
    schema = {"type": "object", "required": ["n"], "properties": fields}
    crd = {"spec": {"versions": [{"name": "v1", "schema": {"openAPIV3Schema": schema}}]}}
    made = excerpt(published(crd, "v1"), [{"n": 1}])
    assert made == {
        "type": "object",
        "required": ["n"],
        "properties": {"n": {"type": "integer"}},
        "additionalProperties": False,
    }


def test_kubernetes_own_kinds_have_their_versions_and_names_of_their_own() -> None:
    found = resources()
    assert {r["kind"]: r["apiVersion"] for r in found} == API_VERSIONS
    named = [(r["kind"], r["metadata"]["name"]) for r in found]
    assert len(set(named)) == len(named)


# Who selects whom


def test_each_budget_is_a_number_of_one_groups_pods() -> None:
    budgets = resources("PodDisruptionBudget")
    assert all(type(b["spec"]["minAvailable"]) is int for b in budgets)
    groups = [selected(b["spec"]["selector"]["matchLabels"]) for b in budgets]
    assert sorted(map(sorted, groups)) == [["cpu"], ["gpu"]]


def test_the_operator_takes_the_alerts_as_it_takes_the_monitor() -> None:
    (monitor,), (rules,) = resources("PodMonitor"), resources("PrometheusRule")
    assert rules["metadata"]["labels"] == monitor["metadata"]["labels"]


def test_prometheus_reads_every_node_of_ray_and_may() -> None:
    (monitor,) = resources("PodMonitor")
    assert selected(monitor["spec"]["selector"]["matchLabels"]) == {"head", "cpu", "gpu"}
    rules = resources("NetworkPolicy")[0]["spec"]["ingress"]
    assert [rule["ports"] for rule in rules if "prometheus" in str(rule.get("from"))] == [
        [{"port": 8080, "protocol": "TCP"}]
    ]


def test_every_pod_has_a_network_policy_and_only_rays_reach_redis() -> None:
    policies = {p["metadata"]["name"]: p["spec"] for p in resources("NetworkPolicy")}
    covered = {n: selected(p["podSelector"]["matchLabels"]) for n, p in policies.items()}
    assert covered == {
        "raylens": {"head", "cpu", "gpu"},
        "raylens-head": {"head"},
        "raylens-redis": {"redis"},
    }
    (rule,) = policies["raylens-redis"]["ingress"]
    assert [selected(f["podSelector"]["matchLabels"]) for f in rule["from"]] == [
        {"head", "cpu", "gpu"}
    ]
    assert not policies["raylens-redis"].get("egress")


def test_the_head_finds_redis_and_may_ask_kubernetes_for_nodes() -> None:
    (service,) = resources("Service")
    assert selected(service["spec"]["selector"]) == {"redis"}
    address = f"{service['metadata']['name']}:{service['spec']['ports'][0]['port']}"
    cluster = spec()["rayClusterConfig"]
    assert cluster["gcsFaultToleranceOptions"]["redisAddress"] == address
    assert cluster["enableInTreeAutoscaling"]
    policies = {p["metadata"]["name"]: p["spec"] for p in resources("NetworkPolicy")}
    (rule,) = policies["raylens-head"]["egress"]
    assert {p["port"] for p in rule["ports"]} == {443, 6443}
    to_redis = [r for r in policies["raylens"]["egress"] if "raylens-redis" in str(r["to"])]
    assert [r["ports"] for r in to_redis] == [[{"port": 6379, "protocol": "TCP"}]]


def test_the_docs_find_the_head_by_its_labels() -> None:
    text = (ROOT / "docs" / "operations.md").read_text()
    found = re.search(r"get pod -l (\S+) -o name\) -c (\S+) -- serve status", text)
    assert found is not None
    assert selected(dict(label.split("=") for label in found[1].split(","))) == {"head"}
    assert found[2] in {container["name"] for container in pods()["head"]["containers"]}


# What the pods are given


def found_below(value: Any, key: str) -> Iterator[Any]:
    if isinstance(value, dict):
        yield from ([value[key]] if key in value else [])
        value = list(value.values())
    if isinstance(value, list):
        for part in value:
            yield from found_below(part, key)


def test_volumes_and_secrets_exist_or_the_first_lines_say_how_to_make_them() -> None:
    claims = {c["metadata"]["name"] for c in resources("PersistentVolumeClaim")}
    assert {c["claimName"] for c in found_below(resources(), "persistentVolumeClaim")} == claims
    told = (CLUSTER / "rayservice.yml").read_text()
    for secret in found_below(resources(), "secretKeyRef"):
        assert f"secret generic {secret['name']} --from-literal={secret['key']}=" in told
    for volume in found_below(resources(), "secret"):
        assert f"secret generic {volume['secretName']} --from-file=" in told


def test_every_pod_of_ray_reads_the_keys_and_sees_them_change() -> None:
    for name in ("head", "cpu", "gpu"):
        pod = pods()[name]
        (container,) = pod["containers"]
        (path,) = (e["value"] for e in container["env"] if e["name"] == "RAYLENS_AUTH__KEYS_FILE")
        (mount,) = (m for m in container["volumeMounts"] if m["name"] == "keys")
        assert "subPath" not in mount
        (secret,) = (v["secret"] for v in pod["volumes"] if v["name"] == "keys")
        assert secret == {"secretName": "raylens-keys"}
        # Of --from-file=keys, the secret has a file `keys`.
        assert path == f"{mount['mountPath']}/keys"


def served() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(spec()["serveConfigV2"])["applications"][0]
    return found


def test_each_node_holds_one_replica_and_an_update_finds_room() -> None:
    deployments = served()["deployments"]
    groups = spec()["rayClusterConfig"]["workerGroupSpecs"]
    cpus = [d["ray_actor_options"]["num_cpus"] for d in deployments]
    # What KubeRay tells Ray of a node, unless the group says otherwise.
    limits = pods()["cpu"]["containers"][0]["resources"]["limits"]
    given = [int(limits["cpu"])]  # decode.threads goes by it, too
    given += [int(groups[1]["rayStartParams"]["num-cpus"])]
    assert cpus == given
    assert cpus[0] > cpus[1]  # no ingress replica takes a GPU's node
    for deployment, group in zip(deployments, groups, strict=True):
        scaling = deployment["autoscaling_config"]
        assert scaling["min_replicas"] == group["minReplicas"] == group["replicas"]
        # A new replica starts before the first old one stops, unless the deployment forbids it.
        surge = deployment.get("max_surge_percent", 100) > 0
        assert group["maxReplicas"] == scaling["max_replicas"] + surge


def test_the_decoding_nodes_are_spread_over_machines() -> None:
    (spread,) = pods()["cpu"]["topologySpreadConstraints"]
    assert selected(spread["labelSelector"]["matchLabels"]) == {"cpu"}
    assert spread["topologyKey"] == "kubernetes.io/hostname"


def test_the_first_container_downloads_the_model_that_is_served() -> None:
    (first,) = pods()["gpu"]["initContainers"]
    found = re.search(r"deployments\.models\.preflight <<< '(.*)'", first["command"][-1])
    assert found is not None
    downloaded = json.loads(found[1])["model"]
    assert {"id", "revision", "device"} == downloaded.keys()
    assert downloaded.items() <= served()["args"]["model"].items()


def test_workers_take_callers_when_haproxy_does_and_leave_after_their_replicas() -> None:
    port = yaml.safe_load(spec()["serveConfigV2"])["http_options"]["port"]
    assert spec()["excludeHeadPodFromServeSvc"]
    for name in ("cpu", "gpu"):
        (container,) = pods()[name]["containers"]
        assert container["readinessProbe"]["httpGet"] == {"path": "/-/healthz", "port": port}
        command = container["lifecycle"]["preStop"]["exec"]["command"]
        subprocess.run([*command[:1], "-n", *command[1:]], check=True)
        deadline = int(shlex.split(command[-1].partition(";")[0])[-1])
        assert deadline == 60 < pods()[name]["terminationGracePeriodSeconds"]


def test_every_container_has_what_a_restricted_namespace_demands_and_a_limit_of_memory() -> None:
    for name, pod in pods().items():
        containers = [*pod["containers"], *pod.get("initContainers", [])]
        assert all("memory" in container["resources"]["limits"] for container in containers)
        if name == "head":  # KubeRay adds the autoscaler's container, with a limit of its own
            containers.append(spec()["rayClusterConfig"]["autoscalerOptions"])
        for container in containers:
            context = {**pod.get("securityContext", {}), **container["securityContext"]}
            assert context["allowPrivilegeEscalation"] is False
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert context["runAsNonRoot"] is True
            assert context["seccompProfile"] == {"type": "RuntimeDefault"}


# ray up


def test_ray_up_takes_its_file_and_starts_ray_as_kuberay_does(tmp_path: Path) -> None:
    config = prepare_config(yaml.safe_load((CLUSTER / "ray-up.yaml").read_text()))
    validate_config(config)
    head = spec()["rayClusterConfig"]["headGroupSpec"]["template"]["spec"]["containers"][0]
    expected = {e["name"]: e["value"] for e in head["env"] if e["name"].startswith("RAY_")}
    expected["RAY_AUTH_MODE"] = serve_environment(tmp_path)["RAY_AUTH_MODE"]
    expected["RAY_SERVE_HAPROXY_BINARY_PATH"] = "$HOME/raylens/bin/raylens-haproxy"
    expected["RAY_gcs_rpc_server_reconnect_timeout_s"] = "600"  # KubeRay's own, of its workers
    for commands in (config["head_setup_commands"], config["worker_setup_commands"]):
        lines = "\n".join(commands).splitlines()
        exports = [shlex.split(line)[1] for line in lines if line.startswith("export ")]
        assert dict(e.split("=", 1) for e in exports) == expected
    for role in ("head", "worker"):
        (*_, last) = config[f"{role}_start_ray_commands"]
        assert last.startswith(". raylens/environment && raylens/bin/ray start ")
        assert "--metrics-export-port=8080" in last  # KubeRay's
