"""The HAProxy that raylens runs comes back when it is killed, and goes with the service."""

import os
import signal
import subprocess
import threading
import time
from pathlib import Path

import httpx

from tests.haproxies import LAUNCHER, SHORT_SPARE_LIFE, App, Front, app, front
from tests.until import until

__all__ = ["app", "front"]  # fixtures


def test_haproxy_that_is_killed_is_back_with_its_routes_within_half_a_second(
    front: Front, app: type[App]
) -> None:
    victim = front.start()
    time.sleep(1.1)
    for _ in range(3):
        os.kill(victim.pid, signal.SIGKILL)
        began = time.monotonic()
        time.sleep(0.05)
        until(front.is_listening, within_s=5)
        assert time.monotonic() - began < 0.5
        assert front.post().status_code == 200
        time.sleep(1.1)  # one that does not live for a second is not started again
        (victim,) = (p for p in front.running() if "spare.cfg" in " ".join(p.cmdline()))  # type: ignore[assignment]


def test_a_new_manager_takes_over_from_the_spare_one_and_keeps_the_routes(front: Front) -> None:
    victim = front.start()
    time.sleep(1.1)
    os.kill(victim.pid, signal.SIGKILL)
    until(lambda: (front.folder / "spare.sock").exists() and front.is_listening())
    failures: list[str] = []
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            try:
                if (status := front.post().status_code) != 200:
                    failures.append(str(status))
            except httpx.HTTPError as error:
                failures.append(repr(error))

    asking = threading.Thread(target=ask)
    asking.start()
    successor = front.start(routes=False)  # which has not been told of them yet
    until(lambda: not any("spare.cfg" in " ".join(p.cmdline()) for p in front.running()))
    front.start("-sf", str(successor.pid), "-x", f"{front.folder}/admin.sock")
    successor.wait(10)
    stop.set()
    asking.join()
    assert failures == []


def test_when_the_service_has_ended_in_whatever_way_nothing_is_left(front: Front) -> None:
    victim = front.start()
    time.sleep(1.1)
    os.kill(victim.pid, signal.SIGKILL)
    until(lambda: (front.folder / "spare.sock").exists() and front.is_listening())
    front.service.kill()
    front.service.wait()
    until(lambda: not front.running(), within_s=10)


def test_a_spare_one_that_no_manager_takes_over_ends(front: Front) -> None:
    victim = front.start(launcher=SHORT_SPARE_LIFE)
    time.sleep(1.1)
    os.kill(victim.pid, signal.SIGKILL)  # as Serve does when it is shut down
    until(lambda: (front.folder / "spare.sock").exists() and front.is_listening())
    until(lambda: not front.running(), within_s=10)


def test_a_spare_one_does_not_outlive_its_keeper(front: Front) -> None:
    victim = front.start()
    time.sleep(1.1)
    os.kill(victim.pid, signal.SIGKILL)
    until(lambda: (front.folder / "spare.sock").exists() and front.is_listening())
    (keeper,) = (p for p in front.running() if "python" in p.name())
    keeper.kill()
    until(lambda: not front.running(), within_s=10)


def test_by_hand_the_launcher_says_what_it_is_for(tmp_path: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "RAY_RAYLET_PID"}
    done = subprocess.run(
        [*LAUNCHER, "-f", str(tmp_path / "haproxy.cfg")],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "is for Ray Serve" in done.stderr


def test_applications_that_were_deleted_do_not_come_back(front: Front) -> None:
    first = front.start()
    second = front.start("-sf", str(first.pid), "-x", f"{front.folder}/admin.sock", routes=False)
    first.wait(10)
    os.kill(second.pid, signal.SIGKILL)
    until(lambda: not front.running(), within_s=10)


def test_a_manager_that_died_without_its_haproxy_is_followed_by_another(front: Front) -> None:
    first = front.start()
    assert front.post().status_code == 200
    second = front.start(routes=False)
    first.wait(10)
    assert second.poll() is None
    assert front.post().status_code == 200
