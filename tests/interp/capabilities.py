"""Write the matrix of capabilities: `python -m tests.interp.capabilities [FILE]`.

Every function on the smallest example, two prompts of twelve tokens, for a small random model of several types:
milliseconds per call (median of five) and the most memory that its tensors take at a time, or why the function
refuses. The refusals of the committed file are asserted by `test_capabilities.py`.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

import interp
from interp import Interchange, Knockout, Receiver, Sender, logit_diff
from interp.circuits import find_circuit
from interp.models import bridge_of
from interp.patching import grids
from interp.support.writing import write_whole
from tests.interp.models.architecture_cases import build

FILE = Path("experiments/results/capabilities.json")
TYPES = (
    "gpt2",
    "gpt_neox",
    "bloom",
    "opt",
    "llama",
    "qwen3",
    "gemma2",
    "mixtral",
    "falcon, new_decoder_architecture",
    "mamba",
)
LENGTH, NEW = 12, 4
CALLS = 5
METRIC = logit_diff(answer=3, other=5)


def token_ids(seed: int) -> Tensor:
    """Return two prompts whose first token is the same for every seed."""
    tokens = torch.randint(1, 60, (2, LENGTH), generator=torch.Generator().manual_seed(seed))
    tokens[:, 0] = 1
    return tokens


CLEAN, CORRUPTED = token_ids(0), token_ids(1)


def written(model: Any) -> Tensor:
    """Return what the model generates, with a cache where it has one."""
    return model.generate(CLEAN, attention_mask=torch.ones_like(CLEAN), max_new_tokens=NEW, do_sample=False)


def steered(model: Any) -> Tensor:
    with interp.steered(model, ("resid_post", 1), torch.ones(32)):
        return written(model)


def patched(model: Any) -> Tensor:
    with interp.patched(model, ("resid_post", 1), CORRUPTED, positions=3):
        return written(model)


def grid(model: Any) -> Tensor:
    bridge: Any = bridge_of(model)
    _, cache = bridge.run_with_cache(CLEAN)
    return grids.get_act_patch_resid_pre(model, CORRUPTED, cache, METRIC)


def dictionary() -> Any:
    weights = torch.randn(32, 24, generator=torch.Generator().manual_seed(0))
    return interp.FeatureDictionary(W_enc=weights, W_dec=weights.T, reads=("resid_pre", 1))


FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "`capture`, residual stream": lambda m: interp.capture(m, CLEAN, resid_pre=True),
    "`capture`, patterns": lambda m: interp.capture(m, CLEAN, pattern=True),
    "`patch`, residual stream": lambda m: interp.patch(m, CLEAN, CORRUPTED, "resid_pre", METRIC),
    "`patch`, heads": lambda m: interp.patch(m, CLEAN, CORRUPTED, "z", METRIC),
    "`patch`, patterns": lambda m: interp.patch(m, CLEAN, CORRUPTED, "pattern", METRIC),
    "`patch`, neurons": lambda m: interp.patch(m, CLEAN, CORRUPTED, "mlp_post", METRIC, neurons=[0, (1, 2)]),
    "`grids`": grid,
    "`path_patch`": lambda m: interp.path_patch(
        m, CLEAN, CORRUPTED, Sender("head", 0, 0), [Receiver("q", 1, 0)], METRIC
    ),
    "`knock_out`": lambda m: interp.knock_out(m, CLEAN, Knockout(3, None), METRIC),
    "`interchange`": lambda m: interp.interchange(m, CLEAN, {"q": [Interchange("q", CORRUPTED, layers=(1,))]}, METRIC),
    "`patchscope`": lambda m: interp.patchscope(m, CORRUPTED, CLEAN, METRIC, target_layers=1),
    "`ablate`": lambda m: interp.ablate(m, CLEAN, ["L0H1", "L1 MLP"], METRIC, kind="zero"),
    "`attribution_patch`": lambda m: interp.attribution_patch(m, CLEAN, CORRUPTED, "z", METRIC),
    "`gradient_x_input`": lambda m: interp.gradient_x_input(m, CLEAN, metric=METRIC),
    "`integrated_gradients`": lambda m: interp.integrated_gradients(m, CLEAN, CORRUPTED, n=8, metric=METRIC),
    "`direct_logit_attribution`": lambda m: interp.direct_logit_attribution(m, CLEAN, answer=3, other=5),
    "`logit_lens`": lambda m: interp.logit_lens(m, CLEAN, answer=3, other=5),
    "`detect_heads`": lambda m: interp.detect_heads(m, CLEAN),
    "`describe_heads`": lambda m: interp.describe_heads(m, CLEAN),
    "`edge_scores`": lambda m: interp.edge_scores(m, CLEAN, CORRUPTED, METRIC, n=8),
    "`node_scores`": lambda m: interp.node_scores(m, CLEAN, CORRUPTED, METRIC),
    "`find_circuit`": lambda m: find_circuit(m, CLEAN, CORRUPTED, METRIC, points=8, n_random=5),
    "`patch_features`": lambda m: interp.patch_features(m, CLEAN, CORRUPTED, dictionary(), METRIC),
    "`mean_difference`": lambda m: interp.mean_difference(m, CLEAN, CORRUPTED, ("resid_post", 1)),
    "`steered`, generating": steered,
    "`patched`, generating": patched,
}


def matrix(types: tuple[str, ...] = TYPES) -> dict[str, dict[str, dict[str, Any]]]:
    """Return a cell per function and model type. Takes some minutes on one core."""
    return {name: {kind: cell(function, build(kind)) for kind in types} for name, function in FUNCTIONS.items()}


def cell(function: Callable[[Any], Any], model: Any) -> dict[str, Any]:
    """Return median milliseconds and MiB of calls after the first, or the first line of the reason for a refusal."""
    if reason := refusal(function, model):
        return {"refused": reason}
    seconds = []
    for _ in range(CALLS):
        began = time.perf_counter()
        function(model)
        seconds.append(time.perf_counter() - began)
    held = peak(lambda: function(model)) / 2**20
    return {"ms": float(f"{1000 * median(seconds):.3g}"), "mib": float(f"{held:.2g}")}


def refusal(function: Callable[[Any], Any], model: Any) -> str | None:
    """Call a function; return the first line of the reason if it refuses the model, else None."""
    try:
        function(model)
    except (ValueError, RuntimeError, NotImplementedError) as error:
        return " ".join(str(error).split("; ")[0].split())
    return None


def peak(work: Callable[[], Any]) -> int:
    """Return the most bytes that tensors allocated by `work` take at a time."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        work()
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]  # type: ignore[union-attr]
    held = highest = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        held += event.nbytes()  # type: ignore[attr-defined]
        highest = max(highest, held)
    return highest


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    file = Path(sys.argv[1]) if len(sys.argv) > 1 else FILE
    write_whole(file, json.dumps(matrix(), indent=1) + "\n")
