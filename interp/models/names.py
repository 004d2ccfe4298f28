"""Find the folder or hub name that a run's name stands for."""

from __future__ import annotations

import difflib
import json
import re
from pathlib import Path

from interp.models.pretrained import WHEEL_MODELS, fetch_command, fetched_folder
from interp.tasks.limits import shown

# Runs ship as files beside the installed packages. Nothing is imported from there: a folder named `experiments` in
# the user's own repository must not be run.
_INSTALLED = Path(__file__).resolve().parents[2] / "experiments"
SHIPPED = _INSTALLED / "runs"
# Results of all trained configurations: results.parquet and verdicts.json.
ZOO = _INSTALLED / "zoo"
OUT = Path("mnemoscope-out")
# A folder with one of these holds a model, perhaps an incomplete one; one without them may hold results of a run.
MODEL_FILES = ("config.json", "adapter_config.json", "run.json", "model.safetensors", "model.safetensors.index.json")
LONGEST_HUB_NAME = 96
# A name on the hub without its owner.
HUB_NAME = rf"[\w-][\w.-]{{0,{LONGEST_HUB_NAME - 1}}}"
# A name that is this similar to a known run is a misspelling of it, not a hub name without an owner.
SIMILAR = 0.6


def shipped_runs() -> list[str]:
    """Return the names of the runs that come with the package."""
    return sorted(p.parent.name for p in SHIPPED.glob("*/run.json"))


def zoo_runs() -> list[str]:
    """Return the names of the zoo's runs whose weights come with the package."""
    weights = ("model.safetensors", "adapter_model.safetensors")
    return sorted(p.parent.name for file in weights for p in ZOO.glob(f"*/{file}"))


def source_of(name: str | Path) -> str:
    """Return the folder or hub name that a run's name stands for.

    Tried in order: the folders of `places_of`, any other folder, a hub name with or without an owner. Raises
    `ValueError` for a path without a folder, for a file, for a folder without a model that has the name of one of the
    hub, and for a misspelt name with the nearest ones.
    """
    text = str(name)
    if places := places_of(text):
        return places[0]
    no_path = re.fullmatch(HUB_NAME, text) is not None
    if is_folder(Path(text)) and not no_path:  # whatever it lacks is said when it is read
        return text
    if re.fullmatch(r"[\w+-]{1,96}-seed\d+", text) and (ZOO / text / "run.json").is_file():
        raise ValueError(f"{text} ships with results but without weights; train it with `{_train_command(text)}`")
    if text in WHEEL_MODELS:
        raise ValueError(f"{text} has not been fetched yet: run `{fetch_command(text)}`")
    if is_file(Path(text)):
        raise ValueError(no_folder(text))
    if is_folder(Path(text)):
        raise ValueError(f"the folder {text} here is no model: it has no config.json; {_instead(text, text)}")
    if is_hub_name(text):
        return text
    if re.search(r"[/\\]", text) or text.startswith((".", "~")):
        owner = text.split("/")[0]
        hidden = f"; {_instead(owner, text)}" if _is_with_owner(text) and not is_file(Path(text)) else ""
        raise ValueError(no_folder(text) + hidden)
    known = shipped_runs() + zoo_runs() + sorted(p.parent.name for p in OUT.glob("*/run.json"))
    if near := difflib.get_close_matches(text[:LONGEST_HUB_NAME], known, n=3, cutoff=SIMILAR):
        raise ValueError(f"unknown run {shown(text)}; nearest: {', '.join(near)}")
    if no_path:
        return text
    raise ValueError(f"unknown run {shown(text)}; shipped runs are {', '.join(shipped_runs())}")


def places_of(name: str | Path) -> list[str]:
    """Return the folders with a model that a run's name may stand for; the first is used.

    They are a shipped run, a folder, a run under `mnemoscope-out`, a run of the zoo and a fetched pretrained model. A
    folder that holds only results, such as those of an earlier command on the run, is none of them.
    """
    text, places = str(name), []
    if text in shipped_runs():
        places.append(str(SHIPPED / text))
    local = (text, str(OUT / text)) if re.fullmatch(r"[\w.+-]+", text) else (text,)
    places += [folder for folder in local if any(is_file(Path(folder, file)) for file in MODEL_FILES)]
    if text in zoo_runs():
        places.append(str(ZOO / text))
    if text in WHEEL_MODELS and (folder := fetched_folder(text)) is not None:
        places.append(str(folder))
    different: dict[Path, str] = {}
    for place in places:
        different.setdefault(Path(place).resolve(), place)
    return list(different.values())


def _train_command(run: str) -> str:
    """Return the command that trains a run of the zoo."""
    kind, _, seed = run.rpartition("-seed")
    kind = kind.partition("+from")[0]
    recipe = json.loads((ZOO / run / "run.json").read_text(encoding="utf-8")).get("recipe", {})
    model = recipe.get("model", {})
    if "source" in model:  # adapters on a pretrained model
        kind = f"{recipe['format']} --from {model['source']} --lora {model['lora']}"
    shortest = f" --shortest {recipe['shortest']}" if "shortest" in recipe else ""
    return f"mnemoscope train {kind}{shortest} --seed {seed}"


def is_hub_name(text: str) -> bool:
    """Return whether a text is a hub name with an owner, and not a path into a folder that is here."""
    return _is_with_owner(text) and not is_folder(Path(text.split("/")[0]))


def _is_with_owner(text: str) -> bool:
    return len(text) <= LONGEST_HUB_NAME and re.fullmatch(r"[\w-][\w.-]*/[\w.-]*[\w-]", text) is not None


def _instead(folder: str, name: str) -> str:
    """Return how to load a model of the hub whose name a folder here hides."""
    return f"to load {name} from the hub, move the folder {folder} or run the command in another folder"


def no_folder(path: str | Path, holds: str = "config.json and model.safetensors") -> str:
    """Return why a path is not the folder that is wanted, for an error message; `holds` says what should be in it."""
    if not is_file(Path(path)):
        return f"no such folder: {shown(str(path))}"
    beside = Path(path).absolute().parent
    instead = f"; its folder is {beside}" if (beside / "config.json").is_file() else ""
    return f"{shown(str(path))} is a file; wanted is a folder with {holds}{instead}"


def is_folder(path: Path) -> bool:
    """Return whether a path is a folder; False for a name that no file system accepts."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def is_file(path: Path) -> bool:
    """Return whether a path is there and no folder; False for a name that no file system accepts."""
    try:
        return path.exists() and not path.is_dir()
    except (OSError, ValueError):
        return False
