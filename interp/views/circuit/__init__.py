"""Pictures of circuits: an SVG (`draw_circuit`), a page (`circuit_page`) and a notebook's view (`CircuitView`)."""

from interp.views.circuit.page import CircuitView, circuit_page
from interp.views.circuit.svg import draw_circuit

__all__ = ["CircuitView", "circuit_page", "draw_circuit"]
