"""Several batch sizes in one bundle: which are taken, how samples are divided among them, and that this changes no bit."""

import json

import numpy as np
import pytest
from models import Builder, conv_chain, perceptron, residual_block, samples
from program import quantized

from deburr.ir.errors import DeburrError
from deburr.ir.onnx_reader import read
from deburr.targets import compile as compiling
from deburr.targets.batch_sizes import checked, parse, parts
from deburr.targets.bundle import Bundle
from deburr.targets.target import find

HOST = find("x86-64-v3")
HINT = "give different sizes, as --batch 1,4,8 or batch=(1, 4, 8)"
COUNTS = (1, 2, 3, 4, 5, 8, 13, 27)


def build(proto, path, **options):
    return compiling.compile(read(proto), path, target=HOST, threads=1, **options)


@pytest.fixture(scope="module")
def model():
    return quantized(residual_block(24, 12))


@pytest.fixture(scope="module")
def one_by_one(model, tmp_path_factory):
    """The outputs for the largest number of samples, each sample in a run of its own."""
    bundle, data = build(model, tmp_path_factory.mktemp("bundles") / "one"), samples(model, max(COUNTS))["x"]
    return data, np.concatenate([bundle.run({"x": data[at : at + 1]})["y"] for at in range(len(data))])


@pytest.mark.parametrize(
    ("count", "sizes", "expected"),
    [
        (1, (1,), [1]),
        (3, (1,), [1, 1, 1]),
        (8, (1, 4, 8), [8]),
        (13, (1, 4, 8), [8, 4, 1]),
        (23, (1, 4, 8), [8, 8, 4, 1, 1, 1]),
        (3, (4, 8), [4]),
        (15, (4, 8), [8, 4, 4]),
        (0, (1,), []),
    ],
)
def test_samples_are_divided_largest_first(count, sizes, expected):
    assert list(parts(count, sizes)) == expected


@pytest.mark.parametrize("sizes", [(8, 1, 4), (3, 8)])
def test_every_number_of_samples_gives_the_bits_of_one_by_one(model, one_by_one, tmp_path, sizes):
    bundle, (data, expected) = build(model, tmp_path / "several", batch=sizes), one_by_one
    assert bundle.batches == tuple(sorted(sizes))
    for count in COUNTS:
        np.testing.assert_array_equal(bundle.run({"x": data[:count]})["y"], expected[:count], err_msg=str(count))


def test_a_program_for_each_size_in_whatever_order_they_are_given(tmp_path):
    manifest = build(conv_chain(), tmp_path / "a", batch=(4, 1)).manifest
    assert [(program["function"], program["batch"]) for program in manifest["programs"]] == [("main_1", 1), ("main_4", 4)]
    one, four = ([group["macs"] for group in program["groups"]] for program in manifest["programs"])
    assert four == [4 * macs for macs in one]
    assert manifest["divisible"]
    assert manifest["outputs"] == [{"name": "y", "dtype": "float", "shape": [None, 10]}]
    build(conv_chain(), tmp_path / "b", batch=(1, 4))
    for file in ("model.so", "manifest.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_the_weights_are_stored_once(tmp_path):
    proto = perceptron((256, 1024, 10))
    bytes_of = {}
    for name, sizes in (("one", 1), ("three", (1, 4, 8))):
        build(proto, tmp_path / name, batch=sizes)
        bytes_of[name] = (tmp_path / name / "model.so").stat().st_size
    assert bytes_of["one"] > 256 * 1024 * 4
    assert bytes_of["three"] < 1.2 * bytes_of["one"]


def across_samples():
    """A model whose output has the samples on its second axis."""
    builder = Builder()
    builder.node("Transpose", [builder.conv("x", 3, 4, 1)], "y", perm=[1, 0, 2, 3])
    return builder.model({"x": ["batch", 3, 8, 8]}, {"y": [4, "batch", 8, 8]})


def test_what_cannot_be_divided_runs_in_the_sizes_it_has(tmp_path):
    proto = across_samples()
    bundle, data = build(proto, tmp_path / "b", batch=(1, 3)), samples(proto, 3)["x"]
    assert bundle.manifest["outputs"][0]["shape"] == [4, None, 8, 8]
    whole = bundle.run({"x": data})["y"]
    assert whole.shape == (4, 3, 8, 8)
    np.testing.assert_allclose(whole[:, :1], bundle.run({"x": data[:1]})["y"], rtol=1e-5, atol=1e-6)
    with pytest.raises(DeburrError) as caught:
        bundle.run({"x": data[:2]})
    assert str(caught.value) == (
        "error[E303]: the samples cannot be run in parts, 2 samples: not every input and output has them on its first axis, "
        "and the bundle takes 1 or 3 at once; give as many, or compile it with --batch 2 too"
    )


def test_what_the_file_declares_of_an_output_does_not_make_it_divisible(tmp_path):
    """The mean over all samples, declared as one for each sample: in parts there would be a mean of each part."""
    builder = Builder()
    builder.node("ReduceMean", [builder.conv("x", 3, 4, 1)], "y", axes=[0], keepdims=1)
    proto = builder.model({"x": ["batch", 3, 8, 8]}, {"y": [None, 4, 8, 8]})
    bundle = build(proto, tmp_path / "b", batch=(2, 4))
    assert not bundle.manifest["divisible"]
    assert bundle.run(samples(proto, 4))["y"].shape == (1, 4, 8, 8)


def test_a_size_given_as_a_symbol_is_no_batch_size_to_choose(tmp_path):
    bundle = build(conv_chain(), tmp_path / "b", symbols={"batch": 3})
    assert (bundle.batches, bundle.manifest["inputs"][0]["shape"]) == ((3,), [3, 3, 8, 8])


def test_a_model_that_fixes_its_batch(tmp_path):
    with pytest.raises(DeburrError) as caught:
        build(conv_chain(batch=4), tmp_path / "b", batch=(1, 4))
    assert str(caught.value) == (
        "error[E901]: the model fixes the batch size, batch 1, 4: input 'x' is float[4, 3, 8, 8]; "
        "leave the batch sizes out, or export the model with a symbol for its first axis"
    )
    assert build(conv_chain(batch=4), tmp_path / "b").batches == (4,)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("1,x", f"not a batch size, --batch 1,x: 'x' is no whole number above 0; {HINT}"),
        ("", f"not a batch size, --batch : '' is no whole number above 0; {HINT}"),
        ("1.5", f"not a batch size, --batch 1.5: '1.5' is no whole number above 0; {HINT}"),
        ("4,0", f"not a batch size, --batch 4,0: 0 is no whole number above 0; {HINT}"),
        ("4,1,4", f"a batch size is given twice, --batch 4,1,4: 4 stands there 2 times; {HINT}"),
        ("1,2,3,4,5,6,7,8,9", f"too many batch sizes, --batch 1,2,3,4,5,6,7,8,9: there are 9, a bundle takes 1 to 8; {HINT}"),
        ((), f"no batch size, batch=(): there are 0, a bundle takes 1 to 8; {HINT}"),
        ((1, -2), f"not a batch size, batch=(1, -2): -2 is no whole number above 0; {HINT}"),
        (0, f"not a batch size, batch=0: 0 is no whole number above 0; {HINT}"),
        (2.0, f"not a batch size, batch=2.0: 2.0 is no whole number above 0; {HINT}"),
    ],
)
def test_wrong_sizes(given, message):
    with pytest.raises(DeburrError) as caught:
        parse(given) if isinstance(given, str) else checked(given)
    assert str(caught.value) == f"error[E901]: {message}"


def test_a_bundle_of_the_format_before_is_refused(tmp_path):
    (tmp_path / "manifest.json").write_text(json.dumps({"format": 2, "batch": 1}))
    with pytest.raises(DeburrError) as caught:
        Bundle.open(tmp_path)
    assert str(caught.value) == (
        f"error[E501]: a bundle of another format, {tmp_path}: it has format 2, this version of deburr reads 4; "
        "compile it again"
    )
