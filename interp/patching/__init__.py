"""Which activation, moved from one run to another, changes the answer?"""

from interp.patching.cells import SITES, Joint
from interp.patching.effect import Checks, Cost, PatchEffect
from interp.patching.interchanges import Interchange, interchange
from interp.patching.knockouts import Knockout, groups, knock_out, knock_out_for, pairwise, single
from interp.patching.metrics import Metric, accuracy, kl, lead, logit_diff, margin, probability
from interp.patching.nodes import Receiver, Sender
from interp.patching.paths import path_patch
from interp.patching.sweep import Sweep, patch, plan

__all__ = [
    "SITES",
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
    "accuracy",
    "groups",
    "interchange",
    "kl",
    "knock_out",
    "knock_out_for",
    "lead",
    "logit_diff",
    "margin",
    "pairwise",
    "patch",
    "path_patch",
    "plan",
    "probability",
    "single",
]
