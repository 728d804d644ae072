"""Every case of the matrix: exact where it is pruned, and frozen with its reason where it is not."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from deburr.passes.analysis.walk import ChannelOptions
from deburr.passes.prune.surgery import remove_channels

from .matrix import FROZEN, PRUNABLE, case, macs_after
from .pruning import analyse, check_exact
from .topologies import TOPOLOGIES


@pytest.mark.parametrize("name", sorted(set(PRUNABLE) - set(TOPOLOGIES)))
def test_a_case_of_the_matrix_equals_the_masked_original(name):
    removed = check_exact(case(name), np.random.default_rng(sorted(PRUNABLE).index(name)))
    assert removed > 20


@pytest.mark.parametrize("name", ["shuffle_of_read_sizes", "resized_to_read_sizes", "chain", "u_net"])
def test_height_and_width_may_be_known_at_run_time_only(name):
    proto = case(name)
    for axis, symbol in ((2, "height"), (3, "width")):
        proto.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = symbol
    onnx.checker.check_model(proto, full_check=True)
    assert check_exact(proto, np.random.default_rng(0), keep_sets=10, length=4) > 5


@pytest.mark.parametrize("name", PRUNABLE)
def test_the_work_falls_and_the_checker_accepts_what_is_left(name):
    before, after, pruned = macs_after(case(name), seed=1)
    assert after < before
    onnx.checker.check_model(pruned, full_check=True)


WITH_GROUPS = ["grouped", "grouped_32", "group_across_concat", "transposed_residual"]


@pytest.mark.parametrize("name", WITH_GROUPS)
def test_whole_groups_of_a_convolution_go(name):
    assert check_exact(case(name), np.random.default_rng(0), keep_sets=10, options=ChannelOptions(groups="whole")) > 5


@pytest.mark.parametrize(("groups", "size"), [("whole", 32), ("inner", 4)])
def test_the_unit_of_a_grouped_convolution_is_a_group_or_a_position(groups, size):
    model, context, analysis = analyse(case("grouped_32"), ChannelOptions(groups=groups))
    assert {group.size for group in analysis.prunable} == {size}
    keep = analysis.keep_all()
    for group in analysis.prunable:
        keep[group.classes[::2]] = False
    remove_channels(analysis, keep, context)
    node = next(node for node in model.graph.nodes if node.get("group", 1) > 1)
    assert (node.get("group"), node.input(1).shape[:2]) == ((16, (64, 4)) if groups == "whole" else (32, (64, 2)))


@pytest.mark.parametrize("name", FROZEN)
def test_what_must_stay_says_why(name):
    _, _, analysis = analyse(case(name))
    stem = next(group for group in analysis.groups if group.size == 8)
    assert analysis.always[stem.classes].all()
    assert any(FROZEN[name][1] in frozen.reason for frozen in stem.frozen)


@pytest.mark.parametrize("name", FROZEN)
def test_what_can_go_beside_what_must_stay_is_exact(name):
    removed = check_exact(case(name), np.random.default_rng(0), keep_sets=5)
    assert bool(removed) == bool(analyse(case(name))[2].prunable)


def test_the_bottleneck_of_a_frozen_gate_goes():
    assert check_exact(case("block_attention"), np.random.default_rng(0), keep_sets=5) > 5
