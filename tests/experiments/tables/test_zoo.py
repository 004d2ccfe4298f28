"""Cells of the table of all configurations."""

from experiments.tables.zoo import confirmatory_table, spread
from probes.findings import ROLES
from probes.judging_sink import ON_MARGINS


def test_a_cell_says_how_many_seeds_it_is_of_where_not_all_were_measured():
    assert spread([0.5, 1.0]) == spread([0.5, 1.0], of=2) == "0.750 [0.500, 1.000]"
    assert spread([0.5, 1.0], of=3) == "0.750 [0.500, 1.000]; 2 seeds"
    assert spread([0.5], of=3) == "0.500; 1 seed"
    assert spread([0.5], of=1) == "0.500"
    assert spread([], of=3) == ""


def test_the_confirmatory_table_has_the_sink_on_margins_with_its_p_values():
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in confirmatory_table().splitlines()[2:]]
    rows = [row for row in rows if row]
    assert [row[1] for row in rows] == [*ROLES, ON_MARGINS] * 2
    assert all(float(row[k]) <= 1 for row in rows for k in (4, 5, 6, 7))
