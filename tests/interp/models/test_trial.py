"""A configuration whose forward pass costs more than the weights do ends in a child process, in one line."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import (
    CONFIG_MAPPING,
    AutoModelForCausalLM,
    BertConfig,
    BertLMHeadModel,
    MptConfig,
    MptForCausalLM,
    PretrainedConfig,
)

from interp.models import ModelConfig, build_model, load_raw
from interp.models.architectures import SUPPORTED
from interp.models.checking import Held, check_sizes
from interp.models.trial import CHECKED, MEMORY, DoesNotRun, check_in_child, check_trial, is_causal, limit
from tests.interp.models.architecture_cases import CASES, tiny


def mpt(folder: Path, **changes: object) -> Path:
    config = MptConfig(d_model=16, n_heads=2, n_layers=1, vocab_size=30, max_seq_len=64)
    MptForCausalLM(config).save_pretrained(folder)
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return folder


def test_every_supported_type_is_checked_or_known_to_be_costly():
    """A new builder needs a decision: enter its type in `CHECKED` where the test below passes."""
    assert set(SUPPORTED) - CHECKED == {"mpt", "native"}  # folders never hold native models


Place = tuple[str, ...]
# A number of positions, chunks or layers that no forward pass of four tokens survives where it does work for each.
HUGE = 10**9


def numbers(values: dict[str, Any], outer: Place = ()) -> Iterator[Place]:
    """The places of numbers, and of nothing, in a configuration."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from numbers(value, (*outer, key))
        elif value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
            yield (*outer, key)


def changed(config: PretrainedConfig, place: Place, number: float) -> PretrainedConfig:
    values = config.to_dict()
    inner = values
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = number
    return CONFIG_MAPPING[config.model_type].from_dict(values)


def shapes_of(model: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(p.shape) for name, p in model.named_parameters()}


def passes(case: str, place: Place, number: float) -> str:
    """Try a model with a number in its configuration in a forked process: "", or how its forward pass fails."""
    base = tiny(case)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            torch.set_num_threads(1)
            shapes = shapes_of(base)
            config = changed(base.config, place, number)
            check_sizes(config, {name: Held("F32", shape) for name, shape in shapes.items()})
            model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
            if shapes_of(model) == shapes:  # the loader refuses other shapes
                model.config.return_dict = True
                os.write(writer, b"began")
                limit(10, MEMORY)
                check_trial(model)
        except Exception as error:
            costly = isinstance(error, MemoryError) or "allocate" in str(error)
            os.write(writer, b" memory" if costly else b" ended")
        else:
            os.write(writer, b" ended")
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        said = pipe.read()
    _, status = os.waitpid(child, 0)
    if not said.startswith(b"began"):
        return ""
    if os.WIFSIGNALED(status):
        return f"killed by {signal.Signals(os.WTERMSIG(status)).name}"
    return "memory" if said.endswith(b"memory") else ""


def costs(case: str) -> dict[str, str]:
    config = tiny(case).config
    failures = {".".join(place): passes(case, place, HUGE) for place in numbers(config.to_dict())}
    return {name: failure for name, failure in failures.items() if failure}


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("case", [case for case, (model_type, _) in CASES.items() if model_type in CHECKED])
def test_no_number_in_a_checked_configuration_makes_a_pass_costly(case: str):
    assert not costs(case)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_costly_number_is_found():
    assert "max_seq_len" in costs("mpt")


@pytest.mark.slow
def test_an_unchecked_architecture_is_tried_in_a_child_first(tmp_path: Path):
    assert "mpt" not in CHECKED
    assert load_raw(str(mpt(tmp_path))).config.model_type == "mpt"


@pytest.mark.slow
def test_a_pass_that_takes_too_much_memory_is_refused(tmp_path: Path):
    folder = mpt(tmp_path, max_seq_len=300_000_000)
    with pytest.raises(ValueError, match=r"^the model in .* does not run: .*can't allocate memory.*$") as caught:
        load_raw(str(folder))
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_a_pass_that_takes_too_long_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("interp.models.trial.TRIAL_SECONDS", 1)
    monkeypatch.setattr("interp.models.trial.MEMORY", 2**40)
    with pytest.raises(DoesNotRun, match=r"a pass over four tokens takes more than 1 seconds or 1024 GiB"):
        check_in_child(mpt(tmp_path, max_seq_len=300_000_000, n_heads=16, d_model=16))


@pytest.mark.slow
def test_what_cannot_be_loaded_is_left_to_the_loader(tmp_path: Path):
    (tmp_path / "config.json").write_text("{")
    check_in_child(tmp_path)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_causal_model_is_told_from_one_that_reads_later_tokens(dtype: torch.dtype):
    model = build_model(ModelConfig("alibi", 2, 16, 2), vocab_size=30, seed=0).eval()
    assert check_trial(model.to(dtype))  # pyright: ignore[reportArgumentType]
    sizes: dict[str, Any] = {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 16,
    }
    bert: Any = BertLMHeadModel(BertConfig(vocab_size=30, initializer_range=0.5, **sizes)).eval()
    assert not is_causal(bert.to(dtype))
