"""Circuits to draw, and how a picture is read back."""

import random
import re
from xml.etree import ElementTree

from networkx import MultiDiGraph

from interp.views.circuit import draw_circuit
from interp.views.circuit.parts import READS, parts_of

SVG = "{http://www.w3.org/2000/svg}"
PLACES = ("anywhere", "input", "output label, step before")
NASTY = '<&"> \x01 ]]> </script><script>bad()</script>'


def small() -> MultiDiGraph:
    """An induction-like circuit, with a label that must be escaped and an edge at two places."""
    graph = MultiDiGraph(title="a <title>", subtitle="and what it is")
    graph.add_node("embed", kind="embed")
    graph.add_node("L0H1", kind="head", layer=0, head=1, label=NASTY)
    graph.add_node("L1H2", kind="head", layer=1, head=2, label="matching label")
    graph.add_node("L1 MLP", kind="mlp", layer=1)
    graph.add_node("logits", kind="logits")
    graph.add_edge("embed", "L0H1", reads="v", place="input", score=2.0)
    graph.add_edge("L0H1", "L1H2", reads="k", place="input", score=1.234)
    graph.add_edge("L0H1", "L1H2", reads="k", place="output", score=-0.1 - 0.2)
    graph.add_edge("L0H1", "L1H2", reads="q", place="anywhere", score=0.0)
    graph.add_edge("embed", "L1H2", reads="v", place="input", score=-0.5)
    graph.add_edge("L1H2", "L1 MLP", reads="mlp", place="anywhere", score=0.25)
    graph.add_edge("L1H2", "logits", reads="logits", place="output", score=3.0)
    return graph


def grown(seed: int, layers: int, heads: int, n_edges: int) -> MultiDiGraph:
    """A random circuit, with long labels on some nodes."""
    draw = random.Random(seed)
    nodes: list[tuple[str, dict]] = [("embed", {"kind": "embed"}), ("logits", {"kind": "logits"})]
    for layer in range(layers):
        for head in range(heads):
            label = draw.choice(["", "", "matching label", "copies the state of the previous step " * 2, "m" * 60])
            nodes.append((f"L{layer}H{head}", {"kind": "head", "layer": layer, "head": head, "label": label}))
        nodes.append((f"L{layer} MLP", {"kind": "mlp", "layer": layer}))
    data = dict(nodes)
    whole = MultiDiGraph()
    whole.add_nodes_from(nodes)
    time_of = {node.name: node.time for node in parts_of(whole).nodes}
    graph, seen = MultiDiGraph(n_layers=layers), set()
    while len(seen) < n_edges:
        u, v = draw.sample(list(data), 2)
        edge = (u, v, draw.choice(READS[data[v]["kind"]] or ("",)), draw.choice(PLACES))
        if time_of[u] < time_of[v] and edge not in seen:
            seen.add(edge)
            graph.add_nodes_from((name, data[name]) for name in (u, v))
            graph.add_edge(u, v, reads=edge[2], place=edge[3], score=draw.gauss(0, 1) ** 3)
    return graph


GRAPHS = {
    "small": small(),
    "one edge": grown(0, 1, 1, 1),
    "25 edges": grown(1, 3, 4, 25),
    "80 edges": grown(2, 3, 8, 80),
    "deep": grown(3, 12, 3, 60),
    "wide": grown(4, 2, 16, 120),
}


def tree(graph) -> ElementTree.Element:
    return ElementTree.fromstring(draw_circuit(graph))


def edges(root) -> list[ElementTree.Element]:
    return [e for e in root.iter(SVG + "path") if e.get("class", "").startswith("edge ")]


def nodes(root) -> dict[str, ElementTree.Element]:
    return {e.attrib["data-node"]: e for e in root.iter(SVG + "g") if e.get("class", "").startswith("node ")}


def sides(rect) -> tuple[float, float, float, float]:
    """Left, upper, right, lower."""
    x, y, width, height = (float(rect.get(key)) for key in ("x", "y", "width", "height"))
    return x, y, x + width, y + height


def box(node) -> tuple[float, float, float, float]:
    return sides(next(r for r in node.iter(SVG + "rect") if r.get("class") == "box"))


def points(path: str, steps: int = 24) -> list[tuple[float, float]]:
    """Points along a path of M, C and V."""
    found: list[tuple[float, float]] = []
    for kind, words in re.findall(r"([MCV])([^MCV]*)", path):
        numbers = [float(word) for word in words.split()]
        match kind:
            case "M":
                found.append((numbers[0], numbers[1]))
            case "V":
                x, y = found[-1]
                found.extend((x, y + (numbers[0] - y) * k / steps) for k in range(1, steps + 1))
            case _:
                (a, b), (c, d, e, f, g, h) = found[-1], numbers
                for t in (k / steps for k in range(1, steps + 1)):
                    u = 1 - t
                    found.append(
                        (
                            u**3 * a + 3 * u * u * t * c + 3 * u * t * t * e + t**3 * g,
                            u**3 * b + 3 * u * u * t * d + 3 * u * t * t * f + t**3 * h,
                        )
                    )
    return found
