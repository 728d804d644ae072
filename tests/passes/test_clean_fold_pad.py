"""Padding in front of convolutions: folded where it is zeros around images, else left with the reason."""

import pytest

from deburr.passes.pipeline import parse

from .rewriting import check, unchanged

PASS = "fold-pad"
DROPPED = f"{PASS},remove-dead-code"  # with the constants that say how much is padded
KERNEL = " const %k = float[1, 1, 2, 2] [1.0, 2.0, 3.0, 4.0]\n"
IMAGE = "input %x: float[n, 1, 5, 6]\n"


def test_the_convolution_pads_itself():
    check(
        DROPPED,
        IMAGE + KERNEL + " const %p = int64[8] [0, 0, 1, 0, 0, 0, 2, 3]\n %z = Pad(%x, %p)\n"
        " %y: float[n, 1, 4, 5] = Conv(%z, %k) {pads=[0, 1, 0, 0], strides=[2, 2]}\n return %y",
        IMAGE + KERNEL + " %y: float[n, 1, 4, 5] = Conv(%x, %k) {pads=[1, 1, 2, 3], strides=[2, 2]}\n return %y",
        opset=17,
    )


def test_axes_and_a_written_zero():
    check(
        DROPPED,
        IMAGE + KERNEL + " const %p = int64[4] [1, 0, 0, 2]\n const %v = float[] 0.0\n const %a = int64[2] [-1, 2]\n"
        ' %z = Pad(%x, %p, %v, %a)\n %y: float[n, 1, 6, 6] = Conv(%z, %k) {auto_pad="VALID"}\n return %y',
        IMAGE + KERNEL + " %y: float[n, 1, 6, 6] = Conv(%x, %k) {pads=[0, 1, 2, 0]}\n return %y",
        opset=18,
    )


def test_as_an_attribute_before_opset_11():
    check(
        PASS,
        IMAGE + KERNEL + " %z = Pad(%x) {pads=[0, 0, 1, 1, 0, 0, 0, 0]}\n %y: float[n, 1, 5, 6] = Conv(%z, %k)\n return %y",
        IMAGE + KERNEL + " %y: float[n, 1, 5, 6] = Conv(%x, %k) {pads=[1, 1, 0, 0]}\n return %y",
        opset=10,
    )


def test_other_readers_keep_the_pad():
    before = (
        IMAGE + KERNEL + " const %p = int64[8] [0, 0, 1, 1, 0, 0, 0, 0]\n %z = Pad(%x, %p)\n"
        " %y: float[n, 1, 5, 6] = Conv({0}, %k){1}\n %m = MaxPool(%z) {{kernel_shape=[2, 2]}}\n %s = Add(%y, %m)\n return %s"
    )
    check(
        PASS,
        before.format("%z", ""),
        before.format("%x", " {pads=[1, 1, 0, 0]}"),
        "fold-pad: MaxPool -> m: the Pad in front of it stays: only Conv pads with zeros",
    )


@pytest.mark.parametrize(
    ("pad", "reason"),
    [
        ('Pad(%x, %p) {mode="reflect"}', "convolutions pad with zeros, its mode is 'reflect'"),
        ("Pad(%x, %p, %one)", "convolutions pad with zeros, it does with another number"),
        ("Pad(%x, %channels)", "it pads samples or channels, or cuts off"),
        ("Pad(%x, %cut)", "it pads samples or channels, or cuts off"),
        ("Pad(%x, %given)", "how much it pads, or with what, is not known before the model runs"),
    ],
)
def test_what_a_convolution_cannot_do(pad, reason):
    unchanged(
        PASS,
        IMAGE
        + " input %given: int64[8]\n"
        + KERNEL
        + " const %p = int64[8] [0, 0, 1, 1, 0, 0, 0, 0]\n const %channels = int64[8] [0, 0, 0, 0, 1, 0, 0, 0]\n"
        " const %cut = int64[8] [0, 0, -1, 0, 0, 0, 0, 0]\n const %one = float[] 1.0\n"
        f" %z = {pad}\n %y = Conv(%z, %k)\n return %y",
        f"fold-pad: Pad -> z: {reason}",
    )


def test_it_is_part_of_clean():
    assert any(pass_.name == PASS for pass_ in parse("clean").expanded().passes)
