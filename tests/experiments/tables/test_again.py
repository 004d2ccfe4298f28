"""The table of models of the zoo that were judged again."""

import json
import shutil
from pathlib import Path

from experiments.tables.again import HEAD, again_table
from interp.models.names import ZOO


def test_a_row_has_the_label_and_the_statuses_of_the_file(tmp_path: Path):
    assert again_table(tmp_path) == "not built yet\n"
    shipped = ZOO.with_name("runs") / "parity-aligned-alibi" / "verdict.json"
    folder = tmp_path / "parity-aligned-alibi"
    folder.mkdir()
    shutil.copy(shipped, folder)
    (row,) = again_table(tmp_path).splitlines()[2:]
    cells, found = [cell.strip() for cell in row.strip("|").split("|")], json.loads(shipped.read_text())
    assert len(cells) == len(HEAD)
    assert cells[:3] == [folder.name, "", f"**{found['verdict']}**"]
    roles = found["roles"]
    statuses = [roles[name]["status"] for name in ("anchor", "placeholder", "sink")]
    assert [cell.split()[0] for cell in cells[3:]] == [*statuses, roles["sink"]["margins"]["status"]]
    assert f"{roles['anchor']['rho']:.3f} [{roles['anchor']['ci'][0]:.3f}, " in cells[3]
