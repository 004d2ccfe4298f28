"""What the model reads: formats, labels, roles and counterfactuals. Needs torch and a tokenizer, no model."""

from interp.tasks.batch import ANSWER_ROLES, LABEL_ROLES, Batch, Role
from interp.tasks.formats import Format, known_formats, parse_format
from interp.tasks.sampling import check_length, sample, sequence_length
from interp.tasks.vocabulary import LONGEST, Vocabulary, default_tokenizer, default_vocabulary, fit_vocabulary

__all__ = [
    "ANSWER_ROLES",
    "LABEL_ROLES",
    "LONGEST",
    "Batch",
    "Format",
    "Role",
    "Vocabulary",
    "check_length",
    "default_tokenizer",
    "default_vocabulary",
    "fit_vocabulary",
    "known_formats",
    "parse_format",
    "sample",
    "sequence_length",
]
