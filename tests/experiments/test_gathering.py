"""What lies beside runs becomes one table and one verdict a configuration; nothing is left out."""

import json
from pathlib import Path

import pandas as pd
import pytest

from experiments.drawing.zoo import COLUMNS
from experiments.drawing.zoo.frames import precisions
from experiments.gathering import gather
from experiments.support.provenance import OtherVersions, provenance_record
from experiments.tables.zoo import confirmatory_table, judged_text
from experiments.training.recipe import Pretrained, Recipe
from interp.models import ModelConfig
from interp.tasks import default_vocabulary
from probes.findings import ROLES
from probes.serialization import battery_to_json
from tests.probes.test_decision import ANCHOR, evidence, one

USUAL = ModelConfig("alibi")
ACCURACY = {"value": 0.9, "low": 0.8, "high": 0.95, "chance": 0.5, "n": 256}


def put(
    folder: Path,
    seed: int,
    fmt: str = "parity-aligned",
    learned: bool = True,
    model: ModelConfig | Pretrained = USUAL,
    **files: dict,
) -> Path:
    """A run without weights, and the results that are named."""
    recipe = Recipe(fmt, model, seed)
    run = folder / recipe.name
    run.mkdir(parents=True)
    outcome = {"competent": learned, "step_accuracy": 0.5 + 0.5 * learned, "steps": 3000}
    record = {"version": 1, "format": fmt, "vocabulary": default_vocabulary().to_json(), "recipe": recipe.to_json()}
    made = {"provenance": provenance_record()}
    (run / "run.json").write_text(json.dumps({**record, "outcome": outcome, **made}))
    for name, data in files.items():
        (run / f"{name}.json").write_text(json.dumps({"version": 1, **made, **data}))
    return run


def evaluation(value: float = 0.9) -> dict:
    row = {"metric": "step", "mode": "forced", "length": 20, **ACCURACY, "value": value}
    offsets = [
        {"length": 20, "offset": 0, "share": 0.75},
        {"length": 20, "offset": None, "share": 0.2},
        {"length": 20, "offset": -3, "share": 0.05},
    ]
    return {"accuracy": [row], "offsets": offsets, "offset_prompts": 16}


def kept(name: str) -> dict:
    from dataclasses import replace

    return {"battery": battery_to_json(replace(one(evidence(**ANCHOR)), name=name))}


def test_one_row_a_run_length_mode_and_metric(tmp_path):
    posed = {"posed": "parity-constant", "metric": "exact", "mode": "forced", "length": 40, **ACCURACY}
    transfer = {"accuracy": [posed]}
    longer = {"accuracy": [{"metric": "exact", "mode": "forced", "length": 80, **ACCURACY, "value": 0.25}]}
    put(tmp_path, 2, evaluation=evaluation(), longer=longer, transfer=transfer, battery=kept("a"))
    put(tmp_path, 3, fmt="parity-constant", learned=False, evaluation=evaluation(0.5))
    table, _ = gather(tmp_path)
    assert tuple(table.columns) == COLUMNS
    assert pd.read_parquet(tmp_path / "results.parquet").equals(table)
    keys = zip(table["run"], table["posed"], table["metric"], strict=True)
    values = dict(zip(keys, table["value"], strict=True))
    first = {key[1:]: value for key, value in values.items() if key[0] == "parity-aligned-alibi-seed2"}
    anchor = first["parity-aligned", "rho anchor"]
    for role in ROLES:
        del first["parity-aligned", f"rho {role}"]
    assert first == {
        ("parity-aligned", "step"): 0.9,
        ("parity-aligned", "exact"): 0.25,
        ("parity-aligned", "offset +0"): 0.75,
        ("parity-aligned", "offset none"): 0.2,
        ("parity-aligned", "offset -3"): 0.05,
        ("parity-constant", "exact"): 0.9,
    }
    assert anchor == pytest.approx(1.0)
    learned = dict(zip(table["run"], table["learned"], strict=True))
    assert learned == {"parity-aligned-alibi-seed2": True, "parity-constant-alibi-seed3": False}


def test_verdicts_are_over_the_seeds_that_learned(tmp_path):
    for seed in range(2, 10):
        put(tmp_path, seed, learned=seed != 5, battery=kept(f"seed{seed}"))
    put(tmp_path, 2, fmt="parity-cyclic", learned=False)
    put(tmp_path, 2, fmt="parity-numeric")
    _, verdicts = gather(tmp_path)
    aligned = verdicts["parity-aligned-alibi"]
    assert (aligned["learned"], aligned["of"], len(aligned["models"])) == (7, 8, 7)
    assert aligned["verdict"]["verdict"] == "anchor"
    assert aligned["verdict"]["replication"] == "models"
    assert "seed5" not in aligned["verdict"]["models"]
    assert verdicts["parity-cyclic-alibi"]["why"] == "not applicable: no seed learned the task"
    assert verdicts["parity-numeric-alibi"]["why"] == "not measured yet"
    written = json.loads((tmp_path / "verdicts.json").read_text())
    assert written["verdicts"] == json.loads(json.dumps(verdicts))
    assert written["provenance"]["versions"]["mnemoscope"]


def test_a_damaged_file_is_named(tmp_path):
    run = put(tmp_path, 2)
    (run / "evaluation.json").write_text('{"accuracy": [')
    with pytest.raises(ValueError, match=r"evaluation.json is not JSON"):
        gather(tmp_path)


def test_results_of_other_versions_are_said_and_of_another_format_refused(tmp_path):
    made = provenance_record()
    older = {"provenance": {**made, "versions": {**made["versions"], "torch": "2.6.0+cu118"}}}
    put(tmp_path, 2, evaluation={**evaluation(), **older})
    with pytest.warns(OtherVersions, match=r"seed2/evaluation.json was made with torch 2\.6\.0\+cu118 \(here 2"):
        gather(tmp_path)
    put(tmp_path / "foreign", 3, evaluation={**evaluation(), "version": 2})
    with pytest.raises(ValueError, match=r"seed3.evaluation.json cannot be used: it is of version 2, made by mnemosc"):
        gather(tmp_path / "foreign")


def test_nothing_is_an_empty_table(tmp_path):
    table, verdicts = gather(tmp_path)
    assert len(table) == 0
    assert tuple(table.columns) == COLUMNS
    assert verdicts == {}


def test_sizes_and_pretrained_models_are_configurations_of_their_own(tmp_path):
    put(tmp_path, 2, evaluation=evaluation())
    put(tmp_path, 2, model=ModelConfig("alibi", n_layers=6), evaluation=evaluation())
    put(tmp_path, 2, model=Pretrained("bigscience/bloomz-560m"), evaluation=evaluation())
    table, verdicts = gather(tmp_path)
    families = {"alibi", "alibi_6x128x8", "bloomz_560m"}
    assert set(table["family"]) == families
    assert set(verdicts) == {f"parity-aligned-{family}" for family in families}


@pytest.mark.parametrize("lost", ["recipe", "outcome"])
def test_a_record_that_training_did_not_write_is_an_error_that_names_it(tmp_path, lost):
    path = put(tmp_path, 2) / "run.json"
    path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != lost}))
    with pytest.raises(ValueError, match=f"parity-aligned-alibi-seed2/run.json is not what .*{lost}"):
        gather(tmp_path)


def test_a_recipe_that_cannot_be_is_an_error_that_names_the_run(tmp_path):
    path = put(tmp_path, 2) / "run.json"
    path.write_text(path.read_text().replace('"family": "alibi"', '"family": "sinusoidal"'))
    with pytest.raises(ValueError, match=r"parity-aligned-alibi-seed2/run\.json .*sinusoidal"):
        gather(tmp_path)


def test_runs_that_were_not_trained_alike_are_not_pooled(tmp_path):
    for seed, steps in ((2, 3000), (3, 50)):
        path = put(tmp_path, seed, battery=kept(f"seed{seed}")) / "run.json"
        record = json.loads(path.read_text())
        path.write_text(json.dumps({**record, "recipe": {**record["recipe"], "steps": steps}}))
    words = r"parity-aligned-alibi-seed2 and parity-aligned-alibi-seed3 were trained differently \(steps 3000 and 50\)"
    with pytest.raises(ValueError, match=words):
        gather(tmp_path)


def test_runs_of_several_precisions_are_pooled_and_named(tmp_path):
    for seed, precision in ((2, "no"), (3, "bf16"), (4, "no")):
        path = put(tmp_path, seed, evaluation=evaluation()) / "run.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "precision": precision}))
    table, _ = gather(tmp_path)
    assert dict(zip(table["seed"], table["precision"], strict=True)) == {2: "no", 3: "bf16", 4: "no"}
    assert precisions(table) == "bfloat16/float32"
    assert precisions(table.query("seed == 2")) == "float32"


def test_results_of_other_weights_are_not_gathered(tmp_path):
    put(tmp_path, 2, evaluation={**evaluation(), "weights": "aa"}, battery={**kept("a"), "weights": "bb"})
    with pytest.raises(ValueError, match=r"seed2: evaluation\.json and battery\.json are of different weights"):
        gather(tmp_path)


def test_what_each_model_is_judged_alone_stands_beside_the_verdict(tmp_path):
    for seed in (2, 3):
        put(tmp_path, seed, battery=kept(f"seed{seed}"))
    entry = gather(tmp_path)[1]["parity-aligned-alibi"]
    assert entry["verdict"]["verdict"] == "undecided"  # two models cannot show presence
    assert entry["alone"] == {f"parity-aligned-alibi-seed{seed}": "anchor" for seed in (2, 3)}
    assert judged_text(entry) == "2 of 2 models anchor: too few for a claim over models †"  # no presence
    evidence = [*entry["verdict"]["evidence"], {"arm": "presence"}]
    entry = {**entry, "verdict": {**entry["verdict"], "evidence": evidence}}
    assert judged_text(entry) == "2 of 2 models anchor: too few for a claim over models"
    more = {**entry, "alone": {str(k): "anchor" for k in range(5)}}
    assert judged_text(more) == "undecided (alone: 5 anchor)"  # five models could show presence
    some = {**more, "learned": 7}
    assert judged_text(some) == "undecided (alone: 5 anchor), 5 of 7 judged"


def test_a_seed_that_was_not_planned_confirms_nothing(tmp_path):
    put(tmp_path, 1, battery=kept("one"))
    gather(tmp_path)
    with pytest.raises(ValueError, match="parity-aligned-alibi-seed1: in the verdict but not a planned seed"):
        confirmatory_table(tmp_path)


ELSEWHERE = {
    "version": 1,
    "runs": [
        {
            **dict(
                zip(COLUMNS, ("far", "parity", "aligned", "alibi_12x768x12", 2, 0.5, 20, 1800, "", True), strict=False)
            ),
            "prompts": 128,
            "battery_prompts": 48,
            "accuracy": [{"length": 60, "mode": "forced", "metric": "exact", "value": 0.75}],
            "roles": [{"length": 20, "role": "sink", "value": 0.25, "low": 0.125, "high": 0.5}],
        }
    ],
}


def test_runs_from_elsewhere_are_in_the_table_and_in_no_verdict(tmp_path):
    put(tmp_path, 2, evaluation=evaluation())
    (tmp_path / "elsewhere.json").write_text(json.dumps(ELSEWHERE))
    table, verdicts = gather(tmp_path)
    far = table[table["run"] == "far"].set_index("metric")
    assert far.loc["exact", ["posed", "length", "mode", "value", "n"]].tolist() == [
        "parity-aligned",
        60,
        "forced",
        0.75,
        128,
    ]
    assert far.loc["rho sink", ["length", "value", "low", "high", "n"]].tolist() == [20, 0.25, 0.125, 0.5, 48]
    assert set(verdicts) == {"parity-aligned-alibi"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda data: data.update(version=2), "not a list of runs of version 1"),
        (lambda data: data["runs"][0].pop("steps"), "lacks entries of a run: KeyError.'steps'"),
        (lambda data: data["runs"][0].update(run="parity-aligned-alibi-seed2"), "in a folder of its own"),
    ],
)
def test_a_bad_list_of_runs_from_elsewhere_is_an_error(tmp_path, change, words):
    put(tmp_path, 2, evaluation=evaluation())
    data = json.loads(json.dumps(ELSEWHERE))
    change(data)
    (tmp_path / "elsewhere.json").write_text(json.dumps(data))
    with pytest.raises(ValueError, match=words):
        gather(tmp_path)


def test_what_was_rehearsed_is_part_of_the_configuration(tmp_path):
    put(tmp_path, 2, evaluation=evaluation())
    run = put(tmp_path, 3, evaluation=evaluation())
    record = json.loads((run / "run.json").read_text())
    changed = {**record["recipe"], "condition": "lookup20", "rehearsal_longest": 20}
    (run / "run.json").write_text(json.dumps({**record, "recipe": changed}))
    table, verdicts = gather(tmp_path)
    assert set(table["family"]) == {"alibi", "alibi+lookup20"}
    assert set(verdicts) == {"parity-aligned-alibi", "parity-aligned-alibi+lookup20"}
