"""`mnemoscope patch` on a shipped run and on text: what it writes and refuses, and how it resumes after a kill."""

import json
import os
import re
import subprocess
import sys
import time
from functools import cache
from pathlib import Path
from typing import Any

import pandas
import pytest
import torch

from experiments import load
from experiments.cli import main
from experiments.commands.patch import PatchCommand
from interp.forward import predict
from interp.models import ModelConfig, build_model, save_run
from interp.patching import Joint, Sweep, accuracy, kl, logit_diff, patch, probability
from interp.patching.cells import PATCH_SITES
from interp.support.writing import read_digested
from interp.tasks import Role, counterfactual, default_tokenizer, default_vocabulary

RUN = "parity-aligned-alibi"
HERE = Path("mnemoscope-out", RUN)
SMALL = ["--length", "6", "--step", "4", "--prompts", "2"]
# Ten units of work: five buckets of positions for each of two slices of prompts.
LARGER = ["patch", RUN, "--length", "12", "--step", "5", "--prompts", "33", "--site", "resid_mid"]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@cache
def shipped():
    return load(RUN)


def prompts(corrupt: Any = "flip_input"):
    """The prompts of the verb, by the library."""
    clean = shipped().sample(2, 6, 0)
    match corrupt:
        case "flip_input":
            return clean, counterfactual.flip_input(clean, 4)
        case "redraw":
            return clean, counterfactual.redraw(clean, 1)
    role = Role.INPUT_LABEL if corrupt == "swap_input_labels" else Role.OUTPUT_LABEL
    clean, _ = PatchCommand(RUN, corrupt=corrupt, length=6, step=4, partner=2, prompts=2).pair(shipped())
    bits = clean.tokens[:, torch.cat([clean.at(Role.INPUT, s) for s in (4, 2)])]
    assert bits.shape == (2, 2)
    assert (bits[:, 0] != bits[:, 1]).all()  # where they are equal, a swap changes no answer
    return clean, counterfactual.swap_labels(clean, 4, 2, role)


def written(*more, site="resid_pre", folder=HERE):
    """Runs the verb: its table and its record."""
    assert main(["patch", RUN, *SMALL, "--site", site, *more]) == 0
    assert sorted(p.name for p in folder.iterdir()) == [f"patch-{site}.{end}" for end in ("json", "parquet", "svg")]
    record = json.loads((folder / f"patch-{site}.json").read_text())
    return pandas.read_parquet(folder / f"patch-{site}.parquet"), record


def assert_same(table, effect):
    """One row for each cell and prompt, in order, with the values of the library's own call."""
    assert list(table.columns) == [*effect.axes, "prompt", "value", "base", "source"]
    assert len(table) == effect.values.numel() > 0
    for axis, number in zip((*effect.axes, "prompt"), range(effect.values.ndim), strict=True):
        labels = effect.labels[axis] if axis != "prompt" else range(2)
        where = torch.arange(len(labels)).reshape([-1 if k == number else 1 for k in range(effect.values.ndim)])
        where = where.expand(effect.values.shape).flatten().tolist()
        assert table[axis].tolist() == [labels[i] for i in where]
    slack = 1e-5 * max(1.0, float(effect.base.abs().max()), float(effect.source.abs().max()))
    for column, values in (("value", effect.values), ("base", effect.base), ("source", effect.source)):
        found = torch.tensor(table[column].tolist(), dtype=torch.float64)
        assert float((found - values.expand_as(effect.values).flatten()).abs().max()) <= slack, column


@pytest.mark.parametrize("site", PATCH_SITES)
def test_every_site_writes_a_table_a_record_and_a_figure(site, capsys):
    table, record = written(site=site)
    clean, corrupted = prompts()
    effect = patch(shipped().raw, clean, corrupted, site, logit_diff(clean, 4))
    assert_same(table, effect)
    assert effect.change.abs().max() > 0.1  # there was something to compare

    found, checks, cost = record["effect"], record["effect"]["checks"], record["effect"]["cost"]
    assert (found["site"], found["direction"]) == (site, "denoise")
    assert found["base"] == pytest.approx(float(effect.base.mean()))
    assert checks["spot_cells"] == 4
    assert max(checks["positive"], checks["negative"], checks["spot_difference"]) <= checks["tolerance"]
    assert cost["patches"] == len(table) / 2
    assert 0 < cost["skipped"] < cost["patches"]
    assert cost["lower_bound_flops"] <= cost["flops"] < cost["loop_flops"]
    assert {k: record["options"][k] for k in ("site", "length", "step", "partner", "prompts")} == {
        "site": site,
        "length": 6,
        "step": 4,
        "partner": 5,
        "prompts": 2,
    }
    assert (record["run"], record["format"], record["seed"]) == (RUN, "parity-aligned", 0)
    assert record["provenance"]["versions"]["torch"] == torch.__version__
    assert [t["change"] for t in record["top"]] == pytest.approx([c for _, c in effect.top(10)], abs=1e-4)

    svg = (HERE / f"patch-{site}.svg").read_text()
    assert svg.startswith("<svg")
    assert "image/png;base64" in svg
    out = capsys.readouterr().out
    assert f"{cost['patches']} patches, {cost['skipped']} of which cannot matter" in out
    assert str(HERE / f"patch-{site}.parquet") in out


def test_every_metric():
    clean, corrupted = prompts()
    raw = shipped().raw
    made = {
        "logit_diff": logit_diff(clean, 4),
        "probability": probability(clean, 4),
        "accuracy": accuracy(clean, 4),
        "kl": kl(clean, predict(raw, clean, clean.at(Role.OUTPUT, 4)), 4),
    }
    tables = {}
    for name, metric in made.items():
        tables[name], record = written("--metric", name)
        assert_same(tables[name], patch(raw, clean, corrupted, "resid_pre", metric))
        assert record["effect"]["metric"] == metric.name
    assert not any(tables["logit_diff"]["value"].equals(tables[name]["value"]) for name in made if name != "logit_diff")


@pytest.mark.parametrize("direction", ["denoise", "noise"])
@pytest.mark.parametrize("corrupt", ["flip_input", "swap_input_labels", "swap_output_labels", "redraw"])
def test_every_corruption_and_direction(corrupt, direction):
    more = ["--partner", "2"] if "swap" in corrupt else []
    table, record = written("--corrupt", corrupt, "--direction", direction, *more, site="resid_mid")
    clean, corrupted = prompts(corrupt)
    effect = patch(shipped().raw, clean, corrupted, "resid_mid", logit_diff(clean, 4), direction=direction)
    assert_same(table, effect)
    assert not torch.equal(effect.base, effect.source)
    assert (record["effect"]["direction"], record["options"]["corrupt"]) == (direction, corrupt)


@pytest.mark.parametrize(
    ("words", "places", "labels"),
    [
        (["output_label"], [Role.OUTPUT_LABEL], 6),
        (["output_label:4", "input:4"], [(Role.OUTPUT_LABEL, 4), (Role.INPUT, 4)], 2),
        (["20", "8", "0"], [20, 8, 0], 3),
        (["separator", "input_label:5", "20"], [Role.SEPARATOR, (Role.INPUT_LABEL, 5), 20], 3),
        (["input", "output_label:4", "20", "--joint"], [Joint(Role.INPUT, (Role.OUTPUT_LABEL, 4), 20)], 1),
    ],
)
def test_positions_are_roles_steps_indices_and_joint_sets(words, places, labels):
    table, _ = written("--positions", *words)
    clean, corrupted = prompts()
    effect = patch(shipped().raw, clean, corrupted, "resid_pre", logit_diff(clean, 4), positions=places)
    assert len(effect.labels["pos"]) == labels
    assert_same(table, effect)


def test_layers_and_heads_are_those_asked_for():
    table, record = written("--layers", "2", "0", "--heads", "5", "1", "3", "--positions", "output_label:4", site="z")
    clean, corrupted = prompts()
    effect = patch(
        shipped().raw, clean, corrupted, "z", logit_diff(clean, 4), [2, 0], (Role.OUTPUT_LABEL, 4), [5, 1, 3]
    )
    assert_same(table, effect)
    assert list(table["layer"].unique()) == [2, 0]
    assert list(table["head"].unique()) == [5, 1, 3]
    assert record["effect"]["cost"]["patches"] == 6


def test_json_on_standard_output_is_what_is_written_and_out_is_obeyed(capsys):
    _, record = written("--json", "--out", "there", folder=Path("there"))
    assert json.loads(capsys.readouterr().out) == record
    assert not Path("mnemoscope-out").exists()


def test_the_same_command_draws_the_same_figure():
    for folder in ("a", "b"):
        written("--out", folder, folder=Path(folder))
    assert Path("a/patch-resid_pre.svg").read_bytes() == Path("b/patch-resid_pre.svg").read_bytes()


def test_a_dry_run_prints_the_plan_and_writes_nothing(capsys):
    assert main(["patch", RUN, *SMALL, "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert main(["patch", RUN, *SMALL, "--dry-run", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert not list(Path().iterdir())

    _, record = written()
    cost = record["effect"]["cost"]
    for key in ("patches", "skipped", "flops", "loop_flops", "lower_bound_flops"):
        assert found[key] == cost[key]
    assert 0 < found["peak_bytes"] <= 2**30
    assert 0 <= found["expected_seconds"] < 60
    assert f"{cost['patches']} patches for each of 2 prompts, {cost['skipped']} of which cannot matter" in out
    assert f"{cost['flops']:.3g} FLOPs" in out
    assert f"would take {cost['loop_flops']:.3g}" in out
    assert re.search(r"MiB beyond the model; about \d+ s here", out)


def test_the_help_names_every_site(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["patch", "--help"])
    words = " ".join(re.findall(r"\w+", capsys.readouterr().out))
    assert " ".join((*PATCH_SITES[:-1], "or", PATCH_SITES[-1])) in words


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--site", "resid"], "unknown site 'resid'; sites are resid_pre"),
        (["--site", "attn_scores"], "unknown site 'attn_scores': capture takes it, patch does not; sites are resid"),
        (["--positions", "label"], "unknown position 'label'; give an index, a role (start, separator, input"),
        (["--positions", "output:"], "unknown position 'output:'"),
        (["--positions", "output:x"], "unknown position 'output:x'"),
        (["--positions", "answer"], "no answer in parity-aligned"),
        (["--positions", "output:7"], "no output with step 7; steps run from 1 to 6"),
        (["--positions", "26"], "position 26 is outside 0 to 25"),
        (["--positions", "output", "output:3"], "given twice"),
        (["--joint"], "--joint needs --positions"),
        (["--step", "7"], "step 7; steps run from 1 to 6"),
        (["--step", "7", "--corrupt", "redraw"], "step 7; steps run from 1 to 6"),
        (["--corrupt", "swap_input_labels", "--partner", "7"], "step 7; steps run from 1 to 6"),
        (["--corrupt", "swap_input_labels", "--partner", "4"], "nothing to swap"),
        (["--partner", "2"], "--partner is for --corrupt swap_input_labels and swap_output_labels; leave it out"),
        (["--corrupt", "redraw", "--partner", "2"], "--partner is for --corrupt swap_input_labels"),
        (["--gpus", "-3"], "--gpus must be 0 or more; got -3.0"),
        (["--gpus", "nan", "--engine", "ray"], "--gpus must be 0 or more; got nan"),
        (["--gpus", "0.5"], "--gpus is for --engine ray; leave it out"),
        (["--memory", "0"], "--memory must be at least 1; got 0"),
        (["--memory", "-5"], "--memory must be at least 1; got -5"),
        (["--prompts", "0"], "at least 1; got 0"),
        (["--length", "0"], "at least 1; got 0"),
        (["--seed", "-1"], "seed must be"),
        (["--heads", "1"], "resid_pre has no heads"),
        (["--site", "z", "--heads", "8"], "there is no head 8; heads run from 0 to 7"),
        (["--layers", "3"], "there is no layer 3; layers run from 0 to 2"),
        (["--layers"], "--layers needs at least one value"),
        (["--format", "addition-none"], "more than two answers; use --metric probability, accuracy or kl"),
        (["--format", "parity-scratchpad", "--corrupt", "swap_input_labels"], "no input label in parity-scratchpad"),
    ],
)
@pytest.mark.parametrize("more", [[], ["--dry-run"]], ids=["run", "dry-run"])
def test_bad_requests_get_one_line_and_leave_no_files(argv, words, more, capsys):
    assert main(["patch", RUN, *SMALL, *argv, *more]) == 2
    captured = capsys.readouterr()
    (line,) = captured.err.strip().splitlines()
    assert line.startswith("mnemoscope patch: ")
    assert words in line
    assert not captured.out
    assert not list(Path().iterdir())


@pytest.mark.parametrize("argv", [["--metric", "loss"], ["--corrupt", "all"], ["--direction", "up"], ["--length", "x"]])
def test_words_that_are_no_options_are_refused_by_the_parser(argv, capsys):
    assert main(["patch", RUN, *SMALL, *argv]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith(f"mnemoscope patch: {argv[0]} must be ")
    assert not list(Path().iterdir())


def counted(monkeypatch):
    """The numbers of the units that are computed from now on."""
    numbers = []
    honest = Sweep.compute

    def compute(self, unit):
        numbers.append(unit.number)
        return honest(self, unit)

    monkeypatch.setattr(Sweep, "compute", compute)
    return numbers


def work_folders():
    return list(HERE.glob(".patch-*"))


def test_effects_in_a_model_that_cannot_do_the_task_are_marked_as_invalid(capsys):
    """A random model's largest changes were printed as those of a trained one."""
    vocabulary = default_vocabulary()
    model = build_model(ModelConfig("absolute", n_layers=1, d_model=16, n_heads=2), len(vocabulary.ids), seed=0)
    save_run(
        Path("random"), model, default_tokenizer(), {"format": "parity-aligned", "vocabulary": vocabulary.to_json()}
    )
    for name, valid in (("random", False), (RUN, True)):
        assert main(["patch", name, "--length", "6", "--step", "4", "--out", "out"]) == 0
        said, record = capsys.readouterr(), json.loads(Path("out/patch-resid_pre.json").read_text())
        assert record["competence"]["valid"] == valid
        assert ("warning: the effects will be invalid: the model cannot do the task: accuracy " in said.err) != valid
        assert ("INVALID: the model cannot do the task" in said.out) != valid
        assert ("INVALID: " in Path("out/patch-resid_pre.svg").read_text()) != valid


def test_coarser_products_have_files_and_words_of_their_own(capsys):
    assert main(["patch", RUN, *SMALL]) == 0
    assert "cells equal the literal loop to " in capsys.readouterr().out
    exact = {path: path.read_bytes() for path in HERE.iterdir()}
    assert main(["patch", RUN, *SMALL, "--matmul", "bfloat16"]) == 0
    out = capsys.readouterr().out
    assert "cells with bfloat16 products differ from the literal loop by up to " in out
    assert " equal " not in out
    assert {path: path.read_bytes() for path in exact} == exact
    new = sorted(path.name for path in HERE.iterdir() if path not in exact)
    assert new == [f"patch-resid_pre-bfloat16.{end}" for end in ("json", "parquet", "svg")]


def killed_on_the_way(after):
    """Starts the larger sweep in another process, which is killed once it has written `after` units."""
    script = f"""
import sys, time
from interp.patching import Sweep
honest = Sweep.compute
def compute(self, unit):
    if unit.number >= {after}:
        time.sleep(600)
    return honest(self, unit)
Sweep.compute = compute
from experiments.cli import main
sys.exit(main(sys.argv[1:]))
"""
    process = subprocess.Popen(
        [sys.executable, "-c", script, *LARGER],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        until = time.monotonic() + 120
        while len(list(HERE.glob(".patch-*/*.safetensors"))) < after:
            assert process.poll() is None, "it ended before it could be killed"
            assert time.monotonic() < until, "no unit was written"
            time.sleep(0.02)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == -9


def assert_tables_equal(found, expected):
    assert found.drop(columns="value").equals(expected.drop(columns="value"))
    # How cells are stacked depends on speed, and their rounding on that.
    assert float((found["value"] - expected["value"]).abs().max()) <= 1e-5 * float(expected["value"].abs().max())


@pytest.mark.slow
def test_a_killed_sweep_goes_on_where_it_stopped(monkeypatch):
    killed_on_the_way(after=3)
    (work,) = work_folders()
    assert not list(HERE.glob("patch-*"))
    kept = {p: p.stat().st_mtime_ns for p in work.glob("*.safetensors")}
    assert {p.stem.partition("-")[0] for p in kept} == {"0", "1", "2"}

    numbers = counted(monkeypatch)
    files = []
    honest = Sweep.finish

    def finish(*args, **kwargs):
        files.append({p: p.stat().st_mtime_ns for p in work.glob("*")})
        return honest(*args, **kwargs)

    monkeypatch.setattr(Sweep, "finish", finish)
    assert main(LARGER) == 0
    total = len(numbers) + 3
    assert numbers == list(range(3, total))
    assert len([p for p in files[0] if p.suffix]) == total > 6
    assert {p: t for p, t in files[0].items() if p in kept} == kept  # read, not written again
    assert sorted(p.name for p in HERE.iterdir()) == [f"patch-resid_mid.{end}" for end in ("json", "parquet", "svg")]

    resumed = pandas.read_parquet(HERE / "patch-resid_mid.parquet")
    assert main([*LARGER, "--out", "whole"]) == 0
    assert_tables_equal(resumed, pandas.read_parquet("whole/patch-resid_mid.parquet"))
    assert numbers == [*range(3, total), *range(total)]  # a finished sweep leaves nothing to go on from


def stopped(monkeypatch, after, last_words=None):
    """Runs the larger sweep until `after` units are written; of the next, only the first `last_words` bytes are."""
    count = []

    def write(handle, data):
        count.append(handle)
        if len(count) > after:
            os.write(handle, data[:last_words])
            raise KeyboardInterrupt
        os.write(handle, data)

    with monkeypatch.context() as patched:
        patched.setattr("interp.support.writing._write", write)
        assert main(LARGER) == 130
    (work,) = work_folders()
    return work


@pytest.mark.parametrize("length", [0, 20, None], ids=["empty", "cut", "whole but not renamed"])
def test_a_unit_whose_writing_was_interrupted_is_computed_again(length, monkeypatch, capsys):
    work = stopped(monkeypatch, after=2, last_words=length)
    assert "interrupted; the same command resumes" in capsys.readouterr().err
    assert {p.name.partition("-")[0] for p in work.iterdir()} == {"0", "1", "lock"}
    numbers = counted(monkeypatch)
    assert main(LARGER) == 0
    assert numbers == list(range(2, numbers[-1] + 1))
    assert not work.exists()


@pytest.mark.parametrize("length", [0, 20, -8], ids=["empty", "in the header", "in the data"])
def test_a_unit_file_that_is_cut_short_is_computed_again(length, monkeypatch):
    """A rename may reach the disk before the data do, when the power fails."""
    assert main([*LARGER, "--out", "whole"]) == 0
    work = stopped(monkeypatch, after=3)
    (unit,) = work.glob("1-*.safetensors")
    unit.write_bytes(unit.read_bytes()[:length])
    numbers = counted(monkeypatch)
    assert main(LARGER) == 0
    assert numbers == [1, *range(3, numbers[-1] + 1)]
    found, expected = (pandas.read_parquet(f / "patch-resid_mid.parquet") for f in (HERE, Path("whole")))
    assert_tables_equal(found, expected)


@pytest.mark.parametrize(
    "more", [["--seed", "1"], ["--step", "6"], ["--metric", "probability"], ["--direction", "noise"]]
)
def test_other_options_do_not_take_over_the_units(more, monkeypatch):
    work = stopped(monkeypatch, after=2)
    numbers = counted(monkeypatch)
    assert main([*LARGER, *more]) == 0
    assert numbers[:2] == [0, 1]
    assert work_folders() == [work]  # left for the command that it belongs to
    (first,) = work.glob("0-*.safetensors")
    assert read_digested(first)


def test_units_of_another_split_are_computed_again(monkeypatch):
    """Another amount of free memory splits the same sweep into other units under the same options."""
    assert main([*LARGER, "--out", "whole"]) == 0
    stopped(monkeypatch, after=3)
    monkeypatch.setattr("interp.patching.units.BUCKET", 3)
    numbers = counted(monkeypatch)
    assert main(LARGER) == 0
    assert numbers[0] == 0
    found, expected = (pandas.read_parquet(f / "patch-resid_mid.parquet") for f in (HERE, Path("whole")))
    one, other = (frame.select_dtypes("number") for frame in (found, expected))
    pandas.testing.assert_frame_equal(one, other, atol=1e-4)


def test_options_that_change_no_number_do_not_start_afresh(monkeypatch, capsys):
    stopped(monkeypatch, after=2)
    numbers = counted(monkeypatch)
    assert main([*LARGER, "--json"]) == 0
    assert numbers[0] == 2
    assert json.loads(capsys.readouterr().out)["run"] == RUN
    assert not work_folders()
