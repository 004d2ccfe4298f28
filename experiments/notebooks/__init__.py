"""Three notebooks, one for each journey: percent scripts, and the executed .ipynb that are built from them."""
