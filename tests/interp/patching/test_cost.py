"""The sizes that costs follow from are counted from the model's own weights."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from interp.models.anatomy import anatomy_of, anatomy_or_generic
from interp.patching.cost import sizes_of
from tests.interp.models.architecture_cases import tiny as one_of
from tests.interp.patching.models import ARCHITECTURES, tiny


def matrices(module: Any) -> int:
    return sum(p.numel() for p in module.parameters() if p.ndim == 2)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_sizes_count_each_matrix_of_a_block_and_of_the_unembedding(architecture: str):
    anatomy: Any = anatomy_of(tiny(architecture), test=False)
    sizes = sizes_of(anatomy, 9, 1)
    assert sizes.weights == matrices(anatomy.blocks[0].module)
    assert sizes.unembed == matrices(anatomy.raw.get_output_embeddings()) == 16 * anatomy.raw.config.vocab_size


def test_a_matrix_that_two_modules_share_counts_once():
    model: Any = copy.deepcopy(tiny("alibi"))
    block = model.transformer.h[0]
    own = matrices(block)
    block.twin = block.self_attention.dense
    block.mlp.also = copy.copy(block.self_attention.dense)  # another module with the same parameters
    assert sizes_of(anatomy_of(model, test=False), 9, 1).weights == matrices(block) == own


def test_a_model_that_is_run_layer_by_layer_counts_its_first_layer():
    anatomy: Any = anatomy_or_generic(one_of("mamba"), test=False)
    sizes = sizes_of(anatomy, 9, 1)
    assert (sizes.generic, sizes.weights) == (True, matrices(anatomy.layers[0]))
