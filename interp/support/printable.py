"""Text from files, made safe to show: names of runs, tensors and tokens may hold control codes."""

from __future__ import annotations


def visible(text: str, keep: str = "") -> str:
    r"""Return text with every character escaped that is not printable: control codes, bidirectional marks, line breaks.

    Characters of `keep` stay. Names of runs, tensors and tokens come from files that anyone may have written.

    >>> visible("a\x1b[31mb\u200fc")
    'a\\x1b[31mb\\u200fc'
    """
    return "".join(c if c.isprintable() or c in keep else c.encode("unicode_escape").decode() for c in text)


def is_utf8(text: str) -> bool:
    r"""Return whether UTF-8 can write a text: it has no half of a surrogate pair.

    Python decodes bytes of a command line or a file name that are not UTF-8 as such halves.

    >>> is_utf8("caf\xe9"), is_utf8("caf\udce9")
    (True, False)
    """
    return not any("\ud800" <= character <= "\udfff" for character in text)
