"""What the training commands refuse in a sentence."""


class DataError(ValueError):
    """Training data that cannot be used."""
