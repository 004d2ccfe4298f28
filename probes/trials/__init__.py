"""The prompts, steps and counterfactual answers that the arms intervene on."""
