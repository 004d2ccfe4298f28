"""Judge how a model finds an item of a list: by its label, by the item before it, or by its position."""

from probes.binding.deciding import BindingVerdict, binding_verdict
from probes.binding.found import Binding
from probes.binding.measuring import measure_binding
from probes.binding.trials import Trial, trials_of
from probes.limits import BINDING_TASKS

__all__ = [
    "BINDING_TASKS",
    "Binding",
    "BindingVerdict",
    "Trial",
    "binding_verdict",
    "measure_binding",
    "trials_of",
]
