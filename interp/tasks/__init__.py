"""Prompts, task formats, labels, roles and counterfactuals. Needs torch and a tokenizer, but no model.

Names are imported when they are used: the import of the package alone imports no library.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from interp.support.lazily import importing

if TYPE_CHECKING:
    from interp.tasks.batch import Batch
    from interp.tasks.encoding import answer_id, start_token
    from interp.tasks.fitting import fit_vocabulary
    from interp.tasks.formats import Format, known_formats, names_in_order, parse_format
    from interp.tasks.inputs import Pair, Prompts
    from interp.tasks.roles import ANSWER_ROLES, LABEL_ROLES, Role
    from interp.tasks.sampling import check_length, sample, sequence_length
    from interp.tasks.templates import template
    from interp.tasks.texts import prompts
    from interp.tasks.vocabulary import LONGEST, Vocabulary, default_tokenizer, default_vocabulary

__getattr__, __dir__ = importing(
    __name__,
    {
        "interp.tasks.batch": ("Batch",),
        "interp.tasks.encoding": ("answer_id", "start_token"),
        "interp.tasks.fitting": ("fit_vocabulary",),
        "interp.tasks.formats": ("Format", "known_formats", "names_in_order", "parse_format"),
        "interp.tasks.inputs": ("Pair", "Prompts"),
        "interp.tasks.roles": ("ANSWER_ROLES", "LABEL_ROLES", "Role"),
        "interp.tasks.sampling": ("check_length", "sample", "sequence_length"),
        "interp.tasks.templates": ("template",),
        "interp.tasks.texts": ("prompts",),
        "interp.tasks.vocabulary": ("LONGEST", "Vocabulary", "default_tokenizer", "default_vocabulary"),
    },
)

__all__ = [
    "ANSWER_ROLES",
    "LABEL_ROLES",
    "LONGEST",
    "Batch",
    "Format",
    "Pair",
    "Prompts",
    "Role",
    "Vocabulary",
    "answer_id",
    "check_length",
    "default_tokenizer",
    "default_vocabulary",
    "fit_vocabulary",
    "known_formats",
    "names_in_order",
    "parse_format",
    "prompts",
    "sample",
    "sequence_length",
    "start_token",
    "template",
]
