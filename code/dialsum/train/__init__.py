"""Training: the loop, what it learns from, the loss, guards, checkpoints, tracking."""
