"""Signals end a command: the first one unwinds it, the second one ends it at once, without a traceback."""

import os
import signal
import subprocess
import sys
import time

import pytest

from experiments.support.interrupting import Interrupted, interruptible

SCRIPT = """
import sys, time
from experiments.support.interrupting import interruptible
try:
    with interruptible():
        print("ready", flush=True)
        time.sleep(60)
except KeyboardInterrupt as error:
    print("unwinding", flush=True)
    time.sleep(60 if "slow" in sys.argv else 0)
    sys.exit(error.status)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_every_signal_unwinds(number):
    def wait() -> None:
        with interruptible():
            os.kill(os.getpid(), number)
            time.sleep(5)

    # A process that a shell starts in the background ignores SIGINT, and so do its children.
    signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    with pytest.raises(Interrupted) as caught:
        wait()
    assert isinstance(caught.value, KeyboardInterrupt)
    assert caught.value.status == 128 + number
    for handled in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(handled, signal.default_int_handler if handled == signal.SIGINT else signal.SIG_DFL)


def test_handlers_are_put_back_without_a_signal():
    before = signal.getsignal(signal.SIGTERM)
    with interruptible():
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize("slow", [False, True])
def test_a_second_signal_ends_the_teardown_without_a_traceback(slow):
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, *(["slow"] if slow else [])],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "unwinding\n"
    if slow:
        process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert err == ""
