"""A tiny run that was never trained, for tests of what a report says of it."""

from pathlib import Path

from experiments import load
from experiments.training.recipe import Recipe
from experiments.training.state import beginning
from interp.models import ModelConfig, Run, save_run
from interp.tasks import default_vocabulary


def untrained_run(folder: Path, format: str = "parity-aligned") -> Run:
    """Save a model of two layers with random weights, and load it."""
    recipe = Recipe(format, ModelConfig("absolute", 2, 16, 2), seed=0)
    begun = beginning(recipe)
    record = {"format": format, "vocabulary": default_vocabulary().to_json(), "recipe": recipe.to_json()}
    save_run(folder, begun.model, begun.tokenizer, record)
    return load(str(folder))
