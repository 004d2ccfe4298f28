"""Benchmarks: alternatives are timed side by side in one process."""
