"""The attention page: weights as lines between tokens and as a heat map, in one HTML file that needs no server."""

from .page import Page, view

__all__ = ["Page", "view"]
