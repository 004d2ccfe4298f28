"""Digests of data, by which files are matched to what they were made with."""

from __future__ import annotations

import hashlib
import json


def digest_of(data: object) -> str:
    """Return a digest of data that JSON can write, in hexadecimal digits."""
    return hashlib.sha256(json.dumps(data).encode()).hexdigest()
