"""A running command is told to stop by a signal, at whatever moment it comes."""

import signal
import subprocess
import sys

from raylens.stopping import stop_signals

# Waits very shortly again and again, so that the signal comes in the middle of `wait`.
PROGRAM = """
import random, signal
from raylens.stopping import stop_signals

for _ in range(3000):
    with stop_signals() as stop:
        signal.signal(signal.SIGALRM, signal.getsignal(signal.SIGTERM))
        signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-5, 1e-4))
        while not stop.wait(1e-6):
            pass
"""


def test_a_signal_in_the_middle_of_waiting_ends_it() -> None:
    subprocess.run([sys.executable, "-c", PROGRAM], check=True, timeout=60)


def test_a_signal_is_remembered_and_the_handlers_of_before_come_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with stop_signals() as stop:
        assert not stop.is_set()
        signal.raise_signal(signal.SIGTERM)
        assert stop.wait(0.1)
        assert stop.is_set()
    assert signal.getsignal(signal.SIGTERM) is before
