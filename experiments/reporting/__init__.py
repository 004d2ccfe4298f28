"""The HTML report on a run: stored and computed results, figures, text and the page."""
