"""Which activation, moved from one run to another, changes the answer?"""

from interp.patching.cells import SITES, Joint
from interp.patching.effect import Checks, Cost, PatchEffect
from interp.patching.knockouts import Knockout, groups, knock_out, pairwise, single
from interp.patching.metrics import Metric, accuracy, kl, logit_diff, probability
from interp.patching.nodes import Receiver, Sender
from interp.patching.paths import path_patch
from interp.patching.sweep import Sweep, patch, plan

__all__ = [
    "SITES",
    "Checks",
    "Cost",
    "Joint",
    "Knockout",
    "Metric",
    "PatchEffect",
    "Receiver",
    "Sender",
    "Sweep",
    "accuracy",
    "groups",
    "kl",
    "knock_out",
    "logit_diff",
    "pairwise",
    "patch",
    "path_patch",
    "plan",
    "probability",
    "single",
]
