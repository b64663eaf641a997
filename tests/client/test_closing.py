"""What becomes of calls, threads and sockets when a client is closed, forgotten or forked."""

import gc
import os
import threading
import time
import warnings
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from raylens import Client
from tests.client.conftest import running
from tests.client.test_http import ITEM
from tests.until import until


async def silent(scope: Any, receive: Any, send: Any) -> None:
    """Never answers."""
    while (await receive())["type"] != "http.disconnect":
        pass


def threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name == "raylens-client"}


def test_closing_a_client_ends_the_calls_of_other_threads() -> None:
    with running(silent) as url, ThreadPoolExecutor(2) as pool:
        client = Client(url)
        calls: list[Future[Any]] = [pool.submit(client.models), pool.submit(client.ready)]
        time.sleep(0.3)
        client.close()
        for call in calls:
            assert isinstance(call.exception(timeout=10), RuntimeError)
            assert "the client is closed" in str(call.exception())


def test_threads_that_race_with_close_are_never_left_waiting() -> None:
    with running(silent) as url, ThreadPoolExecutor(8) as pool:
        for _ in range(20):
            client = Client(url)
            calls = [pool.submit(client.models) for _ in range(6)]
            closing = pool.submit(client.close), pool.submit(client.close)
            for call in calls:
                assert isinstance(call.exception(timeout=10), RuntimeError)
            for one in closing:
                one.result(timeout=10)


def test_a_client_that_is_forgotten_takes_its_thread_along() -> None:
    before = threads()
    client = Client("http://127.0.0.1:9")
    assert len(threads() - before) == 1
    del client
    gc.collect()
    until(lambda: threads() <= before)


def test_a_client_says_that_it_did_not_survive_a_fork() -> None:
    with Client("http://127.0.0.1:9", retries=0) as client:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about threads, which is what this is about
            child = os.fork()
        if child == 0:
            try:
                client.models()
            except RuntimeError as error:
                client.close()
                os._exit(7 if "fork" in str(error) else 1)
            os._exit(2)
        ended = (0, 0)

        def has_ended() -> bool:
            nonlocal ended
            ended = os.waitpid(child, os.WNOHANG)
            return ended[0] == child

        until(has_ended)
        assert os.waitstatus_to_exitcode(ended[1]) == 7
        with pytest.raises(ConnectionError):  # the parent's goes on
            client.embed([np.asarray(ITEM)])
