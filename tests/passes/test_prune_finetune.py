"""The loop of pruning and training: how much goes, what is kept, and how it ends early."""

import numpy as np
import pytest
from models import conv_chain, residual_block

from deburr.ir.errors import DeburrError
from deburr.ir.onnx_writer import to_proto
from deburr.passes.analysis.cost import cost
from deburr.passes.core import Context
from deburr.passes.recover.prune_finetune import PruneFinetune

from .training import Stopped, context_of, counting, error, remarks, run, stop_after, trained, weights

PROTO = residual_block(shortcut=True)
CHEAP = "criterion=l2,recover=none,round_to=1"


def macs(context: Context) -> int:
    return sum(cost(context.model.graph, context).macs.values())


def test_half_of_the_work_goes_and_the_rest_is_trained():
    options = f"{CHEAP},ratio=0.5,steps=2"
    gradual = trained(PROTO, f"clean,prune-gradually{{{options}}}")
    tuned = trained(PROTO, f"clean,prune-finetune{{{options},epochs=4,lr=0.01,train_batch=16}}")
    assert macs(tuned) <= 0.55 * macs(trained(PROTO, "clean"))
    assert error(tuned.model, PROTO) < 0.8 * error(gradual.model, PROTO)


def test_a_step_goes_on_from_its_best_epoch():
    """Here that is the one before training, which destroys everything."""
    options = f"{CHEAP},ratio=0.5,steps=2"
    untrained, tuned = trained(PROTO, f"clean,prune-gradually{{{options}}}"), context_of(PROTO)
    tuned.progress = counting(batches := [])
    run(tuned, f"clean,prune-finetune{{{options},epochs=1,lr=1000.0,train_batch=16}}")
    assert len(batches) == 10
    for name, array in weights(untrained.model).items():
        np.testing.assert_array_equal(weights(tuned.model)[name], array)


@pytest.mark.parametrize(
    ("schedule", "gone"), [("linear", [0.15, 0.3, 0.45, 0.6]), ("cubic", [0.346875, 0.525, 0.590625, 0.6])]
)
def test_schedules(schedule, gone):
    made = PruneFinetune(ratio=0.6, steps=4, schedule=schedule)
    assert [made.gone_after(step) for step in range(1, 5)] == pytest.approx(gone)
    if schedule == "cubic":
        assert [PruneFinetune(ratio=0.6, steps=4, schedule="agp").gone_after(step) for step in range(1, 5)] == pytest.approx(
            gone
        )


def test_a_step_that_breaks_the_floor_is_not_kept():
    context = trained(PROTO, f"clean,prune-finetune{{{CHEAP},ratio=0.95,steps=3,epochs=1,min_sqnr=12}}")
    assert any("breaks the floor (SQNR of at least 12 dB)" in text for text in remarks(context, "prune-finetune"))
    assert 10 * np.log10(1 / error(context.model, PROTO)) > 9  # on other samples than those that the floor was measured on


def test_ctrl_c_in_the_middle_of_a_step_keeps_the_steps_that_are_done():
    context, steps = context_of(PROTO), []

    def progress(items, total, description):
        for item in items:
            yield item
            if isinstance(description, str) and description.startswith("epoch"):
                steps.append(item)
                if len(steps) == 9:  # an epoch has 6 steps
                    raise KeyboardInterrupt

    context.progress = progress
    run(context, f"clean,prune-finetune{{{CHEAP},ratio=0.6,steps=3,epochs=1,train_batch=16,schedule=linear}}")
    assert context.interrupted is not None
    assert context.interrupted.name == "prune-finetune"
    assert 0.75 < macs(context) / macs(trained(PROTO, "clean")) < 0.85


def test_training_options_are_checked_before_anything_is_pruned():
    context = context_of(conv_chain())
    with pytest.raises(DeburrError, match=r"error\[E203\]: lr is out of range, pass finetune"):
        run(context, "prune-finetune{lr=0.0}")
    assert macs(context) == macs(context_of(conv_chain()))


STEPS = f"{CHEAP},ratio=0.6,steps=3,epochs=2,lr=0.01,train_batch=16,schedule=linear"


def written(context: Context) -> bytes:
    return to_proto(context.model).SerializeToString(deterministic=True)


@pytest.mark.parametrize("batches", [1, 7, 10, 11, 24, 30])  # 10 in a step: in the first one, at its end, in the last one
def test_a_run_that_dies_goes_on_to_the_same_bits(batches, tmp_path, monkeypatch):
    from deburr.passes.recover.learning import trainer

    monkeypatch.setattr(trainer, "SAVE_SECONDS", 0.0)
    whole = trained(PROTO, f"clean,prune-finetune{{{STEPS}}}")
    pipeline = f"clean,prune-finetune{{{STEPS},checkpoint={tmp_path}/state.npz}},compensate"
    stopped = context_of(PROTO)
    stopped.progress = stop_after(batches, Stopped)
    with pytest.raises(DeburrError, match="Stopped"):
        run(stopped, pipeline)
    resumed, counted = context_of(PROTO), []
    resumed.progress = counting(counted)
    run(resumed, pipeline)
    assert len(counted) == 30 - batches + (batches % 5 == 0)  # the last of an epoch is saved with what it is measured as
    assert written(resumed) == written(run(whole, "compensate"))  # which also needs to know where the channels went
    assert remarks(resumed, "prune-finetune") == remarks(whole, "prune-finetune")
    assert [path.name for path in tmp_path.iterdir()] == ["state.npz"]


def test_a_run_that_is_done_is_not_repeated(tmp_path):
    pipeline = f"clean,prune-finetune{{{STEPS},checkpoint={tmp_path}/state.npz}}"
    whole, again, counted = trained(PROTO, pipeline), context_of(PROTO), []
    again.progress = counting(counted)
    run(again, pipeline)
    assert (written(again), counted) == (written(whole), [])


def test_a_training_left_by_a_process_that_died_is_in_nobodys_way(tmp_path):
    """It dies once the step is written, and before the training of the step is gone."""
    pipeline = f"clean,prune-finetune{{{STEPS},checkpoint={tmp_path}/state.npz}}"
    stopped = context_of(PROTO)
    stopped.progress = stop_after(11, Stopped)
    with pytest.raises(DeburrError, match="Stopped"):
        run(stopped, pipeline)
    (tmp_path / "state.step-1.npz").write_bytes(b"torn")
    assert written(run(context_of(PROTO), pipeline)) == written(trained(PROTO, f"clean,prune-finetune{{{STEPS}}}"))
    assert [path.name for path in tmp_path.iterdir()] == ["state.npz"]


@pytest.mark.parametrize("other", ["lr=0.02", "ratio=0.5", "seed", "data"])
def test_a_checkpoint_of_another_run_is_refused(other, tmp_path):
    end = f"checkpoint={tmp_path}/state.npz}}"
    trained(PROTO, f"clean,prune-finetune{{{STEPS},{end}")
    options = {"seed": {"seed": 1}, "data": {"count": 95}}.get(other, {})
    changed = STEPS.replace("lr=0.01", other) if "lr" in other else STEPS.replace("ratio=0.6", other)
    with pytest.raises(DeburrError) as caught:
        trained(PROTO, f"clean,prune-finetune{{{changed if '=' in other else STEPS},{end}", **options)
    assert str(caught.value).startswith(f"error[E203]: the checkpoint is of another training, {tmp_path}/state.npz")
