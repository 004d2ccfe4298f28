"""Training: recipes, data, the loop and checkpoints. Imports no TransformerLens."""
