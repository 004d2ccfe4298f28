"""Three notebooks: percent scripts and the executed .ipynb files that are built from them."""
