"""`mnemoscope attention`: the attention patterns of a model on a prompt, as one HTML file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.support.console import say
from experiments.support.options import (
    Device,
    Dtype,
    FormatName,
    Length,
    Memory,
    OneModel,
    OptionalFile,
    OptionalNumbers,
    OptionalText,
    Seed,
)
from experiments.support.run_checks import check_posed, check_runs, or_else

if TYPE_CHECKING:
    from interp.models import Run
    from interp.tasks import Prompts

# Layers that are shown unless --layers names others: the page of a large model would be slow to open.
MOST_LAYERS = 12
# Advice for a run without a task.
GIVE_PROMPT = "give a prompt with --prompt"


@dataclass(frozen=True)
class AttentionCommand:
    """Show where every head attends on one prompt: mnemoscope attention gpt2 --prompt "When Mary and John went".

    Writes one HTML file that works offline: one plot per layer, by circuitsvis for prompts of up to 42 tokens and by
    mnemoscope's own viewer for longer ones.
    """

    name: OneModel
    prompt: OptionalText = None
    """The prompt. Default: a random prompt of the run's task."""
    layers: OptionalNumbers = None
    """Layers, from 0. Default: the first 12."""
    heads: OptionalNumbers = None
    """Heads, from 0. Default: all."""
    length: Length = 8
    """Length of a task prompt: bits, or digits of both operands."""
    seed: Seed = 0
    format: FormatName = None
    device: Device = "auto"
    dtype: Dtype = None
    memory: Memory = None
    out: OptionalFile = None
    """The HTML file. Default: mnemoscope-out/<run>/attention.html."""

    def run(self) -> int:
        """Capture the patterns and write the page; status 0."""
        self._check()
        from experiments import load
        from experiments.support.loading import complete_format
        from experiments.support.other_tokens import stand_ins_text
        from experiments.support.results import replace_whole
        from interp import views
        from interp.capturing import capture

        run = load(self.name, complete_format(self.format, None, self.name), device=self.device, dtype=self.dtype)
        target = self.target(run)
        prompts = self.prompts(run)
        layers = self.chosen_layers(run)
        captured = capture(run, prompts, pattern=layers)
        heads = None if self.heads is None else list(self.heads)
        shown = [views.attention(captured, layer=layer, heads=heads) for layer in layers]
        text = views.page(shown, f"{run.name}: attention", stand_ins_text(run) if self.prompt is None else "")
        replace_whole(target, text)
        say(f"{target} ({len(layers)} layers, {prompts.n_pos} tokens, {len(text.encode()) / 1e6:.1f} MB)")
        return 0

    def _check(self) -> None:
        """Raise `ValueError` for options that are wrong whatever the model is; imports no library."""
        from experiments.support.option_checks import check_html, check_positive, check_seed

        check_html(self.out)
        check_positive(self, "length")
        check_seed(self.seed)
        check_runs([self.name], self.format)
        if self.prompt is None:
            with or_else(GIVE_PROMPT):
                check_posed([self.name], self.format)

    def target(self, run: Run) -> Path:
        """Return the file to write. Raises `ValueError` where it cannot be written."""
        from experiments.support.results import check_files, usual_folder, writable_folder

        target = self.out or usual_folder(run) / "attention.html"
        writable_folder(target.parent)
        check_files([target])
        return target

    def prompts(self, run: Run) -> Prompts:
        """Return the prompt of --prompt, or one of the run's task."""
        from interp.tasks.texts import prompts

        if self.prompt is not None:
            return prompts(run, clean=self.prompt)
        with or_else(GIVE_PROMPT):
            run.require_task()
        return run.sample(1, self.length, self.seed)

    def chosen_layers(self, run: Run) -> list[int]:
        """Return the layers of --layers, or the first 12. Raises `ValueError` for one that does not exist."""
        count = run.raw.config.num_hidden_layers
        layers = list(range(min(count, MOST_LAYERS))) if self.layers is None else list(self.layers)
        if bad := [layer for layer in layers if not 0 <= layer < count]:
            raise ValueError(f"there is no layer {bad[0]}; layers run from 0 to {count - 1}")
        return layers
