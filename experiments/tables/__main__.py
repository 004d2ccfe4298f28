"""Writes every table into its place: README.md, RECIPES.md, and those of the benchmarks and the figures."""

from experiments.support.provenance import reporting_versions
from experiments.tables.places import PLACES, with_tables
from interp.support.writing import write_whole

with reporting_versions():
    for readme, tables in PLACES.items():
        write_whole(readme, with_tables(readme.read_text(encoding="utf-8"), tables))
