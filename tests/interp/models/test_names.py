"""The folders that a run's name stands for: those that hold a model, in a fixed order."""

from __future__ import annotations

from pathlib import Path

import pytest

from interp.models import names
from interp.models.names import places_of, source_of

SHIPPED_RUN, ZOO_RUN = "parity-aligned-alibi", "parity-aligned-alibi-seed2"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MNEMOSCOPE_CACHE", str(tmp_path / "cache"))


def folder(path: str | Path, *files: str) -> str:
    """Make a folder with empty files of these names."""
    Path(path).mkdir(parents=True, exist_ok=True)
    for file in files:
        Path(path, file).touch()
    return str(path)


@pytest.mark.parametrize("file", names.MODEL_FILES)
def test_folders_with_a_model_are_tried_in_order(file):
    shipped, zoo = str(names.SHIPPED / SHIPPED_RUN), str(names.ZOO / ZOO_RUN)
    assert (places_of(SHIPPED_RUN), places_of(ZOO_RUN)) == ([shipped], [zoo])
    trained = folder(f"mnemoscope-out/{ZOO_RUN}", file)
    assert places_of(ZOO_RUN) == [trained, zoo]
    assert places_of(folder(ZOO_RUN, file)) == [ZOO_RUN, trained, zoo]
    assert places_of(folder(SHIPPED_RUN, file)) == [shipped, SHIPPED_RUN]
    for name in (SHIPPED_RUN, ZOO_RUN):
        assert source_of(name) == places_of(name)[0]
    assert places_of(f"./{SHIPPED_RUN}") == [f"./{SHIPPED_RUN}"]  # its path tells it from the shipped one
    fetched = folder("cache/smollm2-135m", "source.json")
    assert places_of("smollm2-135m") == [fetched] or Path(places_of("smollm2-135m")[0]) == Path(fetched).resolve()


@pytest.mark.parametrize("place", ["mnemoscope-out", "."])
def test_a_folder_of_results_hides_no_model(place):
    """An earlier command on a run leaves its results in a folder of the run's name."""
    for name in (SHIPPED_RUN, ZOO_RUN, "smollm2-135m", "gpt2"):
        folder(Path(place, name), "verdict.json", "evaluation.json")
    fetched = Path(folder("cache/smollm2-135m", "source.json")).resolve()
    assert source_of(SHIPPED_RUN) == str(names.SHIPPED / SHIPPED_RUN)
    assert source_of(ZOO_RUN) == str(names.ZOO / ZOO_RUN)
    assert Path(source_of("smollm2-135m")) == fetched
    if place != ".":
        assert source_of("gpt2") == "gpt2"  # the hub name


def test_the_same_folder_counts_once(monkeypatch):
    monkeypatch.chdir(names.SHIPPED)
    assert places_of(SHIPPED_RUN) == [str(names.SHIPPED / SHIPPED_RUN)]


def test_a_folder_without_a_model_that_hides_a_name_of_the_hub_is_an_error_with_the_way_out():
    assert places_of(folder("gpt2", "verdict.json")) == []
    with pytest.raises(ValueError, match=r"^the folder gpt2 here is no model: .*move the folder gpt2 or run the comm"):
        source_of("gpt2")
    assert source_of("./gpt2") == "./gpt2"  # what it lacks is said when it is read
    folder("owner")
    with pytest.raises(ValueError, match=r"^no such folder: 'owner/model'; to load owner/model .* the folder owner or"):
        source_of("owner/model")
    assert source_of("another/model") == "another/model"
    with pytest.raises(ValueError, match=r"^smollm2-135m has not been fetched yet"):
        source_of(folder("smollm2-135m", "verdict.json"))
