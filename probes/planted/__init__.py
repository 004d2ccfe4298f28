"""Planted models: transformers whose mechanism is known by construction, to test verdicts."""

from probes.planted.families import FAMILIES
from probes.planted.list_mechanisms import LIST_MECHANISMS
from probes.planted.plan import ARCHITECTURES_OF, MECHANISMS, OUTSIDE, Dirt, Plan, Truth, draw_plan
from probes.planted.planting import Planted, plant, prove, save_planted

__all__ = [
    "ARCHITECTURES_OF",
    "FAMILIES",
    "LIST_MECHANISMS",
    "MECHANISMS",
    "OUTSIDE",
    "Dirt",
    "Plan",
    "Planted",
    "Truth",
    "draw_plan",
    "plant",
    "prove",
    "save_planted",
]
