"""Excerpts of the schemas that operators publish for their kinds: what configs/cluster/ uses.

    python -m tests.crds.excerpt NAME CRD.yaml VERSION

writes NAME's anew, from the CRD of a version. `NAMES` has where it is published.
"""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator

from tests.servers import ROOT

Schema = dict[str, Any]

FOLDER = Path(__file__).parent
# The manifest of each, and the CRD in its operator's repository. Both are Apache-2.0.
NAMES = {
    "rayservice": (
        "ray-project/kuberay",
        "ray-operator/config/crd/bases/ray.io_rayservices.yaml",
    ),
    "pod-monitor": (
        "prometheus-operator/prometheus-operator",
        "example/prometheus-operator-crd/monitoring.coreos.com_podmonitors.yaml",
    ),
    "prometheus-rules": (
        "prometheus-operator/prometheus-operator",
        "example/prometheus-operator-crd/monitoring.coreos.com_prometheusrules.yaml",
    ),
}
HEADER = """\
# An excerpt of {file}
# of github.com/{repository} {version}, Apache License 2.0: the fields that
# configs/cluster/{name}.yml has. Made by tests/crds/excerpt.py.
"""
# Of a schema's keywords, those that a manifest can break.
KEPT = {"type", "required", "enum", "pattern", "anyOf", "minimum", "maximum", "minLength", "format"}


def manifest(name: str) -> Any:
    """The resource of the kind that the file is about."""
    return next(yaml.safe_load_all((ROOT / "configs" / "cluster" / f"{name}.yml").read_text()))


def mistakes(schema: Schema, resource: Any) -> list[str]:
    """Also fields that the schema does not know, which `kubectl apply` refuses."""
    found = Draft202012Validator(schema).iter_errors(resource)
    return [f"{'.'.join(map(str, e.absolute_path))}: {e.message}" for e in found]


def published(crd: Any, version: str) -> Schema:
    """A CRD's schema of the resource in a version, closed for unknown fields."""
    (found,) = (v for v in crd["spec"]["versions"] if v["name"] == version)
    schema: Schema = found["schema"]["openAPIV3Schema"]
    schema["properties"]["metadata"] = {"type": "object", "x-kubernetes-preserve-unknown-fields": 1}
    for part in _parts(schema):
        if "properties" in part and "x-kubernetes-preserve-unknown-fields" not in part:
            part.setdefault("additionalProperties", False)
    return schema


def _parts(schema: Schema) -> Iterator[Schema]:
    yield schema
    below = [*schema.get("properties", {}).values(), schema.get("items")]
    for part in (*below, schema.get("additionalProperties")):
        if isinstance(part, dict):
            yield from _parts(part)


def excerpt(schema: Schema, values: Sequence[Any]) -> Schema:
    """The schema without the fields that none of the values has."""
    kept = {key: value for key, value in schema.items() if key in KEPT}
    if "properties" in schema:
        fields = schema["properties"]
        used = [field for field in fields if any(field in value for value in values)]
        kept["properties"] = {
            field: excerpt(fields[field], [value[field] for value in values if field in value])
            for field in used
        }
    if "items" in schema:
        kept["items"] = excerpt(schema["items"], [item for value in values for item in value])
    more = schema.get("additionalProperties")
    if isinstance(more, dict):
        kept["additionalProperties"] = excerpt(
            more, [v for value in values for v in value.values()]
        )
    elif more is False:
        kept["additionalProperties"] = False
    return kept


def kept_excerpt(name: str) -> Schema:
    found: Schema = yaml.safe_load((FOLDER / f"{name}.yaml").read_text())
    return found


def main(name: str, crd: str, version: str) -> int:
    resource = manifest(name)
    content = yaml.load(Path(crd).read_text(), yaml.CSafeLoader)
    schema = published(content, resource["apiVersion"].rpartition("/")[2])
    wrong = mistakes(schema, resource)
    if wrong:
        print(*wrong, sep="\n")
        return 1
    repository, file = NAMES[name]
    header = HEADER.format(name=name, repository=repository, file=file, version=version)
    body = yaml.safe_dump(excerpt(schema, [resource]), sort_keys=False, width=100)
    (FOLDER / f"{name}.yaml").write_text(header + body)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
