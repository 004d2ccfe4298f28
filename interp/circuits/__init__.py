"""Circuit analysis: edge and node attribution, circuit search, faithfulness, and descriptions of heads."""

from interp.circuits.ablation import Ablation
from interp.circuits.baselines import Curve, RandomCircuits, against_random, curve, magnitude_scores
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
from interp.circuits.finding import CircuitSearch, find_circuit
from interp.circuits.graph import Edge, Graph
from interp.circuits.head_descriptions import HeadDescriptions
from interp.circuits.heads import describe_heads
from interp.circuits.lens import LogitLens, logit_lens
from interp.circuits.logit_attribution import LogitAttribution, direct_logit_attribution
from interp.circuits.mib import MibScores, auroc, circuit_from_mib, circuit_to_mib, mib_scores
from interp.circuits.nodes import Node, NodeScores, node_scores
from interp.circuits.places import Places, named_places, places_around
from interp.circuits.scores import EdgeScores
from interp.circuits.scoring import METHODS, edge_scores
from interp.circuits.selecting import acdc, greedy, random_circuit, top_n
from interp.circuits.serialization import circuit_from_json
from interp.circuits.validity import Validity, check_validity

__all__ = [
    "METHODS",
    "Ablation",
    "Circuit",
    "CircuitSearch",
    "Completeness",
    "Curve",
    "Edge",
    "EdgeScores",
    "Faithfulness",
    "Graph",
    "HeadDescriptions",
    "LogitAttribution",
    "LogitLens",
    "MibScores",
    "Node",
    "NodeScores",
    "Places",
    "RandomCircuits",
    "Validity",
    "acdc",
    "against_random",
    "auroc",
    "check_validity",
    "circuit_from_json",
    "circuit_from_mib",
    "circuit_to_mib",
    "completeness",
    "curve",
    "describe_heads",
    "direct_logit_attribution",
    "edge_scores",
    "exact_edge_scores",
    "faithfulness",
    "find_circuit",
    "greedy",
    "logit_lens",
    "magnitude_scores",
    "mib_scores",
    "minimality",
    "named_places",
    "node_scores",
    "overlap",
    "places_around",
    "random_circuit",
    "top_n",
]
