"""Context windows for Jupyter."""
