"""Training draft heads: token rows, target features, the unrolled loop, checkpoints."""
