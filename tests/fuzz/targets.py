"""What the guided fuzzer and its corpus try: bytes that describe a result, a model folder or a tokenizer."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from experiments import load
from experiments.reporting.reuse import stored_result
from experiments.support.provenance import reporting_versions
from interp.circuits import circuit_from_json
from interp.models import ModelConfig, build_model, folder, load_tokenizer, save_run
from interp.models.names import SHIPPED
from interp.models.trial import DoesNotRun
from interp.tasks import default_tokenizer, default_vocabulary
from probes.findings import MARGINS
from tests.fuzz.counting import refusal
from tests.fuzz.test_fuzz_results import NAMES, RUN, shipped, show, whole

Target = Callable[[bytes], None]
CONFIG, WEIGHTS = "config.json", "model.safetensors"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
# Words of the shortest vocabulary that a tokenizer seed has; whole vocabularies would be most of an input.
FEW = 40


def target(kind: str, place: Path) -> Target:
    """Return the function that tries one input of a kind; `place` is a folder of its own. It raises for a failure."""
    return {"results": _results, "folders": _folders, "tokenizers": _tokenizers}[kind](place)


def seeds(kind: str) -> Iterator[bytes]:
    """Yield valid inputs of a kind."""
    match kind:
        case "results":
            for verb in NAMES:
                yield json.dumps({"verb": verb, "data": _short(shipped(verb))}).encode()
        case "folders":
            for family in ("alibi", "rotary", "absolute"):
                config = json.loads(_model(family).config.to_json_string(use_diff=False))
                yield json.dumps({"family": family, "config": config, "header": {}, "index": None}).encode()
        case _:
            tokenizer = json.loads(default_tokenizer().backend_tokenizer.to_str())
            vocab = tokenizer["model"]["vocab"]
            tokenizer["model"]["vocab"] = dict(list(vocab.items())[:FEW])
            settings = {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "<unk>", "eos_token": "<eos>"}
            yield json.dumps({"tokenizer.json": tokenizer, "tokenizer_config.json": settings}).encode()
            strange = {
                "tokenizer_config.json": {"tokenizer_class": "GPT2Tokenizer", "additional_special_tokens": ["a"]},
                "special_tokens_map.json": {"bos_token": {"content": "b", "lstrip": True}},
                "added_tokens.json": {"c": 41},
                "tokenizer.json": {
                    **tokenizer,
                    "normalizer": {"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "Lowercase"}]},
                    "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True},
                    "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True},
                    "truncation": {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0},
                },
            }
            yield json.dumps(strange).encode()


def _short(value: Any, most: int = 4) -> Any:
    """Return a result with at most four entries in every list that is not an interval's."""
    match value:
        case dict():
            return {key: _short(x, most) if key != "circuit" else x for key, x in value.items()}
        case list() if len(value) > most and isinstance(value[0], dict) and "quantity" in value[0]:
            return [_short(x, most) for x in value[:most]]
        case list():
            return [_short(x, most) for x in value]
        case _:
            return value


def _model(family: str) -> Any:
    return build_model(ModelConfig(family, n_layers=1, d_model=8, n_heads=2), len(default_vocabulary().ids), seed=0)  # type: ignore[arg-type]


def _results(place: Path) -> Target:
    shutil.copytree(SHIPPED / RUN, place / RUN)
    run = load(place / RUN)
    weights = whole(run, "verdict")["weights"]

    def one(data: bytes) -> None:
        asked = _object(data)
        if not isinstance(asked, dict) or (verb := asked.get("verb")) not in [*NAMES]:
            return
        result = asked.get("data")
        if isinstance(result, dict):
            result["weights"] = weights  # of this run and of these margins, so that inputs of earlier runs lead on
            if isinstance(result.get("margins"), dict):
                result["margins"]["version"] = MARGINS.version
            if "circuit" in result:
                refusal(lambda: circuit_from_json(result["circuit"]))
        (place / RUN / NAMES[verb]).write_text(json.dumps(result), encoding="utf-8")
        with reporting_versions():
            found, _, why = stored_result(run, verb, NAMES[verb], 0)
        if found is None:
            assert why.startswith(f"{RUN}/{NAMES[verb]} was not used: ")
            assert "\n" not in why
        else:
            show(run, verb, found)

    return one


def _folders(place: Path) -> Target:
    record = {"format": "parity-aligned", "vocabulary": default_vocabulary().to_json()}
    for family in ("alibi", "rotary", "absolute"):
        save_run(place / family, _model(family), default_tokenizer(), record)

    def elsewhere(_: Path) -> None:
        raise DoesNotRun("a trial forward would run in a child")

    folder.check_in_child = elsewhere

    def one(data: bytes) -> None:
        asked = _object(data)
        if not isinstance(asked, dict) or (family := asked.get("family")) not in ["alibi", "rotary", "absolute"]:
            return
        work = place / "work"
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(place / family, work)
        (work / CONFIG).write_text(json.dumps(asked.get("config")), encoding="utf-8")
        if asked.get("index") is not None:
            (work / f"{WEIGHTS}.index.json").write_text(json.dumps(asked["index"]), encoding="utf-8")
        if asked.get("header"):
            stored = (work / WEIGHTS).read_bytes()
            size = int.from_bytes(stored[:8], "little")
            header = json.loads(stored[8 : 8 + size])
            if isinstance(asked["header"], dict):
                header |= asked["header"]
            text = json.dumps(header).encode()
            (work / WEIGHTS).write_bytes(len(text).to_bytes(8, "little") + text + stored[8 + size :])
        refusal(lambda: folder.load_raw(str(work)))

    return one


def _tokenizers(place: Path) -> Target:
    def one(data: bytes) -> None:
        asked = _object(data)
        if not isinstance(asked, dict):
            return
        work = place / "work"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        (work / CONFIG).write_text('{"model_type": "bloom"}', encoding="utf-8")
        for name in TOKENIZER_FILES:
            if name in asked:
                (work / name).write_text(json.dumps(asked[name]), encoding="utf-8")
        tokenizer = refusal(lambda: load_tokenizer(str(work)))
        if tokenizer is not None:
            assert len(tokenizer.get_vocab()) >= 0

    return one


def _object(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None
