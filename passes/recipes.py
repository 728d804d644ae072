"""Named pipelines. A recipe is a string; `deburr.passes.registry` gives it its name."""

from __future__ import annotations

# What every other pipeline starts with: fewer operators, the same numbers.
CLEAN = "fixpoint(fold-constants,remove-identity,fold-batch-norm,explicit-padding,remove-dead-code)"

# Two thirds of the parameters, because int8 then gives the other factor of four.
_SMALLER = "prune-channels{ratio=0.65,criterion=reconstruction,budget=parameters},compensate"

PRUNE = f"clean,{_SMALLER}"

INT8 = "clean,calibrate,scale-weights,correct-bias,insert-qdq,remove-dead-code"

# Ranges are measured on the model as it will run, so calibration comes after pruning.
PRUNE_INT8 = f"clean,{_SMALLER},calibrate,scale-weights,correct-bias,insert-qdq,remove-dead-code"
