"""Which edges does a planted mechanism need? Read off its own parts, before any model is run.

An edge is needed where its writer writes a feature that its reader reads, where what is read goes into the answer,
and where what is written can differ between two prompts of one layout: a cut edge carries another prompt's, so one
that carries the same in all of them (places, "is label", the constant) can be cut for nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from interp.circuits import Edge
from interp.models.anatomy import Anatomy, anatomy_of
from interp.patching.nodes import Receiver, Sender
from probes.planted import Planted
from probes.planted.codes import place_frequencies
from probes.planted.mechanisms import BUILDERS
from probes.planted.parts import ONE, Form, Head, Match, Mechanism, Neuron, Offset, Term
from probes.planted.pieces import Setting

# What tokens write that another prompt of the layout may not: bits and labels have fixed positions.
DIFFERS = ("label", "bit")
# A head that was not planted writes nothing; noise on a weight is far below a half.
LEAST = 0.5


@dataclass(frozen=True)
class Link:
    """A feature that goes into others: from the readers of one part to what the part writes."""

    writer: Sender
    target: str
    reads: tuple[tuple[Receiver, frozenset[str]], ...]


def needed_edges(planted: Planted) -> frozenset[Edge]:
    """The edges, without places, along which a prompt reaches the planted model's answer."""
    circuit = circuit_of(planted)
    links = links_of(circuit, heads_of(planted, circuit))
    varying = {(Sender("embed"), name) for name in DIFFERS}
    while True:
        known = {(link.writer, link.target) for link in links if any(sources(link, varying))}
        if known <= varying:
            break
        varying |= known
    found: set[Edge] = set()
    wanted = [(Receiver("logits"), frozenset(circuit.routes))]
    while wanted:
        reader, features = wanted.pop()
        for writer, feature in varying:
            edge = Edge(writer, reader)
            if feature not in features or not before(writer, reader):
                continue
            found.add(edge)
            wanted += [
                read for link in links if (link.writer, link.target) == (writer, feature) for read in link.reads
            ]  # the graph has no cycle, so this ends
    return frozenset(found)


def circuit_of(planted: Planted) -> Mechanism:
    """The mechanism's parts. Their features do not depend on what `plant` draws at random."""
    plan = planted.plan
    frequencies = place_frequencies(torch.Generator().manual_seed(0))
    return BUILDERS[plan.mechanism](Setting(plan.architecture, plan.longest, plan.share, frequencies, 40.0))


def heads_of(planted: Planted, circuit: Mechanism) -> dict[int, int]:
    """Where each head that writes stands in its layer, by the part's `id`: found by the features that weights write.

    Weights alone decide: output weights are taken apart into the directions of features.
    """
    assert not planted.plan.dirt.superposition, "features that share dimensions cannot be told apart by weights"
    anatomy: Anatomy = anatomy_of(planted.model)
    found = {}
    for layer in range(circuit.n_layers):
        written = [
            frozenset(
                name
                for name, directions in planted.directions.items()
                if float((weights @ directions.T).norm()) > LEAST
            )
            for weights in anatomy.output_weights(layer)
        ]
        for part in circuit.parts:
            if isinstance(part, Head) and part.layer == layer and part.moves:
                targets = frozenset(move.target for move in part.moves)
                where = [i for i, names in enumerate(written) if names == targets]
                assert len(where) == 1, f"heads {where} of layer {layer} write {sorted(targets)}"
                found[id(part)] = where[0]
    return found


def links_of(circuit: Mechanism, heads: dict[int, int]) -> list[Link]:
    """What each part makes of what."""
    links = []
    for part in circuit.parts:
        match part:
            case Neuron(layer, reads, writes):
                links += [
                    Link(Sender("mlp", layer), target, ((Receiver("mlp", layer), names(reads)),)) for target in writes
                ]
            case Head(layer, scores, moves) if moves:
                head = heads[id(part)]
                q, k = (frozenset().union(*(side(score, i) for score in scores)) for i in range(2))
                looks = (Receiver("q", layer, head), q), (Receiver("k", layer, head), k)
                links += [
                    Link(Sender("head", layer, head), m.target, (*looks, (Receiver("v", layer, head), names(m.source))))
                    for m in moves
                ]
    return links


def side(score: Match | Term | Offset, at_key: int) -> frozenset[str]:
    """The features that a score reads at the query, or at the key. An offset reads where it is."""
    match score:
        case Match():
            return frozenset([score.key if at_key else score.query])
        case Term():
            return names(score.key if at_key else score.query)
        case Offset():
            return frozenset(["place"])


def names(form: Form | str) -> frozenset[str]:
    """The features of a form, without the constant."""
    keys = [form] if isinstance(form, str) else [key if isinstance(key, str) else key[0] for key in form]
    return frozenset(keys) - {ONE}


def sources(link: Link, varying: set[tuple[Sender, str]]) -> list[bool]:
    """For each thing that can differ between prompts, whether this part reads it."""
    return [
        feature in features and before(writer, reader) for reader, features in link.reads for writer, feature in varying
    ]


def before(writer: Sender, reader: Receiver) -> bool:
    """Whether the residual that is read holds what is written: planted blocks are one after the other."""
    read = float("inf") if reader.layer is None else 2 * reader.layer + (reader.kind == "mlp")
    return (-1 if writer.layer is None else 2 * writer.layer + (writer.kind == "mlp")) < read
