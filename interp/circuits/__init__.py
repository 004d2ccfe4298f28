"""Circuit analysis: edge and node attribution, circuit search, faithfulness, and descriptions of heads."""

from interp.circuits.ablation import Ablation
from interp.circuits.baselines import Curve, RandomCircuits, against_random, curve
from interp.circuits.circuit import Circuit
from interp.circuits.evaluation import (
    Completeness,
    Faithfulness,
    completeness,
    faithfulness,
    minimality,
    overlap,
)
from interp.circuits.exact import exact_edge_scores
from interp.circuits.graph import Edge, Graph
from interp.circuits.head_descriptions import HeadDescriptions
from interp.circuits.heads import describe_heads
from interp.circuits.logit_attribution import LayerReadouts, MarginParts, attribute_margin, read_layers
from interp.circuits.nodes import Node, NodeScores, node_scores
from interp.circuits.places import Places, named_places, places_around
from interp.circuits.scores import EdgeScores
from interp.circuits.scoring import METHODS, edge_scores
from interp.circuits.selecting import acdc, greedy, random_circuit, top_n
from interp.circuits.serialization import circuit_from_json

__all__ = [
    "METHODS",
    "Ablation",
    "Circuit",
    "Completeness",
    "Curve",
    "Edge",
    "EdgeScores",
    "Faithfulness",
    "Graph",
    "HeadDescriptions",
    "LayerReadouts",
    "MarginParts",
    "Node",
    "NodeScores",
    "Places",
    "RandomCircuits",
    "acdc",
    "against_random",
    "attribute_margin",
    "circuit_from_json",
    "completeness",
    "curve",
    "describe_heads",
    "edge_scores",
    "exact_edge_scores",
    "faithfulness",
    "greedy",
    "minimality",
    "named_places",
    "node_scores",
    "overlap",
    "places_around",
    "random_circuit",
    "read_layers",
    "top_n",
]
