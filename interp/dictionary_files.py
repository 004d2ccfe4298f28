"""Feature dictionaries as files, in SAELens's layout: `cfg.json` and `sae_weights.safetensors`."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from interp.dictionaries import DICTIONARY_SITES, Activation, FeatureDictionary, Place
from interp.sites import SITES, hook_name
from interp.support.writing import whole_folder, write_tensors, write_whole

CONFIG, WEIGHTS = "cfg.json", "sae_weights.safetensors"
# Architectures of SAELens, and the activation of each. A batch top-k SAE is stored as a JumpReLU.
_ARCHITECTURES: dict[str, Activation] = {
    "standard": "relu",
    "jumprelu": "jumprelu",
    "topk": "topk",
    "transcoder": "relu",
    "jumprelu_transcoder": "jumprelu",
}


def load_dictionary(folder: str | Path, reads: Place | None = None, writes: Place | None = None) -> FeatureDictionary:
    """Load an SAE or transcoder from a folder that SAELens wrote: `cfg.json` and `sae_weights.safetensors`.

    `reads` and `writes` are taken from the hook names in `cfg.json` unless they are given. Architectures: standard,
    jumprelu, topk, transcoder and jumprelu_transcoder. Nothing is unpickled.

    Raises `ValueError`, naming the file and what is wrong, for another architecture, for activations that are
    normalised at run time (fold the factor into the weights first), and for missing or wrong tensors;
    `FileNotFoundError` where a file is missing.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    folder = Path(folder)
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        tensors = load_file(folder / WEIGHTS)
    except (json.JSONDecodeError, UnicodeDecodeError, SafetensorError) as error:
        raise ValueError(f"{folder} is no dictionary in SAELens's layout: {error}") from error
    if not isinstance(config, dict):
        raise ValueError(f"{folder / CONFIG} must be an object; got {type(config).__name__}")
    try:
        return _from_saelens(config, tensors, reads, writes)
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{folder}: {error}") from error


def _from_saelens(
    config: Mapping[str, Any], tensors: dict[str, Tensor], reads: Place | None, writes: Place | None
) -> FeatureDictionary:
    architecture = config.get("architecture", "standard")
    named = config.get("activation_fn") or config.get("activation_fn_str") or "relu"  # files before version 6
    arguments = config.get("activation_fn_kwargs") or {}
    if architecture not in _ARCHITECTURES or named not in ("relu", "topk"):
        raise ValueError(
            f"architecture {architecture!r} with activation {named!r} is not read; architectures are "
            f"{', '.join(_ARCHITECTURES)}"
        )
    activation = "topk" if named == "topk" else _ARCHITECTURES[architecture]
    normalised = config.get("normalize_activations") or "none"
    if normalised != "none":
        raise ValueError(
            f"normalize_activations is {normalised!r}; fold the factor into the weights "
            "(fold_activation_norm_scaling_factor) and save it again"
        )
    if missing := {"W_enc", "W_dec"} - tensors.keys():
        raise ValueError(f"{WEIGHTS} has no {' and no '.join(sorted(missing))}")
    details = {**config, **(config.get("metadata") or config.get("meta") or {})}
    if config.get("rescale_acts_by_decoder_norm"):
        norms = tensors["W_dec"].norm(dim=-1)
        tensors = {**tensors, "W_enc": tensors["W_enc"] * norms, "W_dec": tensors["W_dec"] / norms.unsqueeze(1)}
        tensors |= {"b_enc": tensors["b_enc"] * norms} if "b_enc" in tensors else {}
    if "finetuning_scaling_factor" in tensors and (tensors["finetuning_scaling_factor"] != 1).any():
        raise ValueError("it has finetuning_scaling_factor, which is not read; fold it into the weights")
    is_transcoder = architecture.endswith("transcoder")
    return FeatureDictionary(
        W_enc=tensors["W_enc"],
        W_dec=tensors["W_dec"],
        reads=reads or _place(details.get("hook_name"), "hook_name"),
        writes=writes or (_place(details.get("hook_name_out"), "hook_name_out") if is_transcoder else None),
        b_enc=tensors.get("b_enc"),
        b_dec=tensors.get("b_dec"),
        activation=activation,
        threshold=tensors.get("threshold") if activation == "jumprelu" else None,
        k=(config.get("k") or arguments.get("k")) if activation == "topk" else None,
        centred=bool(config.get("apply_b_dec_to_input", not is_transcoder)) and "b_dec" in tensors,
    )


def _place(hook: object, name: str) -> Place:
    """Return the site and layer of a hook's name. Raises `ValueError` for one that no dictionary can be at."""
    found = re.fullmatch(r"blocks\.(\d{1,4})\.(.+)", hook) if isinstance(hook, str) else None
    for site in SITES:
        if found is not None and site in DICTIONARY_SITES and hook == hook_name(site, int(found[1])):
            return site, int(found[1])
    raise ValueError(f"{name} is {hook!r}, which is no site of a dictionary; give reads= (and writes=) yourself")


def save_dictionary(dictionary: FeatureDictionary, folder: str | Path) -> None:
    """Write a dictionary in SAELens's layout, so that `load_dictionary` and SAELens read it.

    Raises `ValueError` for an activation that SAELens does not have.
    """
    names = {"relu": "standard", "jumprelu": "jumprelu", "topk": "topk"}
    if dictionary.activation not in names:
        raise ValueError(f"SAELens has no dictionaries with the activation {dictionary.activation!r}")
    kind = names[dictionary.activation]
    transcoder = dictionary.reads != dictionary.target
    if transcoder and dictionary.activation == "topk":
        raise ValueError("SAELens has no transcoders with the activation 'topk'")
    config: dict[str, Any] = {
        "architecture": kind if not transcoder else "transcoder" if kind == "standard" else f"{kind}_transcoder",
        "d_in": dictionary.W_enc.shape[0],
        "d_sae": dictionary.n_features,
        "dtype": str(dictionary.W_enc.dtype).removeprefix("torch."),
        "apply_b_dec_to_input": dictionary.centred,
        "normalize_activations": "none",
        "metadata": {"hook_name": hook_name(*dictionary.reads)},
    }
    config |= {"d_out": dictionary.W_dec.shape[1]} if transcoder else {}
    config["metadata"] |= {"hook_name_out": hook_name(*dictionary.target)} if transcoder else {}
    config |= {"k": dictionary.k} if dictionary.k is not None else {}
    zeros = torch.zeros(dictionary.n_features), torch.zeros(dictionary.W_dec.shape[1])
    tensors = {"W_enc": dictionary.W_enc, "W_dec": dictionary.W_dec}
    tensors |= {
        "b_enc": zeros[0] if dictionary.b_enc is None else dictionary.b_enc,
        "b_dec": zeros[1] if dictionary.b_dec is None else dictionary.b_dec,
    }
    tensors |= {} if dictionary.threshold is None else {"threshold": dictionary.threshold}
    with whole_folder(Path(folder)) as fresh:
        write_tensors(fresh / WEIGHTS, {name: x.detach().cpu().contiguous() for name, x in tensors.items()})
        write_whole(fresh / CONFIG, json.dumps(config, indent=1))
