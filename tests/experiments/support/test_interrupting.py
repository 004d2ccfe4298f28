"""Signals end a command: the first one unwinds it, the second one ends it at once, without a traceback."""

import os
import signal
import subprocess
import sys
import time

import pytest

from experiments.support.interrupting import SAME, Interrupted, held_signals, interruptible

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


# An object that is destroyed when modules are, after the signal module has put the system's handlers back.
LATE = """
import os, signal
class Late:
    def __del__(self, os=os, write=os.write, kill=os.kill, me=os.getpid(), number=signal.SIGTERM):
        write(1, b"late\\n")
        kill(me, number)
sys.late = Late()
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


def test_an_exception_that_replaces_the_signal_is_an_interruption():
    """The import of a C extension raises ImportError where a signal came during it."""

    def interrupted_import() -> None:
        with interruptible():
            try:
                signal.raise_signal(signal.SIGTERM)
            except KeyboardInterrupt:
                raise ImportError("initialization failed") from None

    with pytest.raises(Interrupted) as caught:
        interrupted_import()
    assert caught.value.status == 128 + signal.SIGTERM
    for handled in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(handled, signal.default_int_handler if handled == signal.SIGINT else signal.SIG_DFL)
    with pytest.raises(ImportError), interruptible():  # without a signal it stays what it is
        raise ImportError("initialization failed")


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
        time.sleep(2 * SAME)
        process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert err == slow * "ended at once by a second signal; the same command resumes from what is finished\n"


def test_a_signal_that_comes_twice_at_once_is_one():
    """As from `timeout`, which signals the process and then its group."""
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (130, "unwinding\n", "")


def test_a_signal_while_the_interpreter_ends_does_not_change_the_exit_status():
    """The second of a pair may come when Python has put the system's handlers back."""
    script = SCRIPT.replace("import sys, time\n", f"import sys, time\n{LATE}")
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (130, "unwinding\nlate\n", "")


@pytest.fixture
def usual_handler():
    """Ctrl-C as in a shell's foreground, whatever the test's own process does."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_a_held_signal_acts_where_the_block_allows_it(usual_handler):
    done = []

    def work() -> None:
        with held_signals() as held:
            for step in range(3):
                signal.raise_signal(signal.SIGINT)
                done.append(step)
                held.obey()

    with pytest.raises(KeyboardInterrupt):
        work()
    assert done == [0]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_held_signal_that_nobody_obeyed_acts_at_the_end(usual_handler):
    done = []

    def work() -> None:
        with held_signals():
            signal.raise_signal(signal.SIGINT)
            done.append("whole")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert done == ["whole"]


def test_without_a_signal_nothing_is_raised_and_errors_pass(usual_handler):
    with held_signals() as held:
        held.obey()
    with pytest.raises(ZeroDivisionError), held_signals():
        _ = 1 / 0
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_second_signal_does_not_wait_for_the_block():
    script = """
import time
from experiments.support.interrupting import held_signals
with held_signals():
    print("ready", flush=True)
    time.sleep(60)
"""
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    time.sleep(0.2)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 128 + signal.SIGTERM
    process.stdout.close()
