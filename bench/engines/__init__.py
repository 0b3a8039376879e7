"""Other engines with the same weights, prompts and machine: what they read of a head, and how fast they decode."""
