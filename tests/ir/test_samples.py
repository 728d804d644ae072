"""Data files: what is taken, and the whole message for what is not."""

from __future__ import annotations

import numpy as np
import pytest
from models import Builder

from deburr.ir.errors import DeburrError
from deburr.ir.onnx_reader import read
from deburr.ir.samples import Samples, check_samples, load_samples


@pytest.fixture(scope="module")
def graph():
    builder = Builder()
    builder.node("Add", ["image", "mask"], "y")
    return read(builder.model({"image": ["batch", 3, 4], "mask": ["batch", 1, 4]}, {"y": ["batch", 3, 4]})).graph


def data(count: int = 5, **changes):
    arrays = {"image": np.ones((count, 3, 4), np.float32), "mask": np.ones((count, 1, 4), np.float32)}
    return {name: array for name, array in {**arrays, **changes}.items() if array is not None}


def test_batches_and_take(graph, tmp_path):
    np.savez(tmp_path / "d.npz", labels=np.arange(5), **data())
    loaded = load_samples(tmp_path / "d.npz", graph)
    assert (len(loaded), loaded.source, loaded.synthetic) == (5, str(tmp_path / "d.npz"), False)
    assert loaded.labels.tolist() == [0, 1, 2, 3, 4]
    assert [len(batch["image"]) for batch in loaded.batches(2)] == [2, 2, 1]
    assert len(loaded.take(3)) == len(loaded.take(3).labels) == 3
    assert len(Samples({})) == 0


def sizes(tmp_path):
    """Three samples of width 4 and two of width 6, in a folder, one file compressed."""
    builder = Builder()
    builder.node("Relu", ["image"], "y")
    graph = read(builder.model({"image": ["batch", 3, "width"]}, {"y": ["batch", 3, "width"]})).graph
    arrays = [np.random.default_rng(width).random((count, 3, width), np.float32) for count, width in ((3, 4), (2, 6))]
    np.savez(tmp_path / "a.npz", image=arrays[0], labels=np.arange(3))
    np.savez_compressed(tmp_path / "b.npz", image=arrays[1], labels=np.arange(3, 5))
    return graph, arrays


def test_a_folder_holds_samples_of_several_sizes(tmp_path):
    graph, arrays = sizes(tmp_path)
    loaded = load_samples(tmp_path, graph)
    assert len(loaded) == 5
    assert loaded.labels.tolist() == [0, 1, 2, 3, 4]
    batches = [batch["image"] for batch in loaded.batches(2)]
    wanted = [arrays[0][:2], arrays[0][2:], arrays[1]]
    assert all(np.array_equal(batch, one) for batch, one in zip(batches, wanted, strict=True))
    assert loaded.batch_count(2) == 3
    assert [len(batch["image"]) for batch in loaded.take(4).batches(9)] == [3, 1]
    assert next(loaded.largest().batches(9))["image"].shape == (1, 3, 6)


def test_a_folder_without_samples_or_with_half_the_labels_is_refused(tmp_path):
    graph, _ = sizes(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DeburrError) as caught:
        load_samples(tmp_path / "empty", graph)
    assert str(caught.value) == f"error[E305]: no samples, {tmp_path / 'empty'}: the folder holds no .npz"
    np.savez(tmp_path / "c.npz", image=np.ones((1, 3, 5), np.float32))
    with pytest.raises(DeburrError) as caught:
        load_samples(tmp_path, graph)
    assert str(caught.value) == f"error[E303]: labels are missing, {tmp_path}: 1 parts have none"


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_are_read_from_the_file_in_batches(save, order, graph, tmp_path):
    whole = {
        name: np.asarray(np.random.default_rng(0).random(array.shape, np.float32), order=order)
        for name, array in data(7).items()
    }
    save(tmp_path / "d.npz", **whole)
    loaded = load_samples(tmp_path / "d.npz", graph)
    for name, array in whole.items():
        assert np.array_equal(np.concatenate([batch[name] for batch in loaded.batches(3)]), array)
        assert np.array_equal(np.asarray(loaded.inputs[name]), array)


def test_a_file_that_changes_under_way_is_reported(graph, tmp_path):
    np.savez(tmp_path / "d.npz", **data())
    loaded = load_samples(tmp_path / "d.npz", graph)
    (tmp_path / "d.npz").write_bytes(b"gone")
    with pytest.raises(DeburrError, match=r"error\[E301\]: cannot read the data, .*d.npz: File is not a zip file"):
        list(loaded.batches(2))


def broken(count, place):
    array = np.ones((count, 3, 4), np.float32)
    array[place] = np.nan
    return array


MESSAGES = {
    "missing": (
        data(mask=None),
        "error[E302]: no data for the input 'mask', memory: the file holds image; name an array after each model input",
    ),
    "nothing": (
        {},
        "error[E302]: no data for the input 'image', memory: the file holds nothing; name an array after each model input",
    ),
    "unknown": (
        data(extra=np.ones(5)),
        "error[E302]: the model has no input 'extra', memory: its inputs are image, mask; rename or remove the array",
    ),
    "dtype": (
        data(image=np.ones((5, 3, 4))),
        "error[E303]: wrong dtype, memory, array 'image': the model takes float, the array is float64; convert it with "
        ".astype('float32')",
    ),
    "shape": (
        data(image=np.ones((5, 4, 3), np.float32)),
        "error[E303]: wrong shape, memory, array 'image': the model takes float[batch, 3, 4], the array is [5, 4, 3]; put the "
        "samples on the first axis",
    ),
    "counts": (
        data(mask=np.ones((4, 1, 4), np.float32)),
        "error[E303]: the arrays hold different numbers of samples, memory: {'image': 5, 'mask': 4}",
    ),
    "nan": (
        data(image=broken(5, (2, 0, 1))),
        "error[E304]: NaN or infinity in the data, memory, array 'image': in 1 samples, the first is number 2",
    ),
    "empty": (data(0), "error[E305]: no samples, memory, array 'image': the shape is [0, 3, 4]"),
    "scalar": (data(image=np.float32(1)), "error[E305]: no samples, memory, array 'image': the shape is []"),
}


@pytest.mark.parametrize("case", MESSAGES)
def test_messages(case, graph):
    arrays, message = MESSAGES[case]
    with pytest.raises(DeburrError) as caught:
        check_samples(arrays, graph)
    assert str(caught.value) == message


def test_labels_must_match(graph):
    with pytest.raises(DeburrError) as caught:
        check_samples(data(), graph, labels=np.arange(4))
    assert str(caught.value) == ("error[E303]: as many labels as samples are needed, memory: 4 labels, {'image': 5, 'mask': 5}")


@pytest.mark.parametrize("content", ["text", "pickle", "missing", "npy", "cut"])
def test_unreadable(content, graph, tmp_path):
    path = tmp_path / "d.npz"
    if content == "text":
        path.write_text("no numbers here")
    elif content == "pickle":
        np.savez(path, **data(image=np.array([{"code": 1}] * 5)))
    elif content == "npy":
        with path.open("wb") as file:
            np.save(file, np.ones(3))
    elif content == "cut":
        np.savez(path, **data())
        path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DeburrError) as caught:
        load_samples(path, graph)
    assert str(caught.value).startswith(f"error[E301]: cannot read the data, {path}: ")
    assert str(caught.value).endswith("; give an .npz written by numpy.savez")


def test_a_split_keeps_every_sample_once_and_sizes_apart(tmp_path):
    sizes = {"a": (5, 1, 4, 4), "b": (7, 1, 6, 6)}
    start = 0
    for name, shape in sizes.items():
        images = np.arange(start, start + shape[0], dtype=np.float32)[:, None, None, None] * np.ones(shape, np.float32)
        np.savez(tmp_path / f"{name}.npz", x=images, labels=np.arange(start, start + shape[0]))
        start += shape[0]
    builder = Builder()
    builder.node("Relu", ["x"], "y")
    graph = read(builder.model({"x": ["batch", 1, "h", "w"]}, {"y": ["batch", 1, "h", "w"]})).graph
    parts = load_samples(tmp_path, graph).split(0.25, np.random.default_rng(0))
    assert [len(part) for part in parts] == [3, 9]
    seen = []
    for part in parts:
        values = [value for batch in part.batches(4) for value in batch["x"][:, 0, 0, 0].tolist()]
        assert values == part.labels.tolist()
        seen += values
    assert sorted(seen) == list(range(12))
