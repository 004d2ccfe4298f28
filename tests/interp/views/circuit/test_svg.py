"""The still picture of a circuit, read back from its SVG."""

import time
from collections import Counter
from itertools import combinations, pairwise

import pytest
from networkx import MultiDiGraph

from interp.views.circuit import circuit_page, draw_circuit
from interp.views.circuit.boxes import PORT, text_width
from interp.views.circuit.svg import SIGNS
from tests.interp.views.circuit.samples import GRAPHS, NASTY, SVG, box, edges, grown, nodes, points, sides, small, tree


@pytest.fixture(params=GRAPHS)
def graph(request) -> MultiDiGraph:
    return GRAPHS[request.param]


def test_every_edge_is_drawn_with_its_exact_score(graph):
    drawn = Counter(
        (e.get("data-from"), e.get("data-to"), e.get("data-reads"), e.get("data-place"), float(e.attrib["data-score"]))
        for e in edges(tree(graph))
    )
    wanted = Counter((u, v, d["reads"], d["place"], d["score"]) for u, v, d in graph.edges(data=True))
    assert drawn == wanted
    assert set(nodes(tree(graph))) == set(graph)


def test_width_grows_with_the_absolute_score(graph):
    drawn = sorted((abs(float(e.attrib["data-score"])), float(e.attrib["stroke-width"])) for e in edges(tree(graph)))
    widths = [width for _, width in drawn]
    assert widths == sorted(widths)
    assert 0.5 < widths[0] <= widths[-1] <= 7
    assert widths[-1] > 2 * widths[0] or len(widths) == 1
    assert [int(e.attrib["data-rank"]) for e in edges(tree(graph))] == list(range(len(drawn), 0, -1))


def test_sign_is_a_colour_and_dashes(graph):
    for edge in edges(tree(graph)):
        score = float(edge.attrib["data-score"])
        sign = "positive" if score > 0 else "negative" if score < 0 else "zero"
        assert edge.get("stroke") == SIGNS[sign]
        assert edge.get("class") == f"edge {sign}"
        assert ("stroke-dasharray" in edge.attrib) == (sign == "negative")
    red, blue = (int(SIGNS[sign][1:3], 16) - int(SIGNS[sign][5:], 16) for sign in ("negative", "positive"))
    assert red > 50 > -50 > blue


def test_tooltips_are_the_edges_in_words():
    titles = [edge.findtext(SVG + "title") for edge in edges(tree(small()))]
    assert "L0H1 -> L1H2 k at input: +1.234" in titles
    assert "L0H1 -> L1H2 k at output: -0.3" in titles
    assert "L0H1 -> L1H2 q: +0" in titles
    assert "L1H2 -> L1 MLP: +0.25" in titles
    assert "L1H2 -> logits at output: +3" in titles


def test_edges_run_up_from_their_writer_to_their_port(graph):
    root = tree(graph)
    where = nodes(root)
    for edge in edges(root):
        way = points(edge.attrib["d"])
        assert all(a[1] >= b[1] - 0.02 for a, b in pairwise(way))
        left, top, right, _ = box(where[edge.attrib["data-from"]])
        assert left <= way[0][0] <= right
        assert way[0][1] == pytest.approx(top, abs=0.02)
        reader = where[edge.attrib["data-to"]]
        left, _, right, foot = box(reader)
        if reader.get("class") == "node head":
            port = next(p for p in reader.iter(SVG + "g") if p.get("data-port") == edge.get("data-reads"))
            assert port.get("class") == "port read"
            assert port.findtext(SVG + "text") == edge.get("data-reads")
            left, _, right, foot = sides(port.find(SVG + "rect"))
        assert left <= way[-1][0] <= right
        assert way[-1][1] == pytest.approx(foot, abs=0.02)


def test_a_head_has_tabs_for_q_k_and_v_from_left_to_right_under_its_box(graph):
    for node in nodes(tree(graph)).values():
        tabs = [(port.get("data-port"), sides(port.find(SVG + "rect"))) for port in node.findall(SVG + "g")]
        assert [name for name, _ in tabs] == (["q", "k", "v"] if node.get("class") == "node head" else [])
        left, _, right, foot = box(node)
        edge = left
        for _, (start, _, end, low) in tabs:
            assert edge <= start < end <= right
            assert low > foot + 8
            edge = end


def test_no_edge_runs_behind_a_node_that_is_not_its_own(graph):
    root = tree(graph)
    rows: dict[str, list[tuple[str, tuple[float, float, float, float]]]] = {}
    for name, node in nodes(root).items():
        left, top, right, foot = box(node)
        rows.setdefault(node.attrib["data-row"], []).append(
            (name, (left, top, right, foot + PORT * (node.get("class") == "node head")))
        )
    for edge in edges(root):
        own = {edge.get("data-from"), edge.get("data-to")}
        for x, y in points(edge.attrib["d"]):
            for name, (left, top, right, foot) in (item for row in rows.values() for item in row):
                assert name in own or not (left < x < right and top < y < foot), (name, edge.findtext(SVG + "title"))


def test_parallel_edges_can_be_told_apart(graph):
    assert len({edge.get("d") for edge in edges(tree(graph))}) == graph.number_of_edges()


def test_boxes_do_not_overlap_and_hold_their_text(graph):
    root = tree(graph)
    where = nodes(root)
    for (left, top, right, foot), (l2, t2, r2, f2) in combinations([box(node) for node in where.values()], 2):
        assert right < l2 or r2 < left or foot + PORT < t2 or f2 + PORT < top
    width = float(root.attrib["width"])
    for node in where.values():
        left, top, right, foot = box(node)
        assert -62 <= left < right <= width
        lines = node.findall(SVG + "text")
        assert lines
        for line in lines:
            assert text_width("".join(line.itertext())) <= right - left - 2
            assert float(line.attrib["x"]) == pytest.approx((left + right) / 2, abs=0.02)
            assert top + 9 <= float(line.attrib["y"]) <= foot - 3


def test_rows_are_in_the_order_of_computation():
    tops = {name: box(node)[1] for name, node in nodes(tree(GRAPHS["25 edges"])).items()}
    assert min(tops, key=lambda n: tops[n]) == "logits"
    assert max(tops, key=lambda n: tops[n]) == "embed"
    for layer in range(3):
        heads = [y for name, y in tops.items() if name.startswith(f"L{layer}H")]
        assert len(set(heads)) == 1
        assert tops[f"L{layer} MLP"] < heads[0]


def test_order_in_a_row_avoids_crossings():
    graph = MultiDiGraph()
    for layer in (0, 1):
        for head in range(4):
            graph.add_node(f"L{layer}H{head}", kind="head", layer=layer, head=head)
    for head in range(4):
        graph.add_edge(f"L0H{head}", f"L1H{3 - head}", reads="q", place="anywhere", score=1.0)
    ways = [points(edge.attrib["d"]) for edge in edges(tree(graph))]
    for a, b in combinations(ways, 2):
        assert (a[0][0] - b[0][0]) * (a[-1][0] - b[-1][0]) > 0


def test_labels_are_escaped_and_whole():
    root = tree(small())
    node = nodes(root)["L0H1"]
    shown = " ".join("".join(line.itertext()) for line in node.findall(SVG + "text"))
    assert "".join(shown.split()) == "".join(f"L0H1: {NASTY}".replace("\x01", "\ufffd").split())
    assert node.attrib["data-text"] == f"L0H1: {NASTY}".replace("\x01", "\ufffd")
    shown = nodes(root)["L1H2"].findall(SVG + "text")
    assert "".join(shown[0].itertext()) == "L1H2: matching label"
    assert shown[0].findtext(SVG + "tspan") == "L1H2"  # the name is bold


def test_labels_that_find_no_room_are_in_tooltips_and_the_picture_says_so():
    root = tree(GRAPHS["wide"])
    node = next(n for n in nodes(root).values() if "matching label" in n.attrib["data-text"])
    assert "".join(node.findall(SVG + "text")[-1].itertext()) == node.get("data-node")
    assert "matching label" in (node.findtext(SVG + "title") or "")
    assert "underlined: has a label, in its tooltip" in "".join(root.itertext())
    assert "underlined" not in "".join(tree(small()).itertext())


def test_layers_without_nodes_have_a_faint_mark():
    graph = small()
    graph.graph["n_layers"] = 4
    bands = [e for e in tree(graph).iter(SVG + "g") if e.get("class", "").startswith("band")]
    assert [(b.get("class"), b.findtext(SVG + "text")) for b in bands] == [
        ("band", "layer 0"),
        ("band", "layer 1"),
        ("band empty", "layer 2: nothing in the circuit"),
        ("band empty", "layer 3: nothing in the circuit"),
    ]


def test_the_picture_says_in_words_what_it_shows():
    root = tree(small())
    assert root.get("role") == "img"
    summary = root.findtext(SVG + "desc") or ""
    assert summary.startswith("A circuit of 5 nodes and 7 edges; strongest: L1H2 -> logits at output: +3; embed")
    assert (root.get("aria-label") or "").startswith("a <title>. A circuit of 5 nodes")
    legend = "".join(next(e for e in root.iter(SVG + "g") if e.get("class") == "legend").itertext())
    for words in ("positive score", "negative score", "score zero", "|score| 3", "q, k, v", "strongest edges:"):
        assert words in legend


def test_a_circuit_without_edges_is_drawn():
    graph = MultiDiGraph()
    graph.add_node("L0H0", kind="head", layer=0, head=0)
    assert set(nodes(tree(graph))) == {"L0H0"}
    assert "0 edges" in "".join(tree(graph).itertext())
    assert "data-script" in circuit_page(graph)


def test_all_scores_may_be_zero():
    graph = small()
    for _, _, data in graph.edges(data=True):
        data["score"] = 0.0
    assert {edge.get("class") for edge in edges(tree(graph))} == {"edge zero"}


def test_the_same_graph_gives_the_same_bytes_in_whatever_order_it_was_made():
    graph = GRAPHS["80 edges"]
    other = MultiDiGraph(**graph.graph)
    other.add_nodes_from(reversed(list(graph.nodes(data=True))))
    other.add_edges_from(reversed(list(graph.edges(data=True))))
    assert draw_circuit(graph) == draw_circuit(graph) == draw_circuit(other)
    assert circuit_page(graph) == circuit_page(other)


def test_a_large_circuit_takes_about_a_second():
    graph = grown(5, 24, 16, 800)
    begin = time.perf_counter()
    root = tree(graph)
    assert time.perf_counter() - begin < 10
    assert len(edges(root)) == 800
    assert float(root.attrib["width"]) < 3000
