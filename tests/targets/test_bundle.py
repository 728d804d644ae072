"""Bundles: opened without ONNX, refused when damaged or for another machine."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from models import conv_chain, samples

from deburr.ir.errors import DeburrError
from deburr.ir.evaluate import Evaluator
from deburr.ir.onnx_reader import read
from deburr.targets import compile as compiling
from deburr.targets.bundle import Bundle
from deburr.targets.target import find


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    path = tmp_path_factory.mktemp("bundles") / "chain"
    compiling.compile(read(conv_chain()), path, target=find("x86-64-v3"), threads=2, seed=7)
    return path


@pytest.fixture
def copied(written, tmp_path):
    return shutil.copytree(written, tmp_path / "copy")


def edit(folder, **fields):
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest.update(fields)
    (folder / "manifest.json").write_text(json.dumps(manifest))


def refusal(folder):
    with pytest.raises(DeburrError) as caught:
        Bundle.open(folder)
    return caught.value


def test_the_manifest_tells_what_it_is(written):
    manifest = Bundle.open(written).manifest
    assert manifest["inputs"] == [{"name": "x", "dtype": "float", "shape": [None, 3, 8, 8]}]
    assert manifest["outputs"] == [{"name": "y", "dtype": "float", "shape": [None, 10]}]
    assert (manifest["threads"], manifest["seed"], manifest["target"]["name"]) == (2, 7, "x86-64-v3")
    assert "avx2" in manifest["instruction_sets"]
    assert list(manifest["files"]) == ["model.so"]
    assert sorted(path.name for path in written.iterdir()) == ["manifest.json", "model.so"]


def test_a_bundle_runs_without_onnx_and_without_the_compiler(written):
    script = (
        "import sys\n"
        "for name in ('onnx', 'onnxruntime', 'onnx_graphsurgeon'):\n"
        "    sys.modules[name] = None\n"  # an import of these fails from here on
        "import numpy as np\n"
        "from deburr.targets.bundle import Bundle\n"
        f"bundle = Bundle.open({str(written)!r})\n"
        "print(bundle.run({'x': np.ones((2, 3, 8, 8), np.float32)})['y'].shape, 'tvm' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=written.parent)
    assert done.stdout == "(2, 10) False\n", done.stderr


def test_no_bundle(tmp_path):
    error = refusal(tmp_path)
    assert error.code == "E501"
    assert str(error) == (
        f"error[E501]: not a bundle, {tmp_path}: manifest.json: No such file or directory; give what `deburr compile` wrote"
    )


def test_another_format(copied):
    edit(copied, format=99)
    assert refusal(copied).code == "E501"


def test_a_changed_library(copied):
    with (copied / "model.so").open("ab") as file:
        file.write(b"x")
    error = refusal(copied)
    assert error.code == "E502"
    assert "its contents are not what the manifest says" in str(error)


def test_a_missing_library(copied):
    (copied / "model.so").unlink()
    assert "No such file or directory" in str(refusal(copied))


@pytest.mark.parametrize("fields", [{"threads": "two"}, {"threads": 0}, {"inputs": [{"name": "x"}]}, {"surprise": 1}])
def test_a_damaged_manifest(copied, fields):
    edit(copied, **fields)
    assert refusal(copied).code == "E502"


def test_a_file_outside_the_bundle_is_not_read(copied):
    edit(copied, files={"../model.so": {"sha256": "0", "bytes": 1}})
    assert "it leads out of the bundle" in str(refusal(copied))


def test_an_unknown_element_type(copied):
    edit(copied, inputs=[{"name": "x", "dtype": "quaternion", "shape": [1]}])
    assert "there is no element type QUATERNION" in str(refusal(copied))


def test_another_machine(copied):
    edit(copied, instruction_sets=["avx2", "amx-complex-never"])
    error = refusal(copied)
    assert error.code == "E503"
    assert "this CPU lacks amx-complex-never" in str(error)
    looked_at = Bundle.inspect(copied)
    assert looked_at.manifest["threads"] == 2
    with pytest.raises(DeburrError, match="E503"):
        looked_at.run({"x": np.zeros((1, 3, 8, 8), np.float32)})


@pytest.mark.parametrize(
    ("inputs", "code"),
    [
        ({}, "E302"),
        ({"x": np.zeros((1, 3, 8, 8), np.float32), "z": np.zeros(1)}, "E302"),
        ({"x": np.zeros((1, 3, 8, 9), np.float32)}, "E303"),
        ({"x": np.zeros((3, 8, 8), np.float32)}, "E303"),
        ({"x": np.zeros((1, 3, 8, 8))}, "E303"),
        ({"x": np.zeros((0, 3, 8, 8), np.float32)}, "E303"),
    ],
)
def test_inputs_that_do_not_fit(written, inputs, code):
    with pytest.raises(DeburrError) as caught:
        Bundle.open(written).run(inputs)
    assert caught.value.code == code


def test_threads_must_be_positive(written):
    with pytest.raises(DeburrError, match="E901"):
        Bundle.open(written, threads=0)


def test_a_replaced_bundle_is_the_new_one_while_the_old_one_runs(written, tmp_path):
    """The loader of libraries goes by the path, and would hand out the old program again."""
    folder, data = shutil.copytree(written, tmp_path / "b"), samples(conv_chain(), 1)
    old = Bundle.open(folder)
    before = old.run(data)["y"]
    new = compiling.compile(read(conv_chain((3, 8, 32))), folder, target=find("x86-64-v3"), threads=2)
    wanted = Evaluator(read(conv_chain((3, 8, 32)))).run(data)["y"]
    np.testing.assert_allclose(new.run(data)["y"], wanted, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(old.run(data)["y"], before)


def test_results_are_fresh_arrays(written):
    bundle, data = Bundle.open(written), samples(conv_chain(), 1)
    first = bundle.run(data)["y"]
    kept = first.copy()
    bundle.run({"x": data["x"] * 2})
    np.testing.assert_array_equal(first, kept)
    first[:] = 0
    np.testing.assert_array_equal(bundle.run(data)["y"], kept)
