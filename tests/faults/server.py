"""How is a verb begun in a fraction of a second, a hundred times? By forking a process that has imported everything.

`python -m tests.faults.server` reads a line of JSON from standard input for each trial, and answers with one.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

SIGNALS = {"kill": signal.SIGKILL, "interrupt": signal.SIGINT, "lost": signal.SIGKILL}


def warm() -> None:
    """Imports what the verbs import, with one thread: forking is safe only where there is no other."""
    import torch

    torch.set_num_threads(1)
    import circuitsvis  # noqa: F401
    import matplotlib.pyplot
    import networkx  # noqa: F401
    import pandas  # noqa: F401
    import pyarrow.parquet  # noqa: F401
    import sklearn.linear_model  # noqa: F401
    import statsmodels.api  # noqa: F401
    import transformers.models.bloom.modeling_bloom
    import transformers.models.gpt2.modeling_gpt2
    import transformers.models.gpt_neox.modeling_gpt_neox  # noqa: F401

    import probes.calibration
    import probes.planted  # noqa: F401
    from tests.faults.work import make_small

    matplotlib.pyplot.close()
    make_small()


def child(task: dict[str, Any], begun: int) -> int:
    """The verb, in its folder; the exit status."""
    from experiments.cli import main
    from tests.faults.injecting import Injector
    from tests.faults.work import ARGV, careless

    os.setpgid(0, 0)
    os.chdir(task["folder"])
    for number, name in ((1, "out"), (2, "err")):
        handle = os.open(f"{task['log']}.{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(handle, number)
        os.close(handle)
    fault = task["fault"]
    # A delay is the server's; the injector only counts then.
    kind = fault["kind"] if fault["delay"] is None else ""
    injector = Injector(kind, fault["at"], Path(task["mark"]), fault["worker"])
    injector.install()
    argv = ARGV.get(task["verb"], [])
    sys.argv = ["mnemoscope", *argv]
    os.write(begun, b"b")
    try:
        status = careless() if task["verb"] == "careless" else main(argv)
    except KeyboardInterrupt:  # before or after the verb itself, where nothing is being done
        status = 130
    except BaseException:
        traceback.print_exc()
        status = 1
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.stdout.flush()
    sys.stderr.flush()
    os.write(begun, json.dumps(injector.seen).encode())
    return status


def handle_two(task: dict[str, Any]) -> dict[str, Any]:
    """Run a verb twice at once in one folder; return both exit statuses. Their logs end with 0 and 1."""
    pids, pipes = [], []
    for number in range(2):
        receive, send = os.pipe()
        if (pid := os.fork()) == 0:
            status = 99
            try:
                os.close(receive)
                status = child({**task, "log": f"{task['log']}{number}"}, send)
            finally:
                os._exit(status)
        os.close(send)
        os.read(receive, 1)
        pids.append(pid)
        pipes.append(receive)  # open until the child has ended: it writes its number of calls
        time.sleep(task["apart"])
    until, statuses = time.monotonic() + 240, {}
    while len(statuses) < len(pids):
        for pid in pids:
            if pid not in statuses and (status := _ended(pid)) is not None:
                statuses[pid] = status
            elif pid not in statuses and time.monotonic() > until:
                os.killpg(pid, signal.SIGKILL)
        time.sleep(0.005)
    for pipe in pipes:
        os.close(pipe)
    return {"statuses": [statuses[pid] for pid in pids]}


def handle(task: dict[str, Any]) -> dict[str, Any]:
    """One process from its beginning to its end, and the fault if it has a delay."""
    receive, send = os.pipe()
    began = time.monotonic()
    if (pid := os.fork()) == 0:
        status = 99
        try:
            os.close(receive)
            status = child(task, send)
        finally:
            os._exit(status)
    os.close(send)
    os.read(receive, 1)
    began = time.monotonic()
    injected = False
    fault, status = task["fault"], None
    if fault["delay"] is not None:
        while time.monotonic() - began < fault["delay"] and status is None:
            status = _ended(pid)
            time.sleep(0.002)
        if status is None:
            injected = _strike(pid, fault["kind"], fault["at"])
    until = time.monotonic() + 240
    while status is None:
        if time.monotonic() > until:
            os.killpg(pid, signal.SIGKILL)
        status = _ended(pid)
        time.sleep(0.002)
    seconds = time.monotonic() - began
    seen = os.read(receive, 100)
    os.close(receive)
    if task["clean"]:  # workers of a killed process end by themselves, soon
        while True:
            try:
                os.killpg(pid, 0)
            except ProcessLookupError:
                break
            time.sleep(0.02)
    return {
        "status": status,
        "seconds": seconds,
        "calls": int(seen) if seen.isdigit() else None,
        "injected": injected or Path(task["mark"]).exists(),
    }


def _strike(pid: int, kind: str, draw: int) -> bool:
    if kind == "lost":
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8").split()
        if not children:
            return False
        pid = int(random.Random(draw).choice(children))
    with contextlib.suppress(ProcessLookupError):
        if kind == "interrupt":  # a terminal sends it to all
            os.killpg(pid, SIGNALS[kind])
        else:
            os.kill(pid, SIGNALS[kind])
        return True
    return False


def _ended(pid: int) -> int | None:
    found, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if found else None


if __name__ == "__main__":
    warm()
    for line in sys.stdin:
        task = json.loads(line)
        print(json.dumps(handle_two(task) if "apart" in task else handle(task)), flush=True)
