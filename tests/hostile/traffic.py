"""Ordinary traffic during the attack, from threads of its own."""

import statistics
import threading
import time

import httpx
import numpy as np

PER_SECOND = 10


class GoodTraffic:
    """Sends one good image ten times a second, and compares the vectors."""

    def __init__(self, url: str, image: bytes) -> None:
        self._url = f"{url}/v1/embeddings"
        self._image = image
        self.latencies_s: list[float] = []
        self.problems: list[str] = []
        self.first = self.embed()
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(i,), daemon=True) for i in range(PER_SECOND)
        ]

    def embed(self) -> np.ndarray:
        headers = {"Content-Type": "image/jpeg"}
        response = httpx.post(self._url, content=self._image, headers=headers, timeout=60)
        if response.status_code != 200:
            raise RuntimeError(f"{response.status_code} {response.text[:200]}")
        return np.array(response.json()["data"][0]["embedding"], np.float32)

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self, number: int) -> None:
        # Each sends once a second, a tenth of a second after the one before.
        due = time.monotonic() + number / PER_SECOND
        with httpx.Client(timeout=60) as client:
            headers = {"Content-Type": "image/jpeg"}
            while not self._stop.wait(max(0.0, due - time.monotonic())):
                try:
                    response = client.post(self._url, content=self._image, headers=headers)
                    if response.status_code != 200:
                        self.problems.append(f"{response.status_code} {response.text[:200]}")
                    else:
                        vector = np.array(response.json()["data"][0]["embedding"], np.float32)
                        if not np.allclose(vector, self.first, atol=1e-4):
                            self.problems.append("a different vector")
                except httpx.HTTPError as error:
                    self.problems.append(f"dropped ({type(error).__name__})")
                self.latencies_s.append(time.monotonic() - due)
                due += 1

    def p99_s(self) -> float:
        return statistics.quantiles(self.latencies_s, n=100)[98]
