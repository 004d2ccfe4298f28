"""The command line, in process: what works, and what bad input gets."""

import gc
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from experiments import load
from experiments.cli import main
from experiments.commands.patch import PatchCommand
from experiments.patch_inputs import with_steps
from experiments.support.loading import complete_format
from experiments.verbs import VERBS
from interp.models.names import SHIPPED, shipped_runs

DEFAULT = "parity-aligned-alibi"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def broken(tmp_path):
    """A copy of the shipped run to break."""
    return Path(shutil.copytree(SHIPPED / DEFAULT, tmp_path / "broken"))


def refused(capsys, *argv: str) -> str:
    """Runs a verb that must fail: its one line."""
    assert main(argv) == 2
    captured = capsys.readouterr()
    lines = captured.err.strip().splitlines()
    assert len(lines) == 1, captured.err
    assert lines[0].startswith(f"mnemoscope {argv[0]}: ")
    return lines[0]


def test_evaluate_writes_numbers_and_a_figure(capsys):
    argv = ["evaluate", DEFAULT, "--lengths", "5", "30", "--offset-lengths", "8", "--prompts", "16"]
    assert main([*argv, "--out", "here"]) == 0
    found = json.loads(Path("here/evaluation.json").read_text())
    rows = {(r["metric"], r["mode"], r["length"]): r for r in found["accuracy"]}
    assert len(rows) == 4 * 2 * 2
    assert rows["step", "forced", 30]["value"] > 0.95
    assert {o["length"] for o in found["offsets"]} == {8}
    first = Path("here/accuracy.svg").read_bytes()
    assert main([*argv, "--out", "there"]) == 0
    assert Path("there/accuracy.svg").read_bytes() == first
    capsys.readouterr()


def test_several_runs_share_a_figure(capsys):
    argv = ["evaluate", DEFAULT, "parity-scratchpad-alibi", "--lengths", "5", "--offset-lengths", "--prompts", "8"]
    assert main(argv) == 0
    assert Path("mnemoscope-out/accuracy-by-length.svg").stat().st_size > 1000
    assert "--out takes one" in refused(capsys, *argv, "--out", "x")


def test_a_run_of_the_zoo_is_loaded_by_name_unless_one_was_trained_here(tmp_path, monkeypatch):
    from interp.models import names

    zoo, name = tmp_path / "zoo", "parity-aligned-alibi-seed7"
    monkeypatch.setattr(names, "ZOO", zoo)
    shutil.copytree(SHIPPED / DEFAULT, zoo / name)
    assert Path(load(name).source) == zoo / name
    shutil.copytree(SHIPPED / DEFAULT, Path("mnemoscope-out") / name)
    assert Path(load(name).source) == Path("mnemoscope-out") / name
    shutil.rmtree("mnemoscope-out")
    (zoo / name / "model.safetensors").unlink()  # its results are shipped, its weights are not
    with pytest.raises(ValueError, match=r"without weights; train it with `mnemoscope train .* --seed 7`"):
        load(name)


def test_adapters_of_the_zoo_are_found_by_name_and_trained_by_their_own_command(tmp_path, monkeypatch):
    from interp.models import names

    name = "parity-cyclic-smollm2-135m-lora4-seed3"
    zoo = tmp_path / "zoo"
    monkeypatch.setattr(names, "ZOO", zoo)
    shutil.copytree(SHIPPED / "smollm2-parity-aligned", zoo / name)
    assert names.zoo_runs() == [name]
    assert names.source_of(name) == str(zoo / name)
    (zoo / name / "adapter_model.safetensors").unlink()
    command = "mnemoscope train parity-aligned --from smollm2-135m --lora 4 --seed 3"
    with pytest.raises(ValueError, match=rf"without weights; train it with `{command}`$"):
        names.source_of(name)


def test_an_unknown_run_names_the_nearest(capsys):
    assert DEFAULT in refused(capsys, "verdict", "parity-alined-alibi")
    assert set(shipped_runs()) >= {DEFAULT, "parity-scratchpad-alibi", "parity-constant-alibi"}


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["verdict", DEFAULT, "--lengths", "0"], "length of at least 5 is needed"),
        (["verdict", DEFAULT, "--lengths", "500"], "needs 500 different labels"),
        (["verdict", DEFAULT, "--format", "parity-foo"], "unknown format"),
        (["verdict", DEFAULT, "--prompts", "3"], "at least 24 prompts are needed"),
        (["evaluate", DEFAULT, "--lengths", "-3"], "at least 1; got -3"),
        (["evaluate"], "at least one run"),
        (["train", "parity-aligned-foo"], "families are alibi"),
        (["train", "parity-aligned-alibi_0x128x8"], "n_layers must be from 1"),
        (["train", "parity-aligned-alibi_6x128x8", "--n-layers", "3"], "has n-layers 6, and --n-layers says 3"),
        (["train", "parity-aligned-alibi", "--steps", "0"], "steps must be at least 1"),
        (["train", "parity-aligned-alibi", "--threads", "0"], "--threads must be at least 1"),
        (["train", "parity-aligned-alibi", "--seed", "-1"], "seed must be"),
    ],
)
def test_bad_values_get_one_line(argv, words, capsys):
    assert words in refused(capsys, *argv)
    assert not list(Path().rglob("*.json"))


def test_a_length_beyond_the_positions(tmp_path, capsys):
    main(
        [
            "train",
            "parity-aligned-absolute",
            "--steps",
            "1",
            "--longest",
            "2",
            "--n-ctx",
            "50",
            "--d-model",
            "16",
            "--n-heads",
            "2",
            "--n-layers",
            "1",
            "--rehearsal",
            "0",
        ]
    )
    capsys.readouterr()
    line = refused(capsys, "evaluate", "parity-aligned-absolute_1x16x2-seed1", "--lengths", "12", "13")
    assert "takes 54 positions" in line
    assert "has 50" in line


@pytest.mark.parametrize("verb", ["verdict", "evaluate"])
def test_broken_folders(verb, broken, capsys):
    weights = broken / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    assert "not a whole safetensors file" in refused(capsys, verb, str(broken))
    tensors = {k: v.clone() for k, v in load_file(SHIPPED / DEFAULT / "model.safetensors").items()}
    save_file({f"other.{k}": v for k, v in tensors.items()}, weights, metadata={"format": "pt"})
    assert str(broken) in refused(capsys, verb, str(broken))
    weights.unlink()
    assert "no weights" in refused(capsys, verb, str(broken))
    (broken / "config.json").unlink()
    assert "config.json" in refused(capsys, verb, str(broken))


def test_a_tokenizer_that_lacks_the_labels(broken, capsys):
    record = json.loads((broken / "run.json").read_text())
    record["vocabulary"]["ids"] = {k: v for k, v in record["vocabulary"]["ids"].items() if not k.startswith("M")}
    (broken / "run.json").write_text(json.dumps(record))
    assert "labels without a token" in refused(capsys, "verdict", str(broken))


def test_an_out_that_cannot_be_written(capsys):
    Path("file").write_text("")
    for argv in (["verdict", DEFAULT, "--out", "file/x"], ["train", "parity-aligned-alibi", "--out", "file"]):
        assert "--out must be a folder; 'file' is a file" in refused(capsys, *argv)
    Path("mnemoscope-out").write_text("")  # the default
    assert "mnemoscope-out is a file" in refused(capsys, "evaluate", DEFAULT, "--lengths", "5")
    assert Path("file").read_text() == ""


def test_loading_by_name_folder_and_with_another_format():
    run = load(DEFAULT)
    assert (run.name, str(run.format), run.family) == (DEFAULT, "parity-aligned", "alibi")
    other = load(SHIPPED / DEFAULT, "parity-constant")
    assert other.sample(1, 2, 0).text().startswith(">>> #")


def piped(tmp_path: Path, *argv: str, out: str | None = None) -> tuple[int, str]:
    """A verb whose reader has gone before it prints, or that prints into a file: its status, and its complaints."""
    receive, send = os.pipe()
    os.close(receive)
    handle = send if out is None else os.open(out, os.O_WRONLY)
    command = [sys.executable, "-m", "experiments.cli", *argv]
    done = subprocess.run(
        command,
        stdout=handle,
        stderr=subprocess.PIPE,
        text=True,
        timeout=120,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    for opened in {send, handle}:
        os.close(opened)
    return done.returncode, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("argv", [["sweep", "--help"], ["sweep", "--dry-run"], ["patch", DEFAULT, "--dry-run"]])
def test_a_reader_that_has_gone_ends_it_without_a_word(argv, tmp_path):
    assert piped(tmp_path, *argv) == (141, "")


@pytest.mark.slow
def test_a_table_whose_reader_has_gone_too(tmp_path):
    argv = ["evaluate", DEFAULT, "--lengths", "3", "--offset-lengths", "--prompts", "2", "--out", "here"]
    assert piped(tmp_path, *argv) == (141, "")
    assert (tmp_path / "here" / "evaluation.json").exists()


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a disk that is always full")
@pytest.mark.parametrize("argv", [["sweep", "--help"], ["sweep", "--dry-run"]])
def test_output_into_a_full_disk_is_one_line(argv, tmp_path):
    status, err = piped(tmp_path, *argv, out="/dev/full")
    assert status == 2
    assert "no space left" in err
    assert len(err.splitlines()) == 1


def test_a_hub_name_with_a_bad_config_gets_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    there = tmp_path / "models--owner--model"
    snapshot = shutil.copytree(SHIPPED / DEFAULT, there / "snapshots" / ("0" * 40))
    (there / "refs").mkdir()
    (there / "refs" / "main").write_text("0" * 40)
    config = json.loads((snapshot / "config.json").read_text())
    (snapshot / "config.json").write_text(json.dumps({**config, "n_layer": 10**9}))
    line = refused(capsys, "verdict", "owner/model", "--format", "parity-aligned", "--lengths", "5")
    assert "at most 4096 are read" in line
    assert "owner/model" in line


def test_help_of_the_program_fits_a_screen(capsys):
    assert main(["--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80
    for verb in VERBS:
        assert sum(line.startswith(f"  {verb} ") for line in lines) == 1
    assert main([]) == 2


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_a_verb_names_values_and_fits_the_terminal(verb, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit, match="0"):
        main([verb, "--help"])
    out = capsys.readouterr().out
    for placeholder in ("[STR", "[INT", "{None}", "(default: None)", "(default: )"):
        assert placeholder not in out
    assert max(map(len, out.splitlines())) <= 80


def test_help_beside_arguments_is_the_whole_help(capsys):
    shown = []
    for given in ([], ["parity-aligned-alibi+own60", "--seed", "3"]):
        with pytest.raises(SystemExit, match="0"):
            main(["train", *given, "--help"])
        shown.append(capsys.readouterr().out)
    assert "NAME" in shown[0]
    assert shown[0] == shown[1]


def test_the_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("mnemoscope 0.")


@pytest.mark.parametrize("argv", [None, ["--version"]])
def test_only_the_program_skips_the_last_collection(argv, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "argv", ["mnemoscope", "--version"])
    gc.unfreeze()
    try:
        assert main(argv) == 0
        assert (gc.get_freeze_count() > 0) == (argv is None)
    finally:
        gc.unfreeze()


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_a_completion_script(shell, capsys):
    assert main(["completion", shell]) == 0
    out = capsys.readouterr().out
    assert "corrupted" in out  # an option of a verb
    assert "verdict" in out


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (["verdct", DEFAULT], "mnemoscope: unknown verb 'verdct'; did you mean verdict?"),
        (["verdict", DEFAULT, "--promps", "3"], "mnemoscope verdict: unknown option --promps; did you mean --prompts?"),
        (["report", DEFAULT, "--promps"], "mnemoscope report: unknown option --promps; --help shows the options"),
        (["bench", "patching"], "mnemoscope bench: unexpected argument 'patching'; --help shows the options"),
        (["zz"], f"mnemoscope: unknown verb 'zz'; verbs are {', '.join(VERBS)}, completion"),
        (["--verison"], "mnemoscope: unknown option '--verison'; did you mean --version?"),
        (["--hlep", DEFAULT], "mnemoscope: unknown option '--hlep'; did you mean --help?"),
        (["version"], "mnemoscope: unknown verb 'version'; did you mean --version?"),
        (["--fetch", "x"], "mnemoscope: unknown option '--fetch'; did you mean fetch?"),
        (["-V"], "mnemoscope: unknown option '-V'; options are --version and --help"),
        (["completion", "fish"], "mnemoscope completion: name one shell: bash, zsh, tcsh"),
        (["verdict", "./no/where"], "mnemoscope verdict: no such folder: './no/where'"),
        (["evaluate", "\x1b[31m/x/y"], "mnemoscope evaluate: no such folder: '\\x1b[31m/x/y'"),
    ],
)
def test_misspellings_are_one_line_with_the_nearest(argv, line, capsys):
    assert main(argv) == 2
    assert capsys.readouterr().err == line + "\n"


def test_out_of_memory_is_one_line(monkeypatch, capsys):
    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("experiments.commands.patch.inputs_of", fail)
    assert "out of memory" in refused(capsys, "patch", DEFAULT)


def test_a_folder_in_the_place_of_a_result_is_refused_before_any_work(capsys):
    for verb, name in (("evaluate", "evaluation.json"), ("verdict", "verdict.svg"), ("patch", "patch-resid_pre.json")):
        Path("results", name).mkdir(parents=True)
        assert f"{name} is a folder" in refused(capsys, verb, DEFAULT, "--out", "results")
    assert not [p for p in Path("results").rglob("*") if p.is_file()]


def test_a_short_format_takes_the_task_of_the_run():
    assert complete_format("aligned", None, DEFAULT) == "parity-aligned"
    assert complete_format("scratchpad", None, "gpt2") == "parity-scratchpad"
    assert complete_format("aligned", "addition", DEFAULT) == "addition-aligned"
    with pytest.raises(ValueError, match="parity-aligned or addition-aligned"):
        complete_format("aligned", None, "gpt2")


def test_the_default_step_fits_short_prompts():
    for length in range(1, 25):
        options = with_steps(PatchCommand(DEFAULT, length=length))
        assert options.step == min(10, length)
        assert options.partner != options.step
        assert length == 1 or 1 <= (options.partner or 0) <= length
