"""The table of what labels do in fine-tuned models: its cells are those of the stored verdicts."""

import pytest

from experiments.support.reading import read_result
from experiments.tables.cells import interval
from experiments.tables.pretrained import JUDGED, MIDDLE, ROUTES, routes_table


@pytest.mark.parametrize("row", range(len(JUDGED)))
def test_a_row_has_the_evidence_and_the_verdict_of_its_file(row):
    labels, seed, bits, path, model = JUDGED[row]
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in routes_table().splitlines()]
    head, cells = lines[0], lines[2 + row]
    data = read_result(path)
    assert (*cells[:4], cells[-1]) == (model, labels, seed, str(bits), data["verdict"])
    (at,) = [at for at in data["by_length"] if at["length"] == bits]
    assert cells[-3:-1] == [at["roles"][role]["status"] for role in ("anchor", "placeholder")]
    for title, name in ROUTES.items():
        found = [e["value"] for e in data["evidence"] if (e["name"], e["length"]) == (name.format(MIDDLE[model]), bits)]
        expected = [interval(v["value"], [v["low"], v["high"]]) for v in found] or [""]
        assert [cells[head.index(title)]] == expected
    assert cells[head.index("stored results")]
