"""Which activation, moved from one run to another, changes the answer?"""

from interp.patching.cells import SITES, Joint
from interp.patching.effect import Checks, Cost, PatchEffect
from interp.patching.metrics import Metric, accuracy, kl, logit_diff, probability
from interp.patching.sweep import Sweep, patch, plan

__all__ = [
    "SITES",
    "Checks",
    "Cost",
    "Joint",
    "Metric",
    "PatchEffect",
    "Sweep",
    "accuracy",
    "kl",
    "logit_diff",
    "patch",
    "plan",
    "probability",
]
