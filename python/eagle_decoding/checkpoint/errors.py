"""The one error that reading, checking and writing draft heads raises."""


class CheckpointError(ValueError):
    """A draft head that cannot be read, does not fit its target, or did not survive writing."""
