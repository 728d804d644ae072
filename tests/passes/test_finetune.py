"""Fine-tuning: what it wins back, what it leaves alone, and that a training that was interrupted is the same training."""

import contextlib
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from models import conv_chain, perceptron, residual_block, samples

from deburr.ir.errors import DeburrError
from deburr.ir.evaluate import Evaluator
from deburr.ir.fidelity import accuracy
from deburr.ir.onnx_reader import read
from deburr.ir.onnx_writer import to_proto
from deburr.ir.samples import Samples
from deburr.passes import manager
from deburr.passes.core import Context
from deburr.passes.pipeline import parse

from .training import Stopped, context_of, error, remarks, run, stop_after, trained, weights

HALVED = "clean,prune-channels{ratio=0.5,round_to=1}"
TUNED = "finetune{epochs=8,lr=0.01,batch=16}"
PROTO = residual_block()


def test_it_wins_back_what_pruning_cost_without_labels():
    pruned, tuned = trained(PROTO, HALVED), trained(PROTO, f"{HALVED},{TUNED}")
    assert error(tuned.model, PROTO) < 0.3 * error(pruned.model, PROTO)
    assert {name: array.shape for name, array in weights(tuned.model).items()} == {
        name: array.shape for name, array in weights(pruned.model).items()
    }
    (told,) = remarks(tuned, "finetune")
    assert "the loss on samples kept apart fell from" in told


def test_the_original_is_the_model_as_the_pipeline_got_it():
    """Not as it was before the last pruning: what clusters have cost is won back too."""
    pipeline = "clean,prune-weights{sparsity=0.6}"
    assert error(trained(PROTO, f"{pipeline},{TUNED}").model, PROTO) < 0.5 * error(trained(PROTO, pipeline).model, PROTO)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("pruning", ["sparsity=0.7", "pattern=(2,4)"])
def test_pruned_weights_stay_zero(pruning, optimizer):
    masked = trained(PROTO, f"clean,prune-weights{{{pruning}}}")
    context = trained(
        PROTO, f"clean,prune-weights{{{pruning}}},finetune{{epochs=2,lr=0.01,optimizer={optimizer},weight_decay=0.1}}"
    )
    before, after = weights(masked.model), weights(context.model)
    changed = 0
    for name, array in before.items():
        if array.ndim > 1:
            np.testing.assert_array_equal(after[name] == 0, array == 0)
            changed += int((after[name] != array).any())
    assert changed > 1


def test_zeros_train_if_they_are_asked_to():
    context = trained(PROTO, "clean,prune-weights{sparsity=0.7},finetune{epochs=2,lr=0.01,keep_zeros=false}")
    assert all((array != 0).all() for array in weights(context.model).values() if array.ndim > 1)


def test_labels_count_where_the_data_has_them():
    proto = perceptron((16, 32, 4))
    data = samples(proto, 1000)
    labels = data["x"][:, :4].argmax(1)
    context = Context(read(proto), data=Samples(data, labels))
    run(context, "finetune{epochs=10,lr=0.01,loss=labels}")
    fresh = samples(proto, 200, seed=5)
    found = accuracy(Evaluator(context.model).run(fresh)["y"], fresh["x"][:, :4].argmax(1))
    assert found is not None
    assert found > 0.8  # 0.25 before


def test_labels_that_are_missing_are_asked_for():
    with pytest.raises(DeburrError) as caught:
        trained(PROTO, "finetune{loss=labels}")
    assert str(caught.value) == (
        "error[E206]: loss=labels needs labels, pass finetune{loss=labels}: memory has none; add an array `labels` [samples] "
        "to the data, or train with loss=distill"
    )


def test_labels_that_fit_no_output_are_refused():
    with pytest.raises(DeburrError, match=r"E206\]: the labels fit no output.*they are float64 of shape \[96\]"):
        run(context_of(PROTO, labels=np.zeros(96)), "finetune")


def test_an_unchanged_model_has_nothing_to_recover():
    context = context_of(PROTO)
    before = weights(context.model)
    run(context, "finetune")
    assert all(np.array_equal(array, before[name]) for name, array in weights(context.model).items())
    assert "nothing to recover" in remarks(context, "finetune")[0]


def test_a_learning_rate_that_destroys_changes_nothing():
    context = trained(PROTO, f"{HALVED},finetune{{epochs=2,lr=1000.0}}")
    reference = trained(PROTO, HALVED)
    assert all(np.array_equal(array, weights(reference.model)[name]) for name, array in weights(context.model).items())
    assert "no epoch is better than before" in remarks(context, "finetune")[0]
    assert "try a lower lr" in remarks(context, "finetune")[0]


def test_patience_ends_it_early():
    told = []

    def count(items, total, description):
        for item in items:
            yield item
            if callable(description):
                told.append(description())

    context = context_of(PROTO)
    context.progress = count
    run(context, "clean,prune-weights{sparsity=0.5},finetune{epochs=40,lr=30.0,patience=1,batch=32,warmup=0.0}")
    assert len(told) < 12
    assert told[0].startswith("epoch 1/40: loss")


@pytest.mark.parametrize("steps", [1, 8, 17])
def test_a_training_that_dies_goes_on_to_the_same_bits(steps, tmp_path, monkeypatch):
    from deburr.passes.recover.learning import trainer

    monkeypatch.setattr(trainer, "SAVE_SECONDS", 0.0)
    pipeline = parse(f"{HALVED},finetune{{epochs=5,lr=0.01,batch=16,checkpoint={tmp_path}/state.npz}}")
    whole = trained(PROTO, f"{HALVED},finetune{{epochs=5,lr=0.01,batch=16}}")
    stopped = context_of(PROTO)
    stopped.progress = stop_after(steps, Stopped)
    with pytest.raises(DeburrError, match="Stopped"):
        manager.run(pipeline, stopped)
    resumed = context_of(PROTO)
    manager.run(pipeline, resumed)
    again = context_of(PROTO)
    manager.run(pipeline, again)  # a finished training is not repeated
    for name, array in weights(whole.model).items():
        np.testing.assert_array_equal(weights(resumed.model)[name], array)
        np.testing.assert_array_equal(weights(again.model)[name], array)


def test_a_checkpoint_of_another_training_is_refused(tmp_path):
    path = tmp_path / "state.npz"
    trained(PROTO, f"{HALVED},finetune{{epochs=1,checkpoint={path}}}")
    with pytest.raises(DeburrError) as caught:
        trained(PROTO, f"{HALVED},finetune{{epochs=2,checkpoint={path}}}")
    assert str(caught.value) == (
        f"error[E203]: the checkpoint is of another training, {path}: options, model, data or seed differ; remove the file, or "
        "name another one"
    )


def test_a_checkpoint_does_not_go_on_with_other_samples_of_the_same_sizes(tmp_path):
    pipeline = f"{HALVED},finetune{{epochs=1,checkpoint={tmp_path}/state.npz}}"
    trained(PROTO, pipeline)
    other = context_of(PROTO)
    other.data = Samples({name: array[::-1] for name, array in samples(PROTO, 96).items()})
    with pytest.raises(DeburrError, match="the checkpoint is of another training"):
        run(other, pipeline)


def test_a_checkpoint_that_is_no_archive_is_refused(tmp_path):
    (tmp_path / "state.npz").write_bytes(b"torn")
    with pytest.raises(DeburrError, match=r"E301\]: cannot read the data, .*state.npz"):
        trained(PROTO, f"{HALVED},finetune{{epochs=1,checkpoint={tmp_path}/state.npz}}")


def test_ctrl_c_keeps_the_best_epoch():
    context = context_of(PROTO)
    context.progress = stop_after(16, KeyboardInterrupt)
    run(context, "prune-weights{sparsity=0.6},finetune{epochs=20,lr=0.01,batch=16},remove-dead-code")
    assert context.interrupted is not None
    assert context.interrupted.name == "finetune"
    assert "finetune: interrupted: it ended early, with the best model so far" in remarks(context, "finetune")
    assert error(context.model, PROTO) < error(trained(PROTO, "prune-weights{sparsity=0.6}").model, PROTO)


def augmented(arrays: dict, random: np.random.Generator) -> dict:
    """Named by a test below: mirrors half of the images."""
    mirror = random.random(len(arrays["x"])) < 0.5
    return {"x": np.where(mirror[:, None, None, None], arrays["x"][..., ::-1], arrays["x"])}


def test_an_augmentation_of_ones_own(monkeypatch):
    monkeypatch.setitem(sys.modules, "own_augmentation", sys.modules[__name__])
    plain = trained(PROTO, f"{HALVED},finetune{{epochs=2,lr=0.01}}")
    context = trained(PROTO, f'{HALVED},finetune{{epochs=2,lr=0.01,augment="own_augmentation:augmented"}}')
    assert error(context.model, PROTO) < error(trained(PROTO, HALVED).model, PROTO)
    assert any((weights(plain.model)[name] != array).any() for name, array in weights(context.model).items())


def mixed(arrays: dict, random: np.random.Generator) -> dict:
    """Named by a test below: mixup, of samples and of their labels."""
    order, share = random.permutation(len(arrays["x"])), random.beta(0.5, 0.5)
    labels = np.eye(4)[arrays["labels"]]
    return {
        "x": share * arrays["x"] + (1 - share) * arrays["x"][order],
        "labels": share * labels + (1 - share) * labels[order],
    }


def as_shares(arrays: dict, random: np.random.Generator) -> dict:
    return {**arrays, "labels": np.eye(4)[arrays["labels"]]}


def without_inputs(arrays: dict, random: np.random.Generator) -> dict:
    return {"labels": arrays["labels"]}


def learnt_labels(augment: str) -> Context:
    proto = perceptron((16, 32, 4))
    data = samples(proto, 1000)
    context = Context(read(proto), data=Samples(data, data["x"][:, :4].argmax(1)))
    return run(context, f'finetune{{epochs=10,lr=0.01,loss=labels,augment="{augment}"}}')


def test_an_augmentation_that_mixes_samples_mixes_their_labels(monkeypatch):
    monkeypatch.setitem(sys.modules, "own_augmentation", sys.modules[__name__])
    fresh = samples(perceptron((16, 32, 4)), 200, seed=5)
    found = accuracy(Evaluator(learnt_labels("own_augmentation:mixed").model).run(fresh)["y"], fresh["x"][:, :4].argmax(1))
    assert found is not None
    assert found > 0.8  # 0.25 before


def test_labels_as_shares_teach_what_numbers_teach(monkeypatch):
    monkeypatch.setitem(sys.modules, "own_augmentation", sys.modules[__name__])
    plain, shares = weights(learnt_labels("").model), weights(learnt_labels("own_augmentation:as_shares").model)
    for name, array in plain.items():
        np.testing.assert_allclose(shares[name], array, rtol=1e-3, atol=1e-4)


def test_an_augmentation_that_leaves_out_an_input(monkeypatch):
    monkeypatch.setitem(sys.modules, "own_augmentation", sys.modules[__name__])
    with pytest.raises(DeburrError, match=r"E203\]: the augmentation leaves out an input, input 'x'"):
        learnt_labels("own_augmentation:without_inputs")


def test_an_augmentation_that_is_not_there():
    with pytest.raises(DeburrError, match=r"E203\]: no function 'nowhere:f', pass finetune.*No module named 'nowhere'"):
        trained(PROTO, 'prune-weights{sparsity=0.5},finetune{augment="nowhere:f"}')


def test_a_model_of_fixed_batch_trains_on_whole_batches():
    proto = conv_chain(batch=4)
    data = {"x": np.random.default_rng(0).standard_normal((30, 3, 8, 8)).astype(np.float32)}
    context = Context(read(proto), data=Samples(data))
    run(context, "clean,prune-weights{sparsity=0.5},finetune{epochs=2,lr=0.01,validate=0.3}")
    assert "fell from" in remarks(context, "finetune")[0]


def test_samples_of_several_sizes():
    proto = residual_block()
    for axis in (2, 3):
        proto.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = f"size_{axis}"
    random = np.random.default_rng(0)
    parts = [{"x": random.standard_normal((20, 3, size, size)).astype(np.float32)} for size in (8, 12)]
    context = Context(read(proto), data=Samples(parts[0], others=(parts[1],)))
    run(context, "clean,prune-weights{sparsity=0.5},finetune{epochs=2,lr=0.01,batch=8}")
    assert "fell from" in remarks(context, "finetune")[0]


@pytest.mark.parametrize(
    "option", ["epochs=0", "lr=0.0", "batch=0", "validate=1.0", "warmup=1.0", "patience=-1", "weight_decay=-1.0"]
)
def test_options_out_of_range(option):
    name = option.split("=")[0]
    with pytest.raises(DeburrError, match=rf"error\[E203\]: {name} is out of range, pass finetune"):
        trained(PROTO, f"finetune{{{option}}}")


def test_bfloat16_trains_too():
    pruned = trained(PROTO, HALVED)
    tuned = trained(PROTO, f"{HALVED},finetune{{epochs=5,lr=0.01,batch=16,precision=bfloat16}}")
    assert error(tuned.model, PROTO) < 0.5 * error(pruned.model, PROTO)


def test_a_model_without_weights_says_so():
    from models import branch_on_sum

    context = trained(branch_on_sum(), "finetune", count=8)
    assert remarks(context, "finetune") == ["finetune: graph 'tiny': nothing in it trains (it holds no float32 weights)"]


KILLED = """
import sys
sys.path[:0] = [{tests!r}, {tests!r} + "/passes"]
from models import residual_block
from training import context_of, run, weights
import numpy as np
from deburr.passes.recover.learning import trainer
trainer.SAVE_SECONDS = 0.0
context = run(context_of(residual_block()), {pipeline!r})
np.savez({out!r}, **weights(context.model))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "tuned",
    [
        f"{HALVED},finetune{{epochs=30,lr=0.01,batch=4}}",
        "clean,prune-finetune{criterion=l2,round_to=1,steps=4,epochs=10,lr=0.01,train_batch=4}",
        "clean,calibrate,scale-weights{bits=4},qat{epochs=24,lr=0.01,batch=4}",
    ],
    ids=["finetune", "prune-finetune", "qat"],
)
def test_kill_9_at_some_step_and_resume(tuned, tmp_path: Path):
    """The process dies for good, several times, at whatever it is doing."""
    tests = str(Path(__file__).parent.parent)
    (tmp_path / "state").mkdir()
    outs = [str(tmp_path / f"{name}.npz") for name in ("whole", "resumed")]
    pipelines = [tuned, tuned.removesuffix("}") + f",checkpoint={tmp_path}/state/it.npz}}"]
    scripts = [KILLED.format(tests=tests, pipeline=text, out=out) for text, out in zip(pipelines, outs, strict=True)]
    subprocess.run([sys.executable, "-c", scripts[0]], check=True)
    died = 0
    for seconds in (0.3, 0.6, 0.4):
        process, before = subprocess.Popen([sys.executable, "-c", scripts[1]]), last_written(tmp_path / "state")
        while process.poll() is None and last_written(tmp_path / "state") == before:
            time.sleep(0.02)
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
        died += process.wait() == -signal.SIGKILL
    subprocess.run([sys.executable, "-c", scripts[1]], check=True)
    assert died == 3
    with np.load(outs[0]) as whole, np.load(outs[1]) as resumed:
        for name in whole.files:
            np.testing.assert_array_equal(whole[name], resumed[name])


def last_written(folder: Path) -> int:
    """When, of the states of a run; those of steps that are done go away."""
    found = [0]
    for path in folder.glob("it*.npz"):
        with contextlib.suppress(FileNotFoundError):
            found.append(path.stat().st_mtime_ns)
    return max(found)


def test_the_curve_of_the_losses(tmp_path):
    trained(PROTO, f"{HALVED},finetune{{epochs=2,lr=0.01,curve={tmp_path}/loss.png}}")
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")


def test_a_curve_of_no_known_kind_is_refused_before_training(tmp_path):
    with pytest.raises(DeburrError) as caught:
        trained(PROTO, f"finetune{{curve={tmp_path}/loss.bmp}}")
    assert str(caught.value) == f"error[E203]: no such kind of picture, {tmp_path}/loss.bmp; end its name in .png, .svg or .pdf"


def test_a_teacher_from_a_file(tmp_path):
    """Where pruning and training are two runs, on data of their own."""
    onnx.save(PROTO, tmp_path / "original.onnx")
    pruned = trained(PROTO, HALVED)
    proto = to_proto(pruned.model)
    tuned = trained(proto, f"finetune{{epochs=8,lr=0.01,batch=16,teacher={tmp_path}/original.onnx}}")
    assert error(tuned.model, PROTO) < 0.3 * error(pruned.model, PROTO)


def test_a_teacher_of_another_kind_is_refused(tmp_path):
    onnx.save(perceptron(), tmp_path / "other.onnx")
    other = residual_block()
    other.graph.input[0].name = other.graph.node[0].input[0] = "image"
    with pytest.raises(DeburrError, match=r"E206\]: the teacher's inputs are others, .*other.onnx: x differ; a teacher has"):
        trained(other, f"finetune{{teacher={tmp_path}/other.onnx}}")
