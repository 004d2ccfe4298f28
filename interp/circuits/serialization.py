"""Reads a circuit from the JSON of `Circuit.to_json`. Every field is validated."""

from __future__ import annotations

import math
from typing import Any, get_args

import torch
from jaxtyping import Bool
from torch import Tensor

from interp.circuits.circuit import SCHEMA, Circuit
from interp.circuits.graph import Graph
from interp.patching.nodes import Receiver, ReceiverKind, Sender, SenderKind
from interp.tasks.limits import is_whole, shown

# Largest number of layers, and of heads per layer.
MOST_PARTS = 2**16


def circuit_from_json(data: dict) -> Circuit:
    """Return the circuit. Raises `ValueError` for data that is not a circuit, or has another schema."""
    try:
        if data["schema"] != SCHEMA:
            raise ValueError(f"a circuit of schema {SCHEMA} is expected; this one has {shown(data['schema'])}")
        writers = tuple(Sender(_one_of(n[0], SenderKind), *_numbers(n)) for n in data["writers"])
        readers = tuple(Receiver(_one_of(n[0], ReceiverKind), *_numbers(n)) for n in data["readers"])
        places, shared = tuple(data["places"]), data["shared"]
        if not all(isinstance(name, str) for name in places) or not isinstance(data["details"], dict):
            raise ValueError("this is not a circuit: places are names, and details an object")
        if not is_whole(shared) or shared < 1:
            raise ValueError(f"this is not a circuit: {shown(shared)} query heads share a key-value head")
        if any(len(set(names)) < len(names) for names in (writers, readers, places)):
            raise ValueError("this is not a circuit: a writer, reader or place appears twice")
        shape = (len(places), len(readers), len(writers))
        possible = torch.tensor([[x == "1" for x in place] for place in data["possible"]]).reshape(shape)
        graph = Graph(writers, readers, places, possible, shared)
        _check_parts(graph)
        kept = _mask([e["index"] for e in data["edges"]], shape)
        for edge in data["edges"]:
            own = graph.edge(*edge["index"])
            if (str(own.writer), str(own.reader), own.place) != (edge["writer"], edge["reader"], edge["place"]):
                raise ValueError(
                    f"this is not a circuit: index {shown(edge['index'])} is {own}, but the edge has other names"
                )
        scored = {edge["score"] is not None for edge in data["edges"]}
        if len(scored) > 1:
            raise ValueError("this is not a circuit: some edges have a score and others have none")
        if True in scored and not all(_is_number(edge["score"]) for edge in data["edges"]):
            raise ValueError("this is not a circuit: a score is not a finite number")
        scores = None
        if True in scored:
            scores = torch.zeros(possible.shape)
            for edge in data["edges"]:
                scores[tuple(edge["index"])] = edge["score"]
        return Circuit(graph, kept, scores, data["details"])
    except (LookupError, TypeError, AttributeError, RuntimeError) as error:
        raise ValueError(f"this is not a circuit: {shown(error)}") from error


def _check_parts(graph: Graph) -> None:
    """Raise `LookupError` or `ValueError` where a part has readers but does not write, or writes without readers."""
    for writer in graph.writers:
        graph.readers_of(writer)  # raises where one is missing
    writers = set(graph.writers)
    for reader in graph.readers:
        match reader.kind:
            case "logits":
                continue
            case "mlp":
                own = Sender("mlp", reader.layer)
            case kind:
                assert reader.head is not None
                shared = 1 if kind == "q" else graph.shared
                own = Sender("head", reader.layer, (reader.head + 1) * shared - 1)  # the last that shares it
        if own not in writers:
            raise ValueError(
                f"this is not a circuit: {shown(str(reader))} is a reader, but {shown(str(own))} is not a writer"
            )


def _numbers(node: list) -> tuple[int | None, int | None]:
    """Return a node's layer and head."""
    if len(node) != 3 or any(x is not None and (not is_whole(x) or not 0 <= x < MOST_PARTS) for x in node[1:]):
        raise ValueError(f"this is not a circuit: a node is a kind, a layer and a head; got {shown(node)}")
    return node[1], node[2]


def _is_number(score: object) -> bool:
    return (isinstance(score, float) and math.isfinite(score)) or is_whole(score)


def _one_of(kind: str, choices: Any) -> Any:
    if kind not in get_args(choices):
        raise ValueError(f"a node is one of {', '.join(get_args(choices))}; got {shown(kind)}")
    return kind


def _mask(index: list[list[int]], shape: tuple[int, ...]) -> Bool[Tensor, "place reader writer"]:
    mask = torch.zeros(shape, dtype=torch.bool)
    if index:
        if any(len(at) != 3 or not all(map(is_whole, at)) or min(at) < 0 for at in index):
            raise ValueError("this is not a circuit: an edge's index is three numbers of 0 or more")
        mask[tuple(torch.tensor(index).T)] = True
    return mask
