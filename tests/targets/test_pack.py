"""Packing: where every weight lands, padding, and the zero point folded into the bias."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernel_reference import TARGETS

from deburr.ir.errors import DeburrError
from deburr.targets.kernels import layout, pack
from deburr.targets.kernels.workload import Conv2d


def test_vnni_weights_lie_four_channels_deep():
    w = Conv2d(1, 40, 8, 8, 20, (3, 2))
    weight = np.random.default_rng(0).integers(-128, 128, (20, 40, 3, 2)).astype(np.int8)
    packed = pack.pack_conv2d(w, TARGETS["avx512vnni"], weight)["weight"]
    assert packed.shape == (2, 3, 3, 2, 4, 16, 4)
    assert packed.dtype == np.int8
    for o, i, y, x in [(0, 0, 0, 0), (19, 39, 2, 1), (17, 22, 1, 0)]:
        assert packed[o // 16, i // 16, y, x, i % 16 // 4, o % 16, i % 4] == weight[o, i, y, x]
    assert not packed[1, :, :, :, :, 4:].any(), "output channels beyond 20"
    assert not packed[:, 2, :, :, 2:].any(), "input channels beyond 40"


@pytest.mark.parametrize(
    ("isa", "group", "dtype"),
    [("avx512vnni", 4, "int8"), ("avxvnni", 4, "int8"), ("avx2", 2, "int16"), ("generic", 1, "int16")],
)
def test_every_weight_survives_in_every_layout(isa, group, dtype):
    w = Conv2d(1, 12, 5, 5, 33, (1, 3), in_block=16, out_block=16)
    weight = np.arange(33 * 12 * 3).astype(np.int8).reshape(33, 12, 1, 3)
    packed = pack.pack_conv2d(w, TARGETS[isa], weight)["weight"]
    assert (packed.shape[-1], str(packed.dtype)) == (group, dtype)
    unpacked = packed.transpose(0, 5, 1, 4, 6, 2, 3).reshape(48, 16, 1, 3)
    np.testing.assert_array_equal(unpacked[:33, :12], weight)
    assert np.count_nonzero(unpacked) == np.count_nonzero(weight)


@given(st.integers(1, 12), st.integers(1, 9), st.integers(1, 9), st.sampled_from([4, 8, 16]), st.sampled_from([8, 16]))
def test_groups_see_their_own_channels_only(groups, inputs, outputs, in_block, out_block):
    """Multiplying by the packed weights, block span by block span, is the block-diagonal matrix."""
    w = Conv2d(1, groups * inputs, 1, 1, groups * outputs, (1, 1), groups=groups, in_block=in_block, out_block=out_block)
    weight = np.arange(1, groups * outputs * inputs + 1, dtype=np.float32).reshape(groups * outputs, inputs, 1, 1)
    packed = pack._pack_dense(Conv2d(**{**_fields(w), "dtype": "float32"}), "generic", weight)
    dense = np.zeros((packed.shape[0] * out_block, layout.blocks(w.in_channels, in_block) * in_block), np.float32)
    for index, first in enumerate(layout.first_input_blocks(w)):
        span = packed[index, :, 0, 0, :, :, 0].transpose(2, 0, 1).reshape(out_block, -1)
        dense[index * out_block : (index + 1) * out_block, first * in_block : first * in_block + span.shape[1]] = span
    expected = np.zeros_like(dense)
    for o in range(w.out_channels):
        start = o // outputs * inputs
        expected[o, start : start + inputs] = weight[o, :, 0, 0]
    np.testing.assert_array_equal(dense, expected)


def test_depthwise_weights_lie_lane_by_channel():
    w = Conv2d(1, 20, 8, 8, 20, (3, 3), groups=20)
    weight = np.random.default_rng(0).integers(-128, 128, (20, 1, 3, 3)).astype(np.int8)
    packed = pack.pack_conv2d(w, TARGETS["avx512vnni"], weight)["weight"]
    assert packed.shape == (2, 3, 3, 16)
    assert packed[1, 2, 0, 3] == weight[19, 0, 2, 0]


def test_bias_and_multiplier_fill_whole_blocks():
    w = Conv2d(1, 16, 4, 4, 20, (1, 1), data_zero_point=10)
    weight = np.ones((20, 16, 1, 1), np.int8)
    packed = pack.pack_conv2d(w, TARGETS["avx512vnni"], weight, np.arange(20, dtype=np.int32), np.float32(0.5))
    assert packed["bias"].shape == packed["multiplier"].shape == (2, 16)
    assert packed["bias"].ravel()[:20].tolist() == [i - 160 for i in range(20)]
    assert packed["multiplier"].ravel().tolist() == [0.5] * 20 + [0.0] * 12


@given(st.integers(1, 40), st.integers(1, 130), st.sampled_from([4, 8, 16]))
def test_activations_round_trip(height, channels, block):
    data = np.random.default_rng(height).integers(0, 256, (2, channels, height, 3)).astype(np.uint8)
    packed = pack.pack_activation(data, block)
    assert packed.shape == (2, -(-channels // block), height, 3, block)
    np.testing.assert_array_equal(pack.unpack_activation(packed, channels), data)


def test_an_accumulator_beyond_int32_is_refused():
    weight = np.full((3, 70_000, 1, 1), 1, np.int8)
    weight[2] = 127
    with pytest.raises(DeburrError) as caught:
        pack.fold_zero_point(weight, None, 0)
    assert str(caught.value) == (
        "error[E402]: an integer convolution that does not fit int32, output channel 2: "
        "its accumulator can lie anywhere in [0, 2266950000]; leave this layer in float"
    )


def test_a_bias_that_just_fits_is_taken():
    weight, limit = np.array([[[[2]]]], np.int8), np.iinfo(np.int32).max
    assert pack.fold_zero_point(weight, np.array([limit - 510], np.int32), 0).tolist() == [limit - 510]
    with pytest.raises(DeburrError, match="E402"):
        pack.fold_zero_point(weight, np.array([limit - 509], np.int32), 0)


def test_a_weight_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"weight \(4, 3, 1, 1\) where the workload has \(4, 5, 1, 1\)"):
        pack.pack_conv2d(Conv2d(1, 5, 2, 2, 4, (1, 1)), TARGETS["avx2"], np.zeros((4, 3, 1, 1), np.int8))


def _fields(workload):
    from dataclasses import fields

    return {field.name: getattr(workload, field.name) for field in fields(workload)}
