"""Figures of evaluations and of the zoo."""
