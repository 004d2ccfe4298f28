"""Tests of `experiments.reporting`."""
