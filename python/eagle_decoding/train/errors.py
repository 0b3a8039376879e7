"""What the training commands refuse in a sentence."""


class DataError(ValueError):
    """Training data that cannot be used."""


class NoTemplateError(DataError):
    """A conversation for a target without a chat template: another conversation fares no better."""
