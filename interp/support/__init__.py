"""Atomic writing, memory budgets, finite checks and model sizes: code that knows nothing of models."""
