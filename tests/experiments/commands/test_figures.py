"""`mnemoscope figures` on a small synthetic zoo, and the table beside them."""

import io
import json
import re
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
import pytest

import experiments
from experiments import load
from experiments.cli import main
from experiments.commands import figures
from experiments.commands.figures import FiguresCommand, by_rehearsal
from experiments.commands.train import TrainCommand
from experiments.drawing import zoo as zoo_figures
from experiments.drawing.zoo import NoRows, family_of
from experiments.gathering import VERSION, _about
from experiments.grid import PAPERS_SHORTEST, PRETRAINED, RANK, SECOND_PRETRAINED, SECOND_SOURCE, SOURCE
from experiments.support.provenance import provenance_record
from experiments.tables.places import with_tables
from experiments.tables.pretrained import DIGITS as SUMS
from experiments.tables.pretrained import pretrained_addition_table, pretrained_table
from experiments.tables.zoo import zoo_table
from interp.models import names
from tests.experiments.drawing.zoo.runs import FAMILY, POSED, READ, rows_of, table

OF_PARITY = ("by-family", "variants", "gaps", "offsets", "offsets-by-family", "where-read", "transfer", "scale")
DIGITS = rows_of("aligned", task="addition", lengths=(10, 12, 14), trained_to=10)
TABLE = pd.concat(
    [
        FAMILY,
        READ,
        table(rows_of("gap2"), DIGITS, rows_of("aligned", "alibi_6x128x8")),
        POSED[POSED["posed"] != "parity-" + POSED["format"]],
    ]
)
VERDICTS = {
    "parity-aligned-alibi": {
        "models": ["parity-aligned-alibi-seed1"],
        "learned": 2,
        "of": 3,
        "alone": {"parity-aligned-alibi-seed1": "anchor"},
        "verdict": {
            "verdict": "anchor",
            "replication": "models",
            "margins": {"rho": 0.1},
            "evidence": [{"arm": "presence"}],
            "roles": {
                r: {"status": "PRESENT", "rho": 0.9, "ci": [0.8, 1.0], "reason": ""}
                for r in ("anchor", "placeholder", "sink")
            },
        },
    },
}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def folder_of(name: str, frame: Any, verdicts: dict | None = None) -> Path:
    folder = Path(name)
    folder.mkdir()
    if frame is not None:
        frame.to_parquet(folder / "results.parquet")
    if verdicts is not None:
        whole = {"version": VERSION, "provenance": provenance_record(), "verdicts": verdicts}
        (folder / "verdicts.json").write_text(json.dumps(whole))
    return folder


@pytest.fixture
def zoo():
    return folder_of("zoo", TABLE, VERDICTS)


def stub_maps(patch: pytest.MonkeyPatch) -> None:
    """Replace the maps, which run models, by an empty figure."""
    from matplotlib.figure import Figure

    of_fine_tuned = figures.FiguresCommand.maps
    patch.setattr(
        figures.FiguresCommand,
        "maps",
        lambda self, name, required: Figure() if name == "maps" else of_fine_tuned(self, name, required),
    )


@pytest.fixture
def no_models(monkeypatch):
    stub_maps(monkeypatch)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> tuple[Path, list[Path]]:
    """Draw every figure once: the folder of the call, and the paths that it printed."""
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(io.StringIO()) as out:
        patch.chdir(tmp_path_factory.mktemp("drawn"))
        stub_maps(patch)
        folder_of("zoo", TABLE, VERDICTS)
        assert main(["figures", "--zoo", "zoo"]) == 0
        return Path.cwd(), [Path(line) for line in out.getvalue().splitlines()]


def test_every_figure_is_drawn_and_its_path_printed(drawn):
    folder, printed = drawn
    assert [p.stem for p in printed] == [
        "by-family",
        "maps",
        "variants",
        "addition",
        "gaps",
        "verdicts",
        "offsets",
        "offsets-by-family",
        "where-read",
        "transfer",
        "scale",
    ]
    assert all(p.parent == Path("mnemoscope-out/figures") and p.suffix == ".svg" for p in printed)
    assert all((folder / p).read_text(encoding="utf-8").startswith("<?xml") for p in printed)


@pytest.mark.parametrize(
    "names", [["gaps", "verdicts"], pytest.param([*OF_PARITY, "addition", "verdicts"], marks=pytest.mark.slow)]
)
def test_the_same_numbers_give_the_same_bytes(names, drawn, zoo):
    assert main(["figures", "--zoo", "zoo", "--only", *names, "--out", "again"]) == 0
    assert len(list(Path("again").iterdir())) == len(names)
    for path in Path("again").iterdir():
        assert path.read_bytes() == (drawn[0] / "mnemoscope-out/figures" / path.name).read_bytes(), path


# GitHub shows a README's pictures at most this wide, in CSS pixels.
SHOWN = 830
COMMITTED = sorted((Path(__file__).parents[3] / "figures").glob("*.svg"))


def smallest_label(svg: str) -> float:
    """Return the height of the smallest text in pixels, at the width at which GitHub shows the figure."""
    width, unit = re.search(r'<svg[^>]* width="([\d.]+)(pt|px|)"', svg).groups()  # type: ignore[union-attr]
    pixels = 4 / 3 if unit == "pt" else 1.0
    # matplotlib's text is of paths, scaled by a hundredth of the font's size.
    sizes = [100 * float(size) for size in re.findall(r"scale\((0\.\d+) -0\.\d+\)", svg)]
    sizes += [float(size) for size in re.findall(r'font-size="([\d.]+)"', svg)]
    return min(sizes) * pixels * min(1.0, SHOWN / (float(width) * pixels))


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.stem)
def test_labels_of_committed_figures_have_8_pixels_at_least(path):
    assert smallest_label(path.read_text("utf-8")) >= 8


def test_labels_of_few_and_of_many_panels_have_8_pixels_at_least(drawn):
    folder, printed = drawn
    sizes = {p.stem: smallest_label((folder / p).read_text("utf-8")) for p in printed if p.stem != "maps"}
    assert {name for name, size in sizes.items() if size < 8} == set()


def test_what_has_no_rows_is_left_out_by_name(no_models, capsys):
    folder_of("small", FAMILY)
    assert main(["figures", "--zoo", "small"]) == 0
    said = capsys.readouterr()
    assert [Path(p).stem for p in said.out.splitlines()] == ["by-family", "maps", "variants"]
    left = dict(line.split(": left out, ") for line in said.err.splitlines())
    assert set(left) == set(get_args(figures.Name)) - {"by-family", "maps", "variants"}
    assert "no rows with task addition" in left["addition"]
    assert "small/verdicts.json" in left["verdicts"]


@pytest.mark.parametrize("frame", [None, TABLE[:0]])
def test_a_folder_without_results_is_refused_in_one_line(frame, no_models, capsys):
    """The maps are of shipped runs, and no result of the folder."""
    folder_of("bare", frame)
    assert main(["figures", "--zoo", "bare"]) == 2
    said = capsys.readouterr()
    assert said.err == "mnemoscope figures: nothing to draw: bare has no results yet; mnemoscope sweep writes them\n"
    assert not said.out
    assert [p.name for p in Path().iterdir()] == ["bare"]
    assert main(["figures", "--zoo", "bare", "--only", "maps"]) == 0


@pytest.mark.parametrize("name", ["gaps", "verdicts"])
def test_what_was_asked_for_and_cannot_be_drawn_is_an_error(name, capsys):
    folder_of("small", FAMILY)
    assert main(["figures", "--zoo", "small", "--only", name]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("mnemoscope figures: ")
    assert "no" in line
    assert not list(Path().rglob("*.svg"))


def test_a_broken_table_is_an_error_though_it_was_not_asked_for(no_models, capsys):
    folder_of("broken", TABLE.drop(columns="learned"))
    assert main(["figures", "--zoo", "broken"]) == 2
    assert "accuracy by family: the table lacks learned" in capsys.readouterr().err
    (Path("broken") / "results.parquet").write_bytes(b"PAR1 and no more")
    assert main(["figures", "--zoo", "broken"]) == 2
    assert "not a whole parquet file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--zoo", "nowhere"], "no such folder: 'nowhere'"),
        (["--length", "0"], "at least 1; got 0, 64"),
        (["--seed", "-1"], "seed must be"),
    ],
)
def test_bad_options_get_one_line(argv, message, capsys):
    assert main(["figures", *argv]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_other_shares_of_rehearsal_have_figures_of_their_own(capsys):
    without = FAMILY[FAMILY["family"] == "alibi"].assign(rehearsal=0.0)
    folder_of("both", pd.concat([FAMILY, without.assign(run=without["run"] + "-without")]))
    assert main(["figures", "--zoo", "both", "--only", "by-family", "--out", "."]) == 0
    assert [Path(p).stem for p in capsys.readouterr().out.splitlines()] == ["by-family", "by-family-rehearsal-0"]
    assert Path("by-family.svg").read_bytes() != Path("by-family-rehearsal-0.svg").read_bytes()


def test_a_task_is_parted_by_its_own_runs():
    """Addition, all without rehearsal, has no share that is "other", though most runs of parity have another."""
    frame = pd.concat([FAMILY, table(DIGITS).assign(rehearsal=0.0)])
    assert [(name, set(part["task"])) for name, part in by_rehearsal(frame, "addition")] == [("", {"addition"})]
    assert [name for name, _ in by_rehearsal(frame, "parity")] == [""]
    with pytest.raises(ValueError, match="no share of rehearsal"):
        by_rehearsal(frame.assign(rehearsal=None), "parity")


TUNED = table(rows_of("aligned", family_of(PRETRAINED)), rows_of("scratchpad", family_of(PRETRAINED)))


def test_fine_tuned_models_have_figures_of_their_own_and_are_in_no_other(zoo, tmp_path):
    """They rehearse nothing, so they would also change which share of rehearsal is the usual one."""
    frame = pd.concat([FAMILY, TUNED.assign(rehearsal=0.0)])
    assert [name for name, _ in by_rehearsal(frame, "parity")] == [""]
    ((name, part),) = by_rehearsal(frame, "parity", pretrained=True)
    assert (name, set(part["family"])) == ("", {family_of(PRETRAINED)})
    pd.concat([TABLE, TUNED.assign(rehearsal=0.0)]).to_parquet(zoo / "results.parquet")
    out = tmp_path / "figures"
    assert main(["figures", "--zoo", str(zoo), "--out", str(out), "--only", "variants-pretrained"]) == 0
    assert [path.name for path in out.iterdir()] == ["variants-pretrained.svg"]
    assert "SmolLM2" in (out / "variants-pretrained.svg").read_text(encoding="utf-8")


def test_fine_tuned_models_that_nobody_judged_are_not_in_the_figure_of_verdicts(zoo, monkeypatch):
    drawn: list[dict] = []
    monkeypatch.setattr(zoo_figures, "roles_by_format", lambda verdicts, *_: drawn.append(verdicts))
    entry = {"models": [], "learned": 1, "of": 1, "alone": {}, "verdict": None, "why": "not measured yet"}
    tuned = {f"parity-{fmt}-{family_of(PRETRAINED)}": dict(entry) for fmt in ("aligned", "constant")}
    judged = {**tuned, f"parity-aligned-{family_of(PRETRAINED)}": VERDICTS["parity-aligned-alibi"]}
    for more in (tuned, judged):
        text = {"version": VERSION, "provenance": provenance_record(), "verdicts": {**VERDICTS, **more}}
        (zoo / "verdicts.json").write_text(json.dumps(text), encoding="utf-8")
        FiguresCommand(zoo=zoo).verdicts()
    assert set(drawn[0]) == set(VERDICTS)
    assert set(drawn[1]) == {*VERDICTS, *tuned}


def test_the_table_names_a_family_as_the_figures_of_fine_tuned_models_do():
    recipe = TrainCommand("parity-aligned", source=SOURCE, lora=RANK).recipe()
    record = {"format": "parity-aligned", "recipe": recipe.to_json(), "outcome": {"competent": True, "steps": 1}}
    about = _about(recipe.name, record)
    for name in ("variants-pretrained", "gaps-pretrained", "addition-pretrained", "reach-pretrained"):
        assert zoo_figures.FIGURES[name].keywords["family"] == about["family"]


def test_the_table_of_fine_tuned_models_has_a_row_a_format_and_mode(zoo):
    assert pretrained_table(zoo) == pretrained_addition_table(zoo) == "not built yet\n"
    steps: Any = 160 + 5 * TUNED["seed"]
    TUNED.assign(rehearsal=0.0, precision="no", steps=steps).to_parquet(zoo / "results.parquet")
    rows = cells_of(pretrained_table(zoo))
    expected: Any = TUNED[(TUNED["format"] == "aligned") & (TUNED["metric"] == "exact") & (TUNED["mode"] == "forced")]
    (aligned,) = (row for row in rows if row[:4] == [SOURCE, "aligned", "1 to 20", "forced"])
    learned = expected[expected["learned"] & (expected["length"] == 20)]["value"]
    assert aligned[4] == "float32"
    assert aligned[6] == f"{expected[expected['learned']]['run'].nunique()} of {expected['run'].nunique()}"
    assert aligned[7] == f"{steps.min()} to {steps.max()}"
    assert aligned[10].startswith(f"{learned.median():.3f}")
    assert {row[1] for row in rows} == {"aligned", "scratchpad"}
    assert pretrained_addition_table(zoo) == "not built yet\n"


def test_models_fine_tuned_on_the_papers_lengths_have_rows_of_their_own(zoo):
    family = f"{family_of(PRETRAINED)}+from{PAPERS_SHORTEST}"
    both = pd.concat([TUNED, TUNED.assign(family=family, run=TUNED["run"] + "-from", value=TUNED["value"] / 2)])
    both.assign(rehearsal=0.0, precision="no", steps=160).to_parquet(zoo / "results.parquet")
    rows = [row for row in cells_of(pretrained_table(zoo)) if row[1] == "aligned" and row[3] == "forced"]
    assert [row[2] for row in rows] == ["1 to 20", f"{PAPERS_SHORTEST} to 20"]
    first, second = (float(row[10].split()[0]) for row in rows)
    assert second == pytest.approx(first / 2, abs=0.001)


def test_a_second_pretrained_family_has_rows_after_those_of_the_first(zoo):
    second = TUNED.assign(family=family_of(SECOND_PRETRAINED), run=TUNED["run"] + "-second", value=TUNED["value"] / 2)
    pd.concat([second, TUNED]).assign(rehearsal=0.0, precision="no", steps=160).to_parquet(zoo / "results.parquet")
    rows = cells_of(pretrained_table(zoo))
    alone = [row[1:4] for row in rows if row[0] == SOURCE]
    assert [row[:4] for row in rows] == [[model, *cells] for model in (SOURCE, SECOND_SOURCE) for cells in alone]
    first, other = (float(row[10].split()[0]) for row in rows if row[1:4] == ["aligned", "1 to 20", "forced"])
    assert other == pytest.approx(first / 2, abs=0.001)
    axes = zoo_figures.FIGURES["by-family-pretrained"](pd.read_parquet(zoo / "results.parquet")).axes
    assert [axis.get_title() for axis in axes[:2]] == [
        f"{name} with adapters of rank {RANK}" for name in ("SmolLM2-135M", "Gemma 3 270M")
    ]


def test_addition_of_fine_tuned_models_has_a_table_by_digits(zoo):
    sums = table(DIGITS).assign(family=family_of(PRETRAINED))
    pd.concat([TUNED, sums]).assign(rehearsal=0.0, precision="no", steps=300).to_parquet(zoo / "results.parquet")
    (forced,) = (row for row in cells_of(pretrained_addition_table(zoo)) if row[3] == "forced")
    at: Any = sums[(sums["metric"] == "exact") & (sums["mode"] == "forced") & (sums["length"] == 10) & sums["learned"]]
    assert forced[:3] == [SOURCE, "aligned", "1 to 10"]
    assert forced[7] == "300"
    assert forced[9 + SUMS.index(10)].startswith(f"{at['value'].median():.3f}")
    assert {row[2] for row in cells_of(pretrained_table(zoo))} == {"1 to 20"}


def cells_of(markdown: str) -> list[list[str]]:
    """Return the cells of a table's rows without its head."""
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in markdown.splitlines()[2:]]


def test_maps_of_the_shipped_runs(capsys):
    """On few bits and prompts, lest it take a minute."""
    argv = ["figures", "--only", "maps", "--length", "6", "--prompts", "2", "--out", "."]
    assert main(argv) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert Path(line).stat().st_size > 5000


def test_maps_of_fine_tuned_models_are_of_their_runs_and_drawn_only_by_name(monkeypatch, capsys):
    asked: list[str] = []

    def small(name: str):
        asked.append(name)
        return load("parity-aligned-alibi" if "aligned" in name else "parity-scratchpad-alibi")

    monkeypatch.setattr(experiments, "load", small)
    command = FiguresCommand(length=6, prompts=2)
    with pytest.raises(NoRows, match="--only maps-pretrained"):
        command.maps("maps-pretrained", required=False)
    assert not asked
    argv = ["figures", "--only", "maps-pretrained", "--length", "6", "--prompts", "2", "--out", "."]
    assert main(argv) == 0
    assert asked == ["smollm2-parity-scratchpad", "smollm2-parity-aligned"]
    assert Path("maps-pretrained.svg").stat().st_size > 5000


def test_maps_of_fine_tuned_models_name_the_missing_fetch(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("MNEMOSCOPE_CACHE", str(tmp_path / "nothing"))
    assert main(["figures", "--only", "maps-pretrained", "--out", "."]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "mnemoscope fetch smollm2-135m" in line


def test_the_table_has_a_row_a_configuration_and_mode(zoo):
    parity, addition = (part.splitlines() for part in zoo_table(zoo).split("\n\n"))
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in parity]
    assert rows[0][5:7] == ["step n=20", "step n=30"]
    aligned = next(row for row in rows if row[:2] == ["aligned", "alibi"])
    # Seeds 1 and 2 learned: .798 and .792 at 20 bits.
    assert aligned[2:6] == ["0.5", "2 of 3", "forced", "0.795 [0.792, 0.798]"]
    assert aligned[-1] == "anchor, 1 of 2 judged"
    absent = next(row for row in rows if row[:2] == ["aligned", "rotary"])
    assert absent[3] == "0 of 3"
    # None learned: what they reach is in brackets, and in no median of those that did.
    assert all(cell.startswith("(") and cell.endswith(")") for cell in absent[5:-1] if cell)
    assert any(absent[5:-1])
    assert absent[-1] == ""
    assert [row[4] for row in rows if row[:2] == ["scratchpad", "alibi"]] == ["forced"]
    assert "step n=14" in addition[0]
    assert len(addition) == 4


def test_a_verdict_on_other_runs_is_not_claimed():
    others = {"parity-aligned-alibi": VERDICTS["parity-aligned-alibi"] | {"models": ["another"]}}
    assert "anchor" not in zoo_table(folder_of("others", TABLE, others))


def test_a_zoo_that_was_not_built_is_said_to_be(tmp_path):
    assert zoo_table(tmp_path) == "not built yet\n"
    text = "before\n<!-- zoo table: python -m experiments.tables -->\nold\n<!-- end of zoo table -->\nafter\n"
    found = with_tables(text, {"zoo": lambda: zoo_table(tmp_path)})
    assert found == text.replace("old", "not built yet")
    with pytest.raises(ValueError, match="no markers of the zoo table"):
        with_tables("nothing", {"zoo": lambda: zoo_table(tmp_path)})


def test_a_verb_without_results_says_so(monkeypatch, no_models, capsys):
    monkeypatch.setattr(names, "ZOO", Path("empty"))
    assert main(["figures", "--only", "by-family"]) == 2
    assert "no rows" in capsys.readouterr().err
    assert main(["figures"]) == 0  # maps need no results, and the verdicts on lists are elsewhere
    assert [Path(p).stem for p in capsys.readouterr().out.splitlines()] == ["maps", "lists"]


def test_a_figure_is_one_function_and_one_row(monkeypatch, tmp_path):
    """The guide of figures/README.md, done with a toy figure."""
    from matplotlib.figure import Figure

    def toy(frame):
        figure = Figure()
        figure.subplots().plot(range(len(frame)))
        return figure

    monkeypatch.chdir(tmp_path)
    folder_of("zoo", TABLE, VERDICTS)
    command = FiguresCommand(zoo=Path("zoo"), out=Path("out"))
    assert "toy" not in [name for name, *_ in command.drawings()]
    monkeypatch.setattr(zoo_figures, "FIGURES", {**zoo_figures.FIGURES, "toy": toy})
    drawings = {name: draw for name, _, draw in command.drawings()}
    (line,) = drawings["toy"]().axes[0].lines
    assert np.size(line.get_xdata()) == (command.table["task"] == "parity").sum()
