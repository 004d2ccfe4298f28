"""Every function of `interp` that runs a model, as work on a model and two sets of prompts, for tests that run all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import interp
from interp import FeatureDictionary, Interchange, Knockout, Receiver, Sender, circuits, das, logit_diff
from interp.circuits import Ablation
from interp.erasure import residuals
from interp.forward import generate, predict, readout
from interp.models import bridge_of
from interp.patching import PATCH_SITES, accuracy, grids, kl, margin, pairwise, probability
from interp.patching.interchanges import INTERCHANGE_SITES
from interp.support.budget import within
from interp.tasks import Prompts, Role, counterfactual, sample
from tests.interp.test_das import some_pairs

CLEAN = sample("parity-aligned", 3, 3, 0)
CORRUPTED = counterfactual.flip_input(CLEAN, 2)
METRIC = logit_diff(answer=3, other=5)
# A function of the model and of clean and corrupted prompts.
Work = Callable[[Any, Any, Any], Any]


def like(model: Any, *shape: int) -> Tensor:
    """Return numbers of the model's data type on its device."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(model.device)


def metrics(model: Any, clean: Any, corrupted: Any) -> Any:
    """Each metric, with answers that are where the prompts are."""
    at = clean.tokens.device if isinstance(clean, Prompts) else clean.device
    answers, others, places = (torch.tensor(x, device=at) for x in ([3, 4, 5], [5, 6, 7], [4, 5, 6]))
    chosen = [
        logit_diff(answer=answers, other=others),
        margin(answer=answers, position=places),
        probability(answer=answers),
        accuracy(answer=answers, position=-2),
        kl(getattr(corrupted, "tokens", corrupted)),
        kl(like(model, 3, model.config.vocab_size)),
    ]
    return [interp.patch(model, clean, corrupted, "resid_pre", metric).values for metric in chosen]


def step_metrics(model: Any, clean: Any, corrupted: Any) -> Any:
    kinds = (logit_diff, probability, accuracy)
    return [interp.patch(model, CLEAN, CORRUPTED, "z", kind(CLEAN, step=2)).values for kind in kinds]


def paths(model: Any, clean: Any, corrupted: Any) -> Any:
    senders = (Sender("head", 0, 0), Sender("mlp", 0), Sender("embed"))
    receivers = [*(Receiver(kind, 1, 0) for kind in ("q", "k", "v")), Receiver("mlp", 1), Receiver("logits")]
    ways = ({}, {"direct": False}, {"freeze_downstream": True}, {"chain": True}, {"grid": True})
    return [interp.path_patch(model, clean, corrupted, senders, receivers, METRIC, **way) for way in ways]


KNOCKOUTS = [
    Knockout(3, None),
    *(Knockout(3, (5, 6), mode=mode) for mode in ("null", "mean")),
    *(Knockout(2, None, heads=((0, 1), (1, 0)), mode=mode) for mode in ("renormalise", "null", "mean")),
    Knockout((1, 2), 7, mode="mean", mean_by="pos"),
    (Knockout(3, None, mode="null"), Knockout(4, None, heads=((1, 0),), mode="mean")),
]


def knocked_out(model: Any, clean: Any, corrupted: Any) -> Any:
    return interp.knock_out(model, clean, KNOCKOUTS, METRIC)


def knocked_out_frozen(model: Any, clean: Any, corrupted: Any) -> Any:
    pairs = pairwise(model, Knockout(3, None, mode="mean"))
    return interp.knock_out(model, clean, KNOCKOUTS, METRIC, freeze_later=True), interp.knock_out(
        model, clean, pairs, METRIC
    )


def interchanged(model: Any, clean: Any, corrupted: Any) -> Any:
    entries: Any = {site: [Interchange(site, corrupted, layers=(1,))] for site in INTERCHANGE_SITES}
    entries |= {"at 2": [Interchange("v", corrupted, at=2), Interchange("attn_scores", corrupted), Knockout(3, None)]}
    return interp.interchange(model, clean, entries, METRIC)


def edited(model: Any, clean: Any, corrupted: Any) -> Any:
    return interp.measure_edited(model, clean, {"other": corrupted}, [METRIC])


def captured(model: Any, clean: Any, corrupted: Any) -> Any:
    sites = ("resid_pre", "resid_post", "attn_out", "mlp_out", "mlp_post", "q", "k", "v", "z", "pattern")
    return interp.capture(model, clean, **dict.fromkeys(sites, True))


def forward(model: Any, clean: Any, corrupted: Any) -> Any:
    written = [generate(model, CLEAN, forced).tokens for forced in (True, False)]
    return written, [readout(model, CLEAN, CLEAN.predicted(), by_steps) for by_steps in (True, False)]


def faithful(model: Any, clean: Any, corrupted: Any) -> Any:
    scores = circuits.edge_scores(model, clean, corrupted, METRIC, n=4)
    circuit = circuits.top_n(scores, 20)
    kinds = (corrupted, Ablation("mean", corrupted), Ablation("resample", corrupted), Ablation("zero"))
    found = [circuits.faithfulness(model, clean, kind, METRIC, circuit) for kind in kinds]
    completeness = circuits.completeness(model, clean, corrupted, METRIC, circuit, n=2)
    few = circuits.top_n(scores, 4)
    return found, completeness, circuits.minimality(model, clean, corrupted, METRIC, few), circuit


def searched(model: Any, clean: Any, corrupted: Any) -> Any:
    start = circuits.top_n(circuits.edge_scores(model, clean, corrupted, METRIC, n=4), 20)
    found = circuits.acdc(model, clean, corrupted, METRIC, 0.1, start)
    return found, circuits.find_circuit(model, clean, corrupted, METRIC, points=4, n_random=3)


def steered(model: Any, clean: Any, corrupted: Any) -> Any:
    found = []
    with interp.steered(model, ("resid_post", 1), like(model, 16), positions=[1, 2]):
        found.append(generate(model, CLEAN).tokens)
    with interp.steered(model, ("z", 1), like(model, 16)[: model.config.hidden_size // heads_of(model)], heads=[1]):
        found.append(predict(model, CLEAN, CLEAN.predicted()))
    with interp.patched(model, ("resid_post", 1), corrupted, positions=3):
        found.append(predict(model, CLEAN, CLEAN.predicted()))
    means = [interp.mean_difference(model, clean, corrupted, ("resid_post", 1), position=p) for p in (-1, None)]
    return found, means


def heads_of(model: Any) -> int:
    return model.config.num_attention_heads


def featured(model: Any, clean: Any, corrupted: Any) -> Any:
    found = []
    for weights in (like(model, 16, 24), like(model, 16, 24).cpu()):
        dictionary = FeatureDictionary(weights, weights.T.contiguous(), reads=("resid_post", 1))
        found += [
            interp.encode_features(model, clean, dictionary),
            interp.patch_features(model, clean, corrupted, dictionary, METRIC),
            interp.ablate_features(model, clean, dictionary, METRIC),
            interp.attribute_features(model, clean, corrupted, dictionary, METRIC),
        ]
    return found


def subspaces(model: Any, clean: Any, corrupted: Any) -> Any:
    pairs = some_pairs(16)
    joined = das.join(model, 1, pairs)
    found = das.fit(joined, rank=2, epochs=2, batch_size=8)
    tested = das.join_to_test(model, 1, pairs)
    random = [das.random_directions(joined, 2, seed) for seed in (0, 1)]
    return found, [das.swapped_answers(joined, found), das.swapped_answers(tested, *random)]


def in_grids(model: Any, clean: Any, corrupted: Any) -> Any:
    bridge: Any = bridge_of(model)
    clean, corrupted = (torch.as_tensor(getattr(x, "tokens", x)).to(model.device) for x in (clean, corrupted))
    _, cache = bridge.run_with_cache(clean)
    own = lambda logits: logits[:, -1, 3].mean()  # noqa: E731
    names = ("resid_pre", "attn_out", "attn_head_out_all_pos", "attn_head_pattern_by_pos", "attn_head_k_by_pos")
    functions = [getattr(grids, f"get_act_patch_{name}") for name in names]
    return [function(bridge, corrupted, cache, m).cpu() for function in functions for m in (METRIC, own)]


def in_little_memory(model: Any, clean: Any, corrupted: Any) -> Any:
    with within(60_000):
        found = interp.knock_out(model, clean, Knockout(3, None), METRIC), interp.capture(model, clean, z=True)
    with within(200_000):
        return found, [interp.patch(model, clean, corrupted, site, METRIC).values for site in ("resid_pre", "z", "k")]


def ablated(model: Any, clean: Any, corrupted: Any) -> Any:
    kinds = {"zero": None, "mean": corrupted, "resample": corrupted}
    return [interp.ablate(model, clean, ["L0H1", "L1 MLP"], METRIC, kind=k, source=s) for k, s in kinds.items()]  # type: ignore[arg-type]


WORK: dict[str, Work] = {
    **{
        f"patch {site}": lambda m, a, b, site=site: [
            interp.patch(m, a, b, site, METRIC, direction=d) for d in ("denoise", "noise")
        ]
        for site in PATCH_SITES
    },
    "patch neurons": lambda m, a, b: interp.patch(m, a, b, "mlp_post", METRIC, neurons=[0, (1, 2)]),
    "patch places": lambda m, a, b: interp.patch(m, a, b, "z", METRIC, positions=[1, 4], heads=[1], layers=1),
    "patch a bridge": lambda m, a, b: interp.patch(bridge_of(m), a, b, "z", METRIC),
    "metrics": metrics,
    "metrics of steps": step_metrics,
    "path_patch": paths,
    "knock_out": knocked_out,
    "knock_out, later layers frozen": knocked_out_frozen,
    "interchange": interchanged,
    "measure_edited": edited,
    "capture": captured,
    "generate, readout": forward,
    "gradient_x_input": lambda m, a, b: interp.gradient_x_input(m, a, metric=METRIC),
    "integrated_gradients": lambda m, a, b: interp.integrated_gradients(m, a, b, n=8, metric=METRIC),
    "attribution_patch": lambda m, a, b: [
        interp.attribution_patch(m, a, b, site, METRIC) for site in ("resid_pre", "z", "mlp_out", "q")
    ],
    **{
        f"edge_scores {method}": lambda m, a, b, method=method: circuits.edge_scores(
            m, a, b, METRIC, method=method, n=4
        )
        for method in circuits.METHODS
    },
    "node_scores": lambda m, a, b: circuits.node_scores(m, a, b, METRIC),
    "exact_edge_scores": lambda m, a, b: circuits.exact_edge_scores(m, a, b, METRIC),
    "faithfulness": faithful,
    "acdc, find_circuit": searched,
    "logit_lens": lambda m, a, b: interp.logit_lens(m, a, answer=3, other=5),
    "direct_logit_attribution": lambda m, a, b: interp.direct_logit_attribution(m, a, answer=3, other=5),
    "detect_heads, describe_heads": lambda m, a, b: [interp.detect_heads(m, a), interp.describe_heads(m, a)],
    "ablate": ablated,
    "steered, patched": steered,
    "features": featured,
    "DAS": subspaces,
    "erasure": lambda m, a, b: residuals(m, CLEAN, Role.INPUT_LABEL),
    "patchscope": lambda m, a, b: interp.patchscope(m, b, a, METRIC, target_layers=1),
    "grids": in_grids,
    "little memory": in_little_memory,
}
