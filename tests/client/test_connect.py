"""When `connect()` uses this user's Ray token."""

import os
from pathlib import Path

import pytest

import raylens


@pytest.mark.parametrize(
    ("address", "has_token"),
    [
        ("auto", True),
        ("127.0.0.2:41234", True),
        ("ray://localhost:10001", True),
        ("10.0.0.5:6379", False),
        ("ray://cluster.example.org:10001", False),
    ],
)
def test_only_a_ray_of_this_machine_gets_the_token(
    address: str, has_token: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray/auth_token").write_text("token")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RAY_AUTH_MODE", "x")  # so that it is restored
    monkeypatch.delenv("RAY_AUTH_MODE")

    def nowhere(**_: object) -> None:
        raise ConnectionError

    ray = pytest.importorskip("ray")
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", nowhere)
    with pytest.raises(ConnectionError):
        raylens.connect(address)
    assert ("RAY_AUTH_MODE" in os.environ) == has_token
