"""A running command is told to stop by a signal, at whatever moment it comes."""

import os
import signal
import subprocess
import sys
import threading
import time

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


def test_a_signal_that_another_thread_gets_ends_waiting_at_once() -> None:
    def get_signal() -> None:
        time.sleep(0.1)
        signal.pthread_kill(threading.get_ident(), signal.SIGTERM)

    with stop_signals() as stop:
        thread = threading.Thread(target=get_signal)
        thread.start()
        began = time.monotonic()
        assert stop.wait(10)
        assert time.monotonic() - began < 5
        thread.join()


def test_another_signal_does_not_end_it() -> None:
    with stop_signals() as stop:
        before = signal.signal(signal.SIGUSR1, lambda *_: None)
        os.kill(os.getpid(), signal.SIGUSR1)
        assert not stop.wait(0.01)
        assert not stop.wait(0.01)
        signal.signal(signal.SIGUSR1, before)


def test_afterwards_signals_do_what_they_did_before() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with stop_signals() as stop:
        signal.raise_signal(signal.SIGTERM)
        assert stop.is_set()
        assert stop.wait(10)
    assert signal.getsignal(signal.SIGTERM) is before
    assert signal.set_wakeup_fd(-1) == -1
