"""Write every table and every number in prose into the READMEs of a checkout."""

import argparse
import sys
from collections.abc import Sequence

from experiments.support.provenance import reporting_versions
from experiments.tables.markers import with_numbers
from experiments.tables.places import PLACES, ROOT, with_tables
from interp.support.writing import write_whole


def main(argv: Sequence[str] | None = None) -> int:
    """Rewrite the READMEs; return 0, or 2 where this is an installed package and not a checkout. Takes no arguments."""
    argparse.ArgumentParser(prog="python -m experiments.tables", description=__doc__).parse_args(argv)
    if not (ROOT / "README.md").is_file():
        print("experiments.tables needs a checkout; this is an installed package", file=sys.stderr)
        return 2
    with reporting_versions():
        for path, tables in PLACES.items():
            write_whole(path, with_numbers(with_tables(path.read_text(encoding="utf-8"), tables)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
