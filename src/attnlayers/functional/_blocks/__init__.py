"""Attention block by block: a call from its arguments in flat form to its results, and back."""
