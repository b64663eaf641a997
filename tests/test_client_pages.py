"""The compose files in docs/clients are complete, and run this service with valid settings."""

import re
from typing import Any

import pytest
import yaml

from deployments.settings import Settings
from tests.servers import ROOT

PAGES = ROOT / "docs" / "clients"


def services(page: str) -> dict[str, dict[str, Any]]:
    """Those of the page's docker-compose.yml."""
    (text,) = re.findall(r"^```yaml\n(.*?)^```$", (PAGES / page).read_text(), re.M | re.S)
    compose = yaml.safe_load(text)
    for service in compose["services"].values():
        named = {mount.split(":")[0] for mount in service.get("volumes", ())}
        assert named <= compose["volumes"].keys()
        assert service.get("depends_on", {}).keys() <= compose["services"].keys()
    return dict(compose["services"])


@pytest.mark.parametrize("page", ["immich.md", "weaviate.md"])
def test_compose_files_run_a_config_that_the_image_has(page: str) -> None:
    ours = services(page)["raylens"]
    (config,) = ours["command"]
    assert (ROOT / config).is_file()
    assert "COPY configs configs" in (ROOT / "Dockerfile").read_text()
    (mount,) = ours["volumes"]
    assert f"VOLUME {mount.split(':')[1]}" in (ROOT / "Dockerfile").read_text()


def test_weaviate_is_pointed_at_the_service() -> None:
    found = services("weaviate.md")
    environment = found["weaviate"]["environment"]
    assert environment["ENABLE_MODULES"] == "multi2vec-clip"
    assert environment["CLIP_INFERENCE_API"] == "http://raylens:8000"
    assert "ports" not in found["raylens"]  # for Weaviate alone
    assert "EXPOSE 8000\n" in (ROOT / "Dockerfile").read_text()
    assert all(isinstance(value, str) for value in environment.values())


def test_immichs_model_and_fallback_are_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in services("immich.md")["raylens"]["environment"].items():
        monkeypatch.setenv(name, value)
    settings = Settings()
    assert settings.api.immich_fallback == "http://immich-machine-learning:3003"
    assert settings.model.aliases == ("ViT-B-32__openai",)
