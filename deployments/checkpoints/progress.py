"""The progress of a model's download. Knows nothing of files or where they come from."""

import io
import logging
import sys
import time
from typing import Any

from huggingface_hub.utils.tqdm import tqdm

logger = logging.getLogger("ray.serve")

LOG_EVERY_S = 10.0


class Progress:
    """The progress of one model's download: a bar on a terminal, elsewhere a log line now and then.

    Shows nothing if there is next to nothing to download.
    """

    def __init__(self, id: str) -> None:
        self._id = id
        self._counters: list[tqdm] = []
        self._bar: tqdm | None = None
        self._logged = time.monotonic()

    def counter(self) -> type[tqdm]:
        """A tqdm class for the hub's client, which makes a bar each for the network, the disk and
        the number of files, none of them with the model's name."""
        show, counters = self._show, self._counters

        class Counter(tqdm):
            monitor_interval = 0  # no monitor thread

            def __init__(self, *args: Any, **options: Any) -> None:
                # Enabled without a terminal too, and not writing to one itself.
                options |= {"disable": False, "file": io.StringIO()}
                super().__init__(*args, **options)  # type: ignore[no-untyped-call]
                if options.get("unit") == "B" and not self.disable:  # HF_HUB_DISABLE_PROGRESS_BARS
                    counters.append(self)

            def display(self, *args: Any, **options: Any) -> None:
                show()

        return Counter

    def close(self) -> None:
        self._counters.clear()  # the client's bars call `display` once more when collected
        if self._bar is not None:
            self._bar.close()

    def _show(self) -> None:
        done = max((counter.n for counter in self._counters), default=0)
        total = max((counter.total or 0 for counter in self._counters), default=0)
        if total < 1e6:  # the small files come first, and are not worth showing
            return
        if not sys.stderr.isatty():
            if time.monotonic() - self._logged >= LOG_EVERY_S:
                self._logged = time.monotonic()
                logger.info(f"Downloading {self._id}: {done / total:.0%} of {total / 1e6:.0f} MB")
            return
        if self._bar is None:
            options = {"desc": self._id, "unit": "B", "unit_scale": True, "position": 0}
            self._bar = tqdm(**options)  # type: ignore[no-untyped-call]
        self._bar.total = total
        self._bar.update(done - self._bar.n)
