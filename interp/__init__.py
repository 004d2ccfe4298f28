"""Turn a model into data: prompts, forward passes, patches, circuits and pictures.

    from interp import capture, load, logit_diff, patch, prompts, views

Names are imported when they are used: `import interp` imports neither torch nor TransformerLens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from interp.support.lazily import importing

if TYPE_CHECKING:
    from interp import circuits, das, models, patching, sites, tasks, views
    from interp.ablating import ablate
    from interp.attribution import Attribution, gradient_x_input, integrated_gradients
    from interp.attribution_patching import attribution_patch
    from interp.capturing import Capture, capture
    from interp.circuits import (
        Circuit,
        acdc,
        describe_heads,
        direct_logit_attribution,
        edge_scores,
        exact_edge_scores,
        faithfulness,
        logit_lens,
        node_scores,
        top_n,
    )
    from interp.detectors import HeadScores, detect_heads
    from interp.dictionaries import FeatureDictionary, directions
    from interp.dictionary_files import load_dictionary, save_dictionary
    from interp.features import ablate_features, attribute_features, encode_features, patch_features
    from interp.models import Run, load
    from interp.patching import (
        Interchange,
        Joint,
        Knockout,
        Metric,
        PatchEffect,
        Receiver,
        Sender,
        accuracy,
        interchange,
        kl,
        knock_out,
        logit_diff,
        margin,
        measure_edited,
        patch,
        path_patch,
        plan,
        probability,
    )
    from interp.patchscopes import patchscope
    from interp.steering import mean_difference, patched, steered
    from interp.tasks import Batch, Pair, Prompts, Role, answer_id, prompts, sample, template

# Public names by the module that defines them.
_NAMES = {
    "interp.ablating": ("ablate",),
    "interp.attribution": ("Attribution", "gradient_x_input", "integrated_gradients"),
    "interp.attribution_patching": ("attribution_patch",),
    "interp.capturing": ("Capture", "capture"),
    "interp.circuits": (
        "Circuit",
        "acdc",
        "describe_heads",
        "direct_logit_attribution",
        "edge_scores",
        "exact_edge_scores",
        "faithfulness",
        "logit_lens",
        "node_scores",
        "top_n",
    ),
    "interp.detectors": ("HeadScores", "detect_heads"),
    "interp.dictionaries": ("FeatureDictionary", "directions"),
    "interp.dictionary_files": ("load_dictionary", "save_dictionary"),
    "interp.features": ("ablate_features", "attribute_features", "encode_features", "patch_features"),
    "interp.models": ("Run", "load"),
    "interp.patching": (
        "Interchange",
        "Joint",
        "Knockout",
        "Metric",
        "PatchEffect",
        "Receiver",
        "Sender",
        "accuracy",
        "interchange",
        "kl",
        "knock_out",
        "logit_diff",
        "margin",
        "measure_edited",
        "patch",
        "path_patch",
        "plan",
        "probability",
    ),
    "interp.patchscopes": ("patchscope",),
    "interp.steering": ("mean_difference", "patched", "steered"),
    "interp.tasks": ("Batch", "Pair", "Prompts", "Role", "answer_id", "prompts", "sample", "template"),
}
_MODULES = ("circuits", "das", "models", "patching", "sites", "tasks", "views")
__getattr__, __dir__ = importing(__name__, _NAMES, _MODULES)

__all__ = [
    "Attribution",
    "Batch",
    "Capture",
    "Circuit",
    "FeatureDictionary",
    "HeadScores",
    "Interchange",
    "Joint",
    "Knockout",
    "Metric",
    "Pair",
    "PatchEffect",
    "Prompts",
    "Receiver",
    "Role",
    "Run",
    "Sender",
    "ablate",
    "ablate_features",
    "accuracy",
    "acdc",
    "answer_id",
    "attribute_features",
    "attribution_patch",
    "capture",
    "circuits",
    "das",
    "describe_heads",
    "detect_heads",
    "direct_logit_attribution",
    "directions",
    "edge_scores",
    "encode_features",
    "exact_edge_scores",
    "faithfulness",
    "gradient_x_input",
    "integrated_gradients",
    "interchange",
    "kl",
    "knock_out",
    "load",
    "load_dictionary",
    "logit_diff",
    "logit_lens",
    "margin",
    "mean_difference",
    "measure_edited",
    "models",
    "node_scores",
    "patch",
    "patch_features",
    "patched",
    "patching",
    "patchscope",
    "path_patch",
    "plan",
    "probability",
    "prompts",
    "sample",
    "save_dictionary",
    "sites",
    "steered",
    "tasks",
    "template",
    "top_n",
    "views",
]
