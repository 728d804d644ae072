"""What computes in torch: the model as a module, rounding that gradients pass through, losses, and the loop of training."""
