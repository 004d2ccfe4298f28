"""The command line: any arguments give a result, a help text or one line; no traceback, no half-written file.

Long work (training, batteries, searches, benchmarks) is replaced by a refusal, so that the code before it, which checks
options and files, sees many inputs.
"""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import pytest
import torch
from hypothesis import strategies as st

from experiments.cli import main
from experiments.support.options import options_of
from experiments.verbs import VERBS, command_class
from interp.models import ModelConfig, build_model, save_run
from interp.tasks import default_tokenizer, default_vocabulary, known_formats
from tests.fuzz.counting import counts, hammer

REACHED = "the work would begin here"
# The functions that are reached once everything has been looked at.
LONG = (
    "experiments.training.loop.train_run",
    "experiments.commands.evaluate.EvaluateCommand.measure",
    "experiments.commands.patch.PatchCommand.compute",
    "experiments.patch_printing.show_plan",
    "experiments.patch_validity.validity_of_sweep",
    "experiments.benchmarks.patching.run_case",
    "experiments.benchmarks.edges.run_case",
    "experiments.benchmarks.grids.run_case",
    "experiments.benchmarks.integration.run_case",
    "experiments.benchmarks.loops.run_case",
    "probes.battery",
    "experiments.circuit_search.search",
    "experiments.circuit_text.search_text",
    "experiments.commands.report.ReportCommand._write",
    "experiments.support.cases.finished",
    "experiments.commands.sweep.finished",
    "experiments.benchmarks.memory.run_case",
    "experiments.benchmarks.drift.run_case",
    "experiments.benchmarks.scaling.run_case",
    "experiments.commands.figures.FiguresCommand.drawings",
    "experiments.support.on_ray.OnRay",
    "interp.capturing.capture",
    "interp.models.fetching.fetch",
)

NUMBERS = (
    "0",
    "1",
    "2",
    "3",
    "5",
    "20",
    "-1",
    "1.5",
    "1e9",
    "nan",
    "inf",
    "-0",
    "1_0",
    "0x10",
    "None",
    "",
    "\uff19",
    "1000000000",
    "99999999999999999999999",
    "9" * 5000,
)
RUNS = (
    "tiny",
    "parity-aligned-alibi",
    "parity-constant-alibi",
    "broken",
    "nowhere",
    "parity-aligned-rotary",
    "..",
    ".",
    "a/b",
    "a/..",
    "file",
    "",
    "~",
    "parity-\x1b[31m",
    "a\nb",
    "\udcff",
    "x" * 300,
)
WORDS = (
    *RUNS,
    *NUMBERS,
    *known_formats()[:9],
    "--",
    "-",
    "-h",
    "--no",
    "yes",
    "auto",
    "role",
    "output:5",
    "answer",
    "z",
    "resid_pre",
    "{}",
    "[1]",
    "M1",
    "A1",
    "bf16",
    "rotary",
    "@file",
    "--=",
    "--seed=",
    "--seed=3=4",
)
number = st.sampled_from(NUMBERS) | st.integers(-3, 30).map(str)
word = st.sampled_from(WORDS) | st.text(max_size=6)
out = st.sampled_from(("here", "here/there", "file", "file/x", "tiny", "", ".", "here/x.html", "\x00", "é\udcff"))
device = st.sampled_from(("cpu", "auto", "cuda:7", "tpu", ""))
dtype = st.sampled_from(("float32", "float64", "int8", ""))
# Options of every verb that runs a model.
ON_A_MODEL = {"device": device, "dtype": dtype, "format": word, "memory": number}
# Options of each verb, and what is usually given to them.
OPTIONS = {
    "train": {
        "seed": number,
        "steps": number,
        "longest": number,
        "shortest": number,
        "rehearsal": number,
        "n-layers": number,
        "d-model": number,
        "n-heads": number,
        "n-ctx": number,
        "lr": number,
        "threads": number,
        "positions": st.sampled_from(("plain", "start", "jump", "x")),
        "precision": word,
        "device": device,
        "out": out,
        "from": st.sampled_from(RUNS),
        "lora": number,
        "scratch": None,
        "attention": st.sampled_from(("eager", "sdpa", "x")),
        "compile": None,
        "cuda-graphs": None,
        "tokens": number,
    },
    "gallery": {"out": out},
    "evaluate": {
        **ON_A_MODEL,
        "lengths": number,
        "offset-lengths": number,
        "prompts": number,
        "seed": number,
        "out": out,
        "json": None,
    },
    "patch": {
        **ON_A_MODEL,
        "site": st.sampled_from(("resid_pre", "q", "z", "pattern", "mlp_out", "x")),
        "clean": word,
        "corrupted": word,
        "answer": word,
        "other": word,
        "length": number,
        "metric": st.sampled_from(("logit_diff", "probability", "accuracy", "kl", "x")),
        "step": number,
        "corrupt": st.sampled_from(("flip_input", "swap_input_labels", "swap_output_labels", "redraw", "x")),
        "partner": number,
        "direction": word,
        "layers": number,
        "heads": number,
        "positions": word,
        "joint": None,
        "matmul": st.sampled_from(("exact", "bfloat16", "tf32", "x")),
        "workers": number,
        "engine": st.sampled_from(("local", "x")),
        "gpus": number,
        "prompts": number,
        "seed": number,
        "dry-run": None,
        "out": out,
        "json": None,
    },
    "bench": {
        "only": word,
        "rounds": number,
        "threads": number,
        "edges": None,
        "grids": None,
        "integration": None,
        "loops": None,
        "bloom": None,
        "peak": None,
        "drift": None,
        "scaling": None,
        "device": st.sampled_from(("cpu", "cuda", "x")),
        "out": out,
        "json": None,
    },
    "verdict": {
        **ON_A_MODEL,
        "model": st.sampled_from(RUNS),
        "task": word,
        "forced": None,
        "fresh": None,
        "evidence": None,
        "workers": number,
        "lengths": number,
        "items": number,
        "fillers": number,
        "prompts": number,
        "seed": number,
        "arms": word,
        "out": out,
        "json": out,
    },
    "circuit": {
        **ON_A_MODEL,
        "clean": word,
        "corrupted": word,
        "answer": word,
        "other": word,
        "length": number,
        "lengths": number,
        "method": word,
        "points": number,
        "reorder": word,
        "places": word,
        "select": word,
        "share": number,
        "prune": number,
        "repeats": number,
        "prompts": number,
        "seed": number,
        "out": out,
        "json": None,
    },
    "report": {
        **ON_A_MODEL,
        "compare": None,
        "quick": None,
        "fresh": None,
        "task": word,
        "items": number,
        "fillers": number,
        "length": number,
        "map-length": number,
        "seed": number,
        "out": out,
    },
    "calibrate": {
        "variants": number,
        "seed": number,
        "mechanisms": word,
        "families": None,
        "lists": None,
        "prompts": number,
        "repetitions": number,
        "workers": number,
        "out": out,
        "json": None,
    },
    "sweep": {
        "groups": st.sampled_from(("gaps", "sink", "x")),
        "seeds": number,
        "formats": st.sampled_from(("parity-gap1", "parity-aligned", "x")),
        "steps": number,
        "prompts": number,
        "stages": st.sampled_from(("train", "x")),
        "precision": word,
        "cuda-graphs": None,
        "device": device,
        "dtype": dtype,
        "workers": number,
        "gpus": number,
        "engine": st.sampled_from(("local", "ray", "x")),
        "out": out,
        "dry-run": None,
    },
    "attention": {
        **ON_A_MODEL,
        "prompt": word,
        "layers": number,
        "heads": number,
        "length": number,
        "seed": number,
        "out": out,
    },
    "fetch": {},
    "figures": {
        "only": st.sampled_from(("gaps", "maps", "x")),
        "zoo": out,
        "out": out,
        "length": number,
        "prompts": number,
        "seed": number,
    },
}


@st.composite
def commands(draw: st.DrawFn) -> list[str]:
    """Return a verb with some of its options and others, with valid and invalid values."""
    verb = draw(st.sampled_from((*OPTIONS, *OPTIONS, "", "trian", "--help", "--version", "completion")))
    own = OPTIONS.get(verb, {"x": word})
    argv = [verb]
    if draw(st.integers(0, 9)):
        names = ("parity-aligned-rotary", "addition-none-none") if verb == "train" else ("tiny",)
        argv += draw(st.lists(st.sampled_from(names) | st.sampled_from(names) | st.sampled_from(RUNS), max_size=2))
    for name in draw(st.lists(st.sampled_from(sorted(own)), max_size=4)) if own else ():
        argv.append(f"--{name}")
        if (values := own[name]) is not None:
            argv += draw(st.lists(values, min_size=1, max_size=1) | st.lists(values | word, max_size=3))
    if not draw(st.integers(0, 3)):
        argv.insert(draw(st.integers(0, len(argv))), draw(word))
    return argv


def refused_page(*arguments: object) -> str:
    raise ValueError("no page is made here")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with a tiny run, a broken one, and a file where a folder might be."""
    folder = tmp_path / "inner"
    folder.mkdir()
    monkeypatch.chdir(folder)
    model = build_model(ModelConfig("alibi", n_layers=1, d_model=8, n_heads=2), len(default_vocabulary().ids), seed=0)
    record = {"format": "parity-aligned", "vocabulary": default_vocabulary().to_json()}
    for name in ("tiny", "broken"):
        save_run(folder / name, model, default_tokenizer(), record)
    # The gallery needs no valid argument to write a page, which takes a minute.
    monkeypatch.setattr("experiments.gallery.gallery_page", refused_page)
    # A finished verdict would be printed before the code that checks lengths and arms.
    monkeypatch.setattr("experiments.support.finished_verdicts.find_finished", lambda *_: (None, {}))
    (folder / "broken" / "model.safetensors").write_bytes(b"no")
    (folder / "file").write_text("as it was")

    def refuse(*_: object, **__: object) -> None:
        raise ValueError(REACHED)

    for name in LONG:
        monkeypatch.setattr(name, refuse)
    threads = torch.get_num_threads()
    yield folder
    torch.set_num_threads(threads)


def run(argv: list[str]) -> tuple[int, str, str]:
    """Return the status of a command and what it printed; only help exits."""
    said, wrong = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(wrong):
        try:
            status = main(argv)
        except SystemExit as stop:
            if stop.code:
                raise
            status = 0
    return status, said.getvalue(), wrong.getvalue()


def written(folder: Path) -> dict[Path, bytes]:
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@counts(60, 5_000)
def test_any_words_get_a_result_or_one_line(count, here):
    before = written(here.parent)
    reached = 0

    def check(argv: list[str]) -> None:
        nonlocal reached
        status, _, wrong = run(argv)
        assert status in (0, 1, 2), argv
        lines = [line for line in wrong.splitlines() if line.startswith(("mnemoscope ", "mnemoscope:"))]
        assert "Traceback" not in wrong
        if status == 2 and argv:
            assert len(lines) == 1, (argv, wrong)
            assert "│" not in wrong
            reached += REACHED in lines[0]
        after = written(here.parent)
        assert {p: after.get(p) for p in before} == before, argv
        new = [p for p in after if p not in before]
        # Nothing was computed, so nothing may be there but folders.
        assert not new, (argv, new)

    hammer("commands", count, commands(), check)
    assert reached > count // 200, "the fuzzing never got to the work"


@counts(40, 1_000)
def test_words_without_sense(count, here):
    def check(argv: list[str]) -> None:
        status, _, _ = run(argv)
        assert status in (0, 1, 2), argv

    hammer("commands", count, st.lists(word, max_size=6), check)
    assert {p.name for p in here.iterdir() if p.is_file()} == {"file"}


def test_every_option_is_fuzzed():
    options = {
        verb: {name.removeprefix("--") for name in options_of(command_class(verb)) if name.startswith("--")}
        for verb in VERBS
    }
    assert options == {verb: set(names) for verb, names in OPTIONS.items()}
