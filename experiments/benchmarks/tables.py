"""How are the measurements of scaling, and the estimates from them, laid out? Heads and cells, for any table."""

from __future__ import annotations

from experiments.benchmarks.estimates import (
    DEVICES,
    LINKS,
    all_reduce_seconds,
    data_parallel,
    grid_waves,
    link_of,
    worthwhile_compute,
)
from experiments.benchmarks.scaling import seconds_of_run

Laid = tuple[list[str], list[list[str]]]


def measured_steps(rows: dict[str, dict]) -> Laid:
    """Every row of steps as it was measured, and what a sweep does with a trained run."""
    head = [
        "device",
        "layers x d",
        "precision",
        "runs at once",
        "ms a step",
        "tokens/s",
        "GFLOP/s",
        "gradients MB",
        "load before",
    ]
    cells = [
        [
            row["device"],
            _shape(row),
            _precision(row),
            str(row["case"]["runs"]),
            _number(row["ms_a_step"]),
            _number(row["tokens_a_second"]),
            _number(row["flops_a_second"] / 1e9),
            _number(row["gradient_bytes"] / 1e6),
            f"{row['busy']:.1f}",
        ]
        for row in _steps(rows)
    ]
    return head, cells


def estimated_grid(rows: dict[str, dict]) -> Laid:
    """The whole grid on 1, 8 and 64 devices like those measured, as many runs on each as is fastest.

    Every run is taken to have the mean of the grid's steps.
    """
    from experiments.grid import runs_of

    runs, stages = runs_of(), {row["case"]["device"]: row for row in _stages(rows)}
    head = ["device", "precision", "devices", "runs a device", "waves", "hours", "left empty in the last wave"]
    steps = sum(train.recipe().steps for train in runs) / len(runs)
    cells = []
    for device, precision in dict.fromkeys((r["device"], _precision(r)) for r in _zoo(rows)):
        alike = [r for r in _zoo(rows) if (r["device"], _precision(r)) == (device, precision)]
        if (after := stages.get(alike[0]["case"]["device"])) is None:
            continue  # what comes after training was not measured there
        seconds = {r["case"]["runs"]: seconds_of_run(r, after, steps) for r in alike}
        for devices in DEVICES:
            found = grid_waves(len(runs), seconds, devices)
            empty = f"{found.idle} of {devices * found.a_device}"
            hours = f"{found.seconds / 3600:.2g}"
            cells.append([device, precision, str(devices), str(found.a_device), str(found.waves), hours, empty])
    return head, cells


def estimated_parallel(rows: dict[str, dict]) -> Laid:
    """One model of each shape over 8 and 64 devices: efficiency with a whole batch on each, speed-up of one shared."""
    head = [
        "device",
        "layers x d",
        "precision",
        "devices",
        "link (assumed)",
        "efficiency, a batch each",
        "speed-up, one batch shared",
    ]
    cells = []
    for row in (r for r in _steps(rows) if r["case"]["runs"] == 1):
        for devices in DEVICES[1:]:
            link = link_of(row["case"]["device"], devices)
            measured = (row["ms_a_step"] / 1000, row["gradient_bytes"], devices, LINKS[link])
            each, shared = data_parallel(*measured), data_parallel(*measured, fixed="global")
            cells.append(
                [
                    row["device"],
                    _shape(row),
                    _precision(row),
                    str(devices),
                    link,
                    f"{each.efficiency:.1%}",
                    f"{shared.speedup:.3g}",
                ]
            )
    return head, cells


def estimated_links(rows: dict[str, dict]) -> Laid:
    """For each shape: what summing its gradients takes over GPUs' links, and how long a step must be for that to pay.

    Of the measured rows it takes the number of gradients alone, so it needs no GPU.
    """
    head = ["layers x d", "gradients MB", "GPUs", "link (assumed)", "all-reduce ms", "90 % efficient from, ms a step"]
    sizes = {_shape(row): row["gradient_bytes"] for row in _steps(rows)}
    cells = []
    for shape, size in sizes.items():
        for devices in DEVICES[1:]:
            link = link_of("cuda", devices)
            ms = [1000 * found(size, devices, LINKS[link]) for found in (all_reduce_seconds, worthwhile_compute)]
            cells.append([shape, _number(size / 1e6), str(devices), link, *map(_number, ms)])
    return head, cells


def stage_words(rows: dict[str, dict]) -> str:
    """What a sweep's other stages take, a sentence a machine."""
    said = []
    for row in _stages(rows):
        seconds = ", ".join(f"{name} {value:.0f}" for name, value in row["seconds"].items())
        said.append(f"Seconds a run after training, one run alone, on {row['device']}: {seconds}.")
    return " ".join(said)


def _steps(rows: dict[str, dict]) -> list[dict]:
    return [row for row in rows.values() if "ms_a_step" in row]


def _zoo(rows: dict[str, dict]) -> list[dict]:
    return [row for row in _steps(rows) if "ms_a_check" in row]


def _stages(rows: dict[str, dict]) -> list[dict]:
    return [row for row in rows.values() if "seconds" in row]


def _shape(row: dict) -> str:
    return f"{row['case']['n_layers']} x {row['case']['d_model']}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def _precision(row: dict) -> str:
    return "float32" if row["case"]["precision"] == "no" else row["case"]["precision"]
