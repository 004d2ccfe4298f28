"""What would 1, 8 and 64 devices buy? Arithmetic on times measured on one: an estimate, not a measurement."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from typing import Literal

DEVICES = (1, 8, 64)
# ASSUMED bytes a second that a device sends while it receives as many; nothing here is measured. Half of the vendor's
# figure where that counts both directions. NVLink 4 has 900 GB/s (NVIDIA H100 datasheet), NDR InfiniBand 400 Gb/s a
# port, one a GPU (NVIDIA DGX H100 datasheet), 10-gigabit Ethernet 1.25 GB/s (IEEE 802.3ae).
LINKS = {"NVLink 4": 450e9, "InfiniBand NDR": 50e9, "10 Gb/s Ethernet": 1.25e9}
# Devices that one machine holds, and which link joins them in it and between several.
A_MACHINE = 8


@dataclass(frozen=True)
class Waves:
    """A grid of independent runs: how long, in how many waves, and how many places the last one leaves empty."""

    seconds: float
    waves: int
    a_device: int
    idle: int


@dataclass(frozen=True)
class Parallel:
    """One model over several devices: a step's seconds, the part that computes, and how many times faster it is."""

    seconds: float
    efficiency: float
    speedup: float


def grid_waves(runs: int, seconds_a_run: Mapping[int, float], devices: int) -> Waves:
    """The shortest time for independent runs on some devices.

    `seconds_a_run`: of one run while so many share a device, measured. Every place takes a new run as it becomes free;
    as all take the same time, that is in waves: ceil(runs / places) times the time of one run.

    >>> grid_waves(77, {1: 100.0, 4: 150.0}, devices=8)
    Waves(seconds=450.0, waves=3, a_device=4, idle=19)
    """
    if runs < 1 or devices < 1 or not seconds_a_run:
        raise ValueError(f"at least one run, one device and one measured time are needed; got {runs} and {devices}")
    found = []
    for a_device, seconds in seconds_a_run.items():
        waves = ceil(runs / (devices * a_device))
        found.append(Waves(waves * seconds, waves, a_device, waves * devices * a_device - runs))
    return min(found, key=lambda w: (w.seconds, w.a_device))


def all_reduce_seconds(size: float, devices: int, bandwidth: float) -> float:
    """How long a ring of devices takes to sum `size` bytes of gradients: each sends 2 (N - 1) / N of them.

    Bandwidth alone: no latency, and nothing hidden behind the backward pass.

    >>> all_reduce_seconds(8e9, devices=8, bandwidth=7e9)
    2.0
    """
    return 2 * (devices - 1) / devices * size / bandwidth


def data_parallel(
    compute: float, gradients: float, devices: int, bandwidth: float, fixed: Literal["device", "global"] = "device"
) -> Parallel:
    """A step of one model, a copy on each device. `compute`: seconds of a step on one, measured; `gradients`: bytes.

    fixed="device": each has the whole batch's number of prompts, so a step teaches N times as many. fixed="global":
    the batch is shared out, and computing is taken to shrink with it, which it does only while a device stays full.

    >>> data_parallel(1.0, 7e9, devices=8, bandwidth=49e9)
    Parallel(seconds=1.25, efficiency=0.8, speedup=6.4)
    >>> data_parallel(1.0, 7e9, devices=8, bandwidth=49e9, fixed="global").seconds
    0.375
    """
    ours = compute if fixed == "device" else compute / devices
    seconds = ours + all_reduce_seconds(gradients, devices, bandwidth)
    return Parallel(seconds, ours / seconds, devices * ours / seconds)


def worthwhile_compute(gradients: float, devices: int, bandwidth: float, efficiency: float = 0.9) -> float:
    """Seconds that a step must compute on a device for summing gradients to cost no more than 1 - `efficiency` of it.

    >>> worthwhile_compute(7e9, devices=8, bandwidth=49e9, efficiency=0.8)
    1.0
    """
    return round(efficiency / (1 - efficiency), 9) * all_reduce_seconds(gradients, devices, bandwidth)


def link_of(device: str, devices: int) -> str:
    """The link that is assumed: a GPU's own within a machine of eight, the network's beyond, Ethernet for CPUs."""
    if device == "cpu":
        return "10 Gb/s Ethernet"
    return "NVLink 4" if devices <= A_MACHINE else "InfiniBand NDR"
