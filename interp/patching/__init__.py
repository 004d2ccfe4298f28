"""Activation patching, path patching, knockouts and interchange, and the metrics that they measure."""

from interp.patching.cells import PATCH_SITES
from interp.patching.effect import Checks, Cost, PatchEffect
from interp.patching.interchanges import Interchange, interchange, interchange_for
from interp.patching.knocking_out import knock_out, knock_out_for
from interp.patching.knockouts import Knockout, groups, pairwise, single
from interp.patching.metrics import (
    Metric,
    UnboundMetric,
    accuracy,
    bind_metric,
    kl,
    lead,
    logit_diff,
    margin,
    probability,
)
from interp.patching.nodes import Receiver, Sender
from interp.patching.paths import path_patch
from interp.patching.sweep import Sweep
from interp.patching.sweeping import patch, plan
from interp.patching.token_edits import measure_edited
from interp.places import Joint

__all__ = [
    "PATCH_SITES",
    "Checks",
    "Cost",
    "Interchange",
    "Joint",
    "Knockout",
    "Metric",
    "PatchEffect",
    "Receiver",
    "Sender",
    "Sweep",
    "UnboundMetric",
    "accuracy",
    "bind_metric",
    "groups",
    "interchange",
    "interchange_for",
    "kl",
    "knock_out",
    "knock_out_for",
    "lead",
    "logit_diff",
    "margin",
    "measure_edited",
    "pairwise",
    "patch",
    "path_patch",
    "plan",
    "probability",
    "single",
]
