"""Five tasks of notebooks, each written here and in TransformerLens; `python -m tests.interp.migration` times both."""
