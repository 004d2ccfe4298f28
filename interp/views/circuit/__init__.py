"""A circuit as a picture: still (`draw_circuit`), as a page (`circuit_page`) and in a notebook (`CircuitView`)."""

from interp.views.circuit.page import CircuitView, circuit_page
from interp.views.circuit.svg import draw_circuit

__all__ = ["CircuitView", "circuit_page", "draw_circuit"]
