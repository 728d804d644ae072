"""Named pipelines. A recipe is a string; `deburr.passes.registry` gives it its name."""

from __future__ import annotations

# What every other pipeline starts with: fewer operators, the same numbers.
CLEAN = "fixpoint(fold-constants,remove-identity,fold-batch-norm,fold-affine,explicit-padding,fold-pad,remove-dead-code)"

# Half of the work goes, and with it three quarters of the parameters: on the demo's model 0.6 points of accuracy. Counts are
# rounded to the widest vector (16 lanes); narrower targets lose nothing by that.
_SMALLER = "prune-channels{criterion=reconstruction,per_cost=true,round_to=16},compensate"

PRUNE = f"clean,{_SMALLER}"

# Second-order rounding takes a minute on a large network, and halves the error that int8 weights cost.
_INTEGERS = "calibrate,scale-weights,round-weights,insert-qdq,remove-dead-code"

INT8 = f"clean,{_INTEGERS}"

# Ranges are measured on the model as it will run, so calibration comes after pruning.
PRUNE_INT8 = f"clean,{_SMALLER},{_INTEGERS}"
