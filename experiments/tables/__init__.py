"""Markdown tables and numbers of the READMEs, made from result files by `python -m experiments.tables`."""
