"""Trained models in which a role of labels is impossible or necessary by their weights: truth that nobody planted."""

from experiments.forced.models import CASES, LENGTH, SEEDS, load_forced
from experiments.forced.tied import TIED, tie_labels

__all__ = ["CASES", "LENGTH", "SEEDS", "TIED", "load_forced", "tie_labels"]
