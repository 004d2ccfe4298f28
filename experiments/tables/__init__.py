"""The tables of README.md and figures/README.md, made from result files: `python -m experiments.tables`."""
