"""Training: input, the loop, the optimizer of the protocol, checkpoints."""
