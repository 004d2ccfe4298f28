"""From a recipe to a trained run, resumable. Imports no TransformerLens."""
