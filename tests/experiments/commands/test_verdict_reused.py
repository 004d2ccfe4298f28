"""`mnemoscope verdict` prints a finished result of the same weights and options, and measures anything else."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from pathlib import Path

import pytest

from experiments.cli import main
from experiments.support import finished_verdicts
from experiments.support.finished import options_said
from experiments.support.list_results import LISTS
from interp.models.names import SHIPPED
from probes.arms.registry import ARMS
from probes.planted import Plan, plant

RUN = "parity-aligned-alibi"
SMALL = ("--lengths", "5", "--prompts", "24", "--arms", "M7", "M5")
FILE = Path("mnemoscope-out", RUN, "verdict.json")
MEASURED = "the work would begin here"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder with a finished verdict, and what `--evidence` printed after measuring it."""
    folder = tmp_path_factory.mktemp("finished")
    with contextlib.chdir(folder), contextlib.redirect_stdout(io.StringIO()) as said:
        assert main(["verdict", RUN, *SMALL, "--evidence"]) == 0
    return folder, said.getvalue()


@pytest.fixture
def here(finished: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Enter a copy of that folder, where nothing can be measured; return what was printed."""
    shutil.copytree(finished[0], tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    refuse_to_measure(monkeypatch)
    return finished[1]


def refuse_to_measure(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise ValueError(MEASURED)

    monkeypatch.setattr("probes.battery", refuse)
    monkeypatch.setattr("probes.binding.measure_binding", refuse)


def measured_because(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """Return why a finished result is replaced, as standard error says; the measurement itself is refused."""
    assert main(["verdict", *argv]) == 2
    *before, last = capsys.readouterr().err.strip().splitlines()
    assert MEASURED in last
    (said,) = [line for line in before if line.startswith("measuring, because ")]
    assert said.endswith(", another --out keeps both")
    if "--fresh is given; the new result replaces mnemoscope-out" in said:
        return "--fresh"
    assert said.startswith("measuring, because mnemoscope-out")
    return said.partition(" is another result: ")[2].partition("; the new result replaces it")[0]


def change(path: Path, **more: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | more))


def test_a_finished_verdict_is_printed_as_after_measuring(here, capsys):
    before = FILE.read_bytes()
    assert main(["verdict", RUN, *SMALL, "--evidence"]) == 0
    said = capsys.readouterr()
    assert said.out == here
    assert said.err == f"printed from {FILE}; --fresh measures again\n"
    assert main(["verdict", RUN, *SMALL]) == 0
    summary, _, path = capsys.readouterr().out.rstrip("\n").rpartition("\n")
    assert here.startswith(f"{summary}\n\n")
    assert path == str(FILE)
    assert main(["verdict", RUN, *SMALL, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(before)
    assert main(["verdict", RUN, *SMALL, "--json", "copy.json"]) == 0
    assert Path("copy.json").read_bytes() == FILE.read_bytes() == before


def test_options_that_change_no_number_do_not_matter(here, capsys):
    argv = ("--arms", "M5", "M7", "--lengths", "5", "--prompts", "24", "--memory", "512", "--workers", "1")
    assert main(["verdict", RUN, *argv, "--format", "parity-aligned", "--device", "cpu"]) == 0
    assert "printed from" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        (("--fresh",), "--fresh"),
        (("--prompts", "25"), "it was made with prompts 24, not 25"),
        (("--lengths", "5", "6"), "it was made with lengths 5, not 5 6"),
        (("--arms", "M5"), "it was made with arms M5 M7, not M5"),
        (("--seed", "1"), "its seed is 0, not 1"),
        (("--forced",), "it was made with forced False, not True"),
        (("--dtype", "float64"), "it was made with dtype float32, not float64"),
        (("--format", "parity-cyclic"), "it is of parity-aligned-alibi in the format parity-aligned"),
    ],
    ids=lambda value: value[0].strip("-") if isinstance(value, tuple) else "",
)
def test_what_differs_is_measured_again_and_said(more, reason, here, capsys):
    assert measured_because(capsys, RUN, *SMALL, *more) == reason


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"weights": "0123"}, "the weights have changed since"),
        ({"margins": {"version": "older"}}, "it was made with margins older, not "),
        ({"roles": 3}, "it is not a result file that this version reads"),
        ({"provenance": None}, "it is not a result file that this version reads"),
        ({"models": [RUN, "other"]}, f"it is of {RUN}, other, not of {RUN}"),
        ({"options": {"prompts": 24}}, "it was made with lengths None, not 5; arms None, not M5 M7; "),
        ({"options": {"arms": list(ARMS)[::-1]}}, "it was made with lengths None, not 5; all arms, not M5 M7; "),
    ],
    ids=["weights", "margins", "roles", "provenance", "models", "options", "arms"],
)
def test_another_result_under_its_name_is_replaced(more, reason, here, capsys):
    change(FILE, **more)
    assert measured_because(capsys, RUN, *SMALL).startswith(reason)


def test_without_lengths_a_result_beside_the_run_may_be_of_others(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    refuse_to_measure(monkeypatch)
    monkeypatch.setattr("experiments.commands.verdict.default_lengths", lambda run: (10, 20))
    shipped = SHIPPED / RUN / "verdict.json"
    assert main(["verdict", RUN]) == 0
    said = capsys.readouterr()
    assert [line.partition(";")[0] for line in said.err.splitlines()] == [
        f"printed from {shipped}",
        "it is of lengths 20 40",
    ]
    assert said.err.endswith("--lengths 10 20 measures the usual ones\n")
    with monkeypatch.context() as few:
        few.setattr("experiments.commands.verdict.usual_prompts", lambda runs: 24)
        assert main(["verdict", RUN]) == 0
    assert capsys.readouterr().err.endswith("--lengths 10 20 measures the usual ones, on 24 prompts\n")
    for more in (["--lengths", "10", "20"], ["--prompts", "24"], ["--arms", "M5"], ["--seed", "1"]):
        assert main(["verdict", RUN, *more]) == 2
        assert MEASURED in capsys.readouterr().err


def test_a_result_of_other_lengths_elsewhere_is_not_printed(here, capsys):
    """It was measured for other lengths, so this command line asks for others."""
    without = SMALL[2:]
    assert measured_because(capsys, RUN, *without) == "it was made with lengths 5, not 20 40"


def test_labels_of_other_tokens_are_another_result(here, capsys):
    options = json.loads(FILE.read_text())["options"]
    change(FILE, options=options | {"labels": "0123"})
    assert measured_because(capsys, RUN, *SMALL).startswith("it was made with labels 0123, not ")


def test_a_file_that_is_no_json_is_replaced(here, capsys):
    FILE.write_bytes(FILE.read_bytes()[:100])
    assert measured_because(capsys, RUN, *SMALL) == "it is not a result file that this version reads"


def test_an_older_result_without_its_options_is_read_by_its_command(here, capsys):
    data = json.loads(FILE.read_text())
    del data["options"]
    data["provenance"]["command"] = f"mnemoscope verdict {RUN} --prompts 24 --arms M5 M7"
    FILE.write_text(json.dumps(data))
    assert main(["verdict", RUN, *SMALL]) == 0
    capsys.readouterr()
    assert measured_because(capsys, RUN, *SMALL, "--forced") == "it was made with forced False, not True"
    change(FILE, provenance=data["provenance"] | {"command": "mnemoscope sweep"})
    assert measured_because(capsys, RUN, *SMALL) == "its options are not recorded"


def test_the_options_of_a_command_are_read():
    said = options_said({"command": "mnemoscope verdict a b --arms M1 M2 --forced --prompts=24"})
    assert said == {"": ["a", "b"], "arms": ["M1", "M2"], "forced": [], "prompts": ["24"]}
    assert options_said({"command": "mnemoscope sweep"}) is None
    assert options_said({}) is None


def test_a_shipped_verdict_is_printed_and_nothing_is_written(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    refuse_to_measure(monkeypatch)
    assert main(["verdict", RUN]) == 0
    said = capsys.readouterr()
    assert said.out.startswith(f"{RUN}: ANCHOR\n")
    assert said.err == f"printed from {SHIPPED / RUN / 'verdict.json'}; --fresh measures again\n"
    assert not list(tmp_path.iterdir())


def test_a_shipped_verdict_is_copied_to_a_folder_of_its_own_as_measuring_would_write_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    refuse_to_measure(monkeypatch)
    assert main(["verdict", RUN]) == 0
    shown = capsys.readouterr().out.splitlines()[:-1]
    for source in (SHIPPED / RUN / "verdict.json", Path("own", "verdict.json")):  # the second time, it is there
        assert main(["verdict", RUN, "--out", "own"]) == 0
        said = capsys.readouterr()
        assert said.out.splitlines() == [*shown, str(Path("own", "verdict.json"))]
        word = "copied" if source.is_absolute() else "printed"
        assert said.err == f"{word} from {source}; --fresh measures again\n"
        assert Path("own", "verdict.json").read_bytes() == (SHIPPED / RUN / "verdict.json").read_bytes()
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["own", "verdict.json", "verdict.svg"]
    assert main(["verdict", RUN, "--task", "recall", "--out", "own"]) == 0
    file = "verdict-recall-6.json"
    assert json.loads(Path("own", file).read_text()) == json.loads((LISTS / RUN / file).read_text())
    assert f"copied from {LISTS / RUN / file}; " in capsys.readouterr().err


def test_a_result_that_was_measured_is_copied_with_its_picture(here, capsys):
    assert main(["verdict", RUN, *SMALL, "--out", "own"]) == 0
    assert capsys.readouterr().err == f"copied from {FILE}; --fresh measures again\n"
    for name in ("verdict.json", "verdict.svg"):
        assert Path("own", name).read_bytes() == (FILE.parent / name).read_bytes()
    change(Path("own", "verdict.json"), seed=3)
    assert main(["verdict", RUN, *SMALL, "--out", "own"]) == 0
    assert capsys.readouterr().err.endswith(f"; {Path('own', 'verdict.json')} is replaced: its seed is 3, not 0\n")
    assert Path("own", "verdict.json").read_bytes() == FILE.read_bytes()


def test_a_folder_in_the_place_of_a_copy_is_refused(here, capsys):
    Path("own", "verdict.svg").mkdir(parents=True)
    assert main(["verdict", RUN, *SMALL, "--out", "own"]) == 2
    assert "verdict.svg is a folder" in capsys.readouterr().err
    assert not Path("own", "verdict.json").exists()


@pytest.mark.parametrize(
    ("more", "why"),
    [
        (("--lengths", "20"), "it was made with lengths 20 40, not 20"),
        (("--arms", "M7"), "it was made with all arms, not M7"),
        (("--arms", "M7", "M1", "M11", "--out", "own"), "it was made with all arms, not M1 M7 M11"),
        (("--fresh",), ""),
        (("--out", "own", "--fresh"), ""),
    ],
    ids=" ".join,
)
def test_a_shipped_verdict_of_other_options_is_kept_and_said(more, why, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    refuse_to_measure(monkeypatch)
    assert main(["verdict", RUN, *more]) == 2
    *said, last = capsys.readouterr().err.splitlines()
    assert MEASURED in last
    shipped, new = SHIPPED / RUN / "verdict.json", Path(*(("own",) if "own" in more else FILE.parts[:-1]), FILE.name)
    line = f"measuring, because {shipped} is another result: {why}; it is kept, the new result goes to {new}"
    assert said == ([line] if why else [])


@pytest.mark.slow
def test_several_models_are_printed_together_until_one_of_them_changes(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name, seed in (("first", 0), ("second", 1), ("third", 2)):
        planted = plant(Plan("A1", "gpt2", longest=8, seed=seed))
        planted.model.save_pretrained(tmp_path / name)
        planted.tokenizer.save_pretrained(tmp_path / name)
    argv = ("first", "second", "--format", "parity-aligned", "--lengths", "8", "--prompts", "24", "--arms", "M5")
    assert main(["verdict", *argv]) == 0
    first = capsys.readouterr().out
    refuse_to_measure(monkeypatch)
    assert main(["verdict", *argv]) == 0
    assert capsys.readouterr().out == first
    assert measured_because(capsys, "first", *argv[2:]) == "it is of first, second, not of first"
    shutil.rmtree("second")
    shutil.copytree("third", "second")
    assert measured_because(capsys, *argv).startswith("it was made with weights ")


@pytest.mark.slow
def test_a_verdict_on_recall_is_printed_too(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    argv = (RUN, "--task", "recall", "--prompts", "16", "--evidence")
    assert main(["verdict", *argv]) == 0
    first = capsys.readouterr().out
    refuse_to_measure(monkeypatch)
    assert main(["verdict", *argv]) == 0
    said = capsys.readouterr()
    assert said.out == first
    file = Path("mnemoscope-out", RUN, "verdict-recall-6.json")
    assert said.err == f"printed from {file}; --fresh measures again\n"
    assert measured_because(capsys, *argv, "--prompts", "17") == "it was made with prompts 16, not 17"
    assert measured_because(capsys, *argv, "--fresh") == "--fresh"
    assert main(["verdict", RUN, "--task", "recall", "--json"]) == 0  # the shipped one
    shipped = capsys.readouterr()
    assert json.loads(shipped.out)["prompts"] == 128
    assert f"results/lists/{RUN}/verdict-recall-6.json; --fresh" in shipped.err.replace("\\", "/")
    data = json.loads(file.read_text())
    change(file, addresses=data["addresses"] | {"order": {"status": "PRESENT", "reason": ""}})
    assert measured_because(capsys, *argv) == "it is not a result file that this version reads"


def test_where_few_prompts_are_usual_a_result_of_more_is_printed_first(here, monkeypatch, capsys):
    asked = [option for option in SMALL if option not in ("--prompts", "24")]
    assert "it was made with prompts 24, not 128" in measured_because(capsys, RUN, *asked)
    monkeypatch.setattr("experiments.commands.verdict.usual_prompts", lambda runs: 24)
    assert main(["verdict", RUN, *asked]) == 0
    assert f"printed from {FILE};" in capsys.readouterr().err
    change(FILE, prompts=128, options={**json.loads(FILE.read_text())["options"], "prompts": 128})
    assert main(["verdict", RUN, *asked]) == 0
    assert f"printed from {FILE};" in capsys.readouterr().err
    assert "it was made with prompts 128, not 24" in measured_because(capsys, RUN, *SMALL)
    change(FILE, options={**json.loads(FILE.read_text())["options"], "prompts": 64})
    said = "24 prompts at each length, as the model is large for a CPU; --prompts 128 takes about 5 times as long"
    for more, is_said in ((), True), (("--prompts", "24"), False), (("--prompts", "32"), False):
        assert main(["verdict", RUN, *asked, *more]) == 2
        assert (said in capsys.readouterr().err) == is_said
    assert "it was made with prompts 64, not 24" in measured_because(capsys, RUN, *asked)


def test_a_result_of_the_same_lengths_comes_before_one_of_others(monkeypatch):
    """Of few prompts, too: that is what the command measured."""
    asked: list = [{"prompts": 128}, {"prompts": 24}]
    stored = {(24, False): "own", (128, True): "beside the run", (24, True): "own"}

    def found(runs, options, seed, out, any_lengths):
        return stored.get((options["prompts"], any_lengths)), {}

    monkeypatch.setattr(finished_verdicts, "finished_verdict", found)

    def first(any_lengths: bool = True) -> tuple:
        return finished_verdicts.finished_of_any([], asked, 0, None, any_lengths)

    assert first() == ("own", {}, asked[1])
    del stored[24, False]
    assert first() == ("beside the run", {}, asked[0])
    assert first(any_lengths=False) == (None, {}, asked[1])
    said = {128: "lengths 20, not 20 40", 24: "lengths 20, not 20 40; prompts 128, not 24"}
    differs = {Path("here"): said[128]}
    monkeypatch.setattr(
        finished_verdicts, "finished_verdict", lambda _, options, *__: (None, {Path("here"): said[options["prompts"]]})
    )
    assert first() == (None, differs, asked[1])  # of all options, what it differs from least
    monkeypatch.setattr(finished_verdicts, "finished_verdict", found)
    stored[128, False] = "of 128"
    assert first() == ("of 128", {}, asked[0])
