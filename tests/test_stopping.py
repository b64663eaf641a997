"""A running command is told to stop by a signal, at whatever moment it comes.

Each program has a process to itself, which the signal would end if it were not handled.
"""

import subprocess
import sys

import pytest

# Waits very shortly again and again, so that the signal comes in the middle of `wait`.
IN_THE_MIDDLE = """
for _ in range(3000):
    with stop_signals() as stop:
        signal.signal(signal.SIGALRM, signal.getsignal(signal.SIGTERM))
        signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-5, 1e-4))
        while not stop.wait(1e-6):
            pass
"""

ANOTHER_THREAD_GETS_IT = """
def get_signal():
    time.sleep(0.1)
    signal.pthread_kill(threading.get_ident(), signal.SIGTERM)

with stop_signals() as stop:
    threading.Thread(target=get_signal).start()
    began = time.monotonic()
    assert stop.wait(10)
    assert time.monotonic() - began < 5
"""

ANOTHER_SIGNAL = """
with stop_signals() as stop:
    signal.signal(signal.SIGUSR1, lambda *_: None)
    signal.raise_signal(signal.SIGUSR1)
    for _ in range(3):
        assert not stop.wait(0.01)
"""

AFTERWARDS = """
before = signal.getsignal(signal.SIGTERM)
with stop_signals() as stop:
    signal.raise_signal(signal.SIGTERM)
    assert stop.is_set()
    assert stop.wait(10)
assert signal.getsignal(signal.SIGTERM) is before
assert signal.set_wakeup_fd(-1) == -1
"""


@pytest.mark.parametrize(
    "program",
    [
        pytest.param(IN_THE_MIDDLE, id="in the middle of waiting"),
        pytest.param(ANOTHER_THREAD_GETS_IT, id="another thread gets it"),
        pytest.param(ANOTHER_SIGNAL, id="another signal does not count"),
        pytest.param(AFTERWARDS, id="afterwards all is as it was before"),
    ],
)
def test_a_signal_ends_waiting(program: str) -> None:
    imports = "import random, signal, threading, time\nfrom raylens.stopping import stop_signals\n"
    subprocess.run([sys.executable, "-c", imports + program], check=True, timeout=60)
