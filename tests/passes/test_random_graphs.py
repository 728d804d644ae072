"""Random graphs from the pieces of the matrix: what is pruned of them is exact. More than 500 graphs in every run."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from models import Builder

from deburr.passes.analysis.walk import ChannelOptions

from .matrix import PRUNABLE
from .pruning import check_exact, image_model
from .test_transformers import BLOCKS as SEQUENCES
from .test_transformers import check, sequence_model
from .topologies_transformer import C, Made, T

# What needs an image of 6 x 6 goes first or not at all: a test starts with each piece, and goes on with these.
ANYWHERE = [
    "chain", "residual", "pre_activation_stage", "dense", "added_concats", "depthwise", "depthwise_multiplier", "grouped",
    "grouped_32", "two_group_counts", "group_across_concat", "ghost", "cross_stage", "chunks", "gathered",
    "strided_slices", "tiled", "squeeze_excitation", "spatial_gate", "one_map_for_all", "layer_scale", "decomposed_silu",
    "channels_last", "concat_with_input", "instance_norm_written_out", "group_norm_written_out", "several_heads",
    "quantized_activations", "quantized_per_channel", "quantized_in_the_graph",
]  # fmt: skip
OWN_OUTPUTS = ("several_heads", "auxiliary_outputs", "top_k_of_space")  # their outputs have one name each
EXAMPLES = 7


@pytest.mark.parametrize("first", [name for name in PRUNABLE if name != "concat_with_constant"])
@settings(max_examples=EXAMPLES, deadline=None)
@given(
    st.lists(st.sampled_from(ANYWHERE), min_size=1, max_size=3), st.sampled_from(["whole", "inner"]), st.integers(0, 2**32 - 1)
)
def test_compositions_that_start_with_a_piece_are_exact(first, names, groups, seed):
    names = [name for name in names if name != first or name not in OWN_OUTPUTS]
    names = [name for index, name in enumerate(names) if name not in OWN_OUTPUTS or name not in names[:index]]

    def build(b: Builder, x: str) -> Made:
        width = 3
        for name in (first, *names):
            x = x if width == 3 else b.conv(x, width, 3, 1)
            x, width = PRUNABLE[name](b, x)
        return x, width

    check_exact(image_model(build), np.random.default_rng(seed), keep_sets=1, options=ChannelOptions(groups=groups))


BEFORE_OTHERS = [
    "separate_projections", "fused_gather", "normalized_queries", "grouped_queries", "multi_query", "rotary", "token_mixing",
    "constant_first", "batched_constants", "einsum_heads", "one_head", "unfolded", "group_norm_by_instances",
]  # fmt: skip


@pytest.mark.parametrize("first", BEFORE_OTHERS)
@settings(max_examples=EXAMPLES, deadline=None)
@given(
    st.lists(st.sampled_from(BEFORE_OTHERS), min_size=1, max_size=2),
    st.sampled_from(["whole", "inner"]),
    st.integers(0, 2**32 - 1),
)
def test_compositions_of_blocks_on_sequences_are_exact(first, names, heads, seed):
    """Blocks one behind the other, with a residual connection around each that keeps the number of tokens."""

    def build(b: Builder, x: str) -> Made:
        for name in (first, *names):
            made, width = SEQUENCES[name](b, x)
            made = b.node("MatMul", [made, b.weight(width, C, scale=width**-0.5)])
            if name == "token_mixing":
                made = b.node("MatMul", [b.weight(T, 5), made])
            if name == "unfolded":
                made = b.node("Slice", [made, *(b.constant(np.array([n], np.int64)) for n in (0, T, 1))])
            x = b.node("Add", [made, x])
        return x, C

    check(sequence_model(build), ChannelOptions(heads=heads), seed, keep_sets=1)


def test_at_least_500_graphs_are_drawn():
    assert EXAMPLES * (len(PRUNABLE) - 1 + len(BEFORE_OTHERS)) >= 500
