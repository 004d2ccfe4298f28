"""Which folder does a name mean?"""

from __future__ import annotations

import difflib
import re
from pathlib import Path

from interp.models import Run, load_run
from interp.tasks import LONGEST, Format
from interp.tasks.limits import shown

SHIPPED = Path(__file__).parent.parent / "runs"
# Results of all trained configurations: results.parquet and verdicts.json.
ZOO = Path(__file__).parent.parent / "zoo"
OUT = Path("mnemoscope-out")
LONGEST_HUB_NAME = 96


def shipped_runs() -> list[str]:
    """Names of the runs that come with the package."""
    return sorted(p.parent.name for p in SHIPPED.glob("*/run.json"))


def zoo_runs() -> list[str]:
    """Names of the zoo's runs whose weights come with the package."""
    return sorted(p.parent.name for p in ZOO.glob("*/model.safetensors"))


def load_named(name: str | Path, fmt: str | Format | None = None, longest: int = LONGEST) -> Run:
    """The run that a name means: a shipped one, a folder, one under `mnemoscope-out`, one of the zoo, or a hub name."""
    text = str(name)
    if text in shipped_runs():
        return load_run(SHIPPED / text, fmt, longest=longest)
    if _is_folder(Path(text)):
        return load_run(text, fmt, longest=longest)
    if re.fullmatch(r"[\w.-]+", text) and _is_folder(OUT / text):
        return load_run(OUT / text, fmt, longest=longest)
    if text in zoo_runs():
        return load_run(ZOO / text, fmt, longest=longest)
    if len(text) <= LONGEST_HUB_NAME and re.fullmatch(r"[\w.-]+/[\w.-]+", text) and not text.startswith("."):
        return load_run(text, fmt, longest=longest)
    if re.fullmatch(r"[\w-]{1,96}-seed\d+", text) and (ZOO / text / "run.json").is_file():
        kind, _, seed = text.rpartition("-seed")
        raise ValueError(f"of {text} results come along, not weights; mnemoscope train {kind} --seed {seed} trains it")
    known = shipped_runs() + zoo_runs() + sorted(p.parent.name for p in OUT.glob("*/run.json"))
    near = difflib.get_close_matches(text[:LONGEST_HUB_NAME], known, n=3, cutoff=0.4)
    hint = f"nearest: {', '.join(near)}" if near else f"runs are {', '.join(known) or 'none yet'}"
    raise ValueError(f"unknown run {shown(text)}; {hint}; or name a folder that save_pretrained wrote")


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # no file system takes such a name
        return False
