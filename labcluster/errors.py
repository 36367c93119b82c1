"""What can go wrong, said so that the reader knows what to do. Only these reach a user."""


class LabError(Exception):
    """The base of all: its text is the message."""


class NotUpError(LabError):
    """A cluster or a host that was asked for is not there."""


class BusyError(LabError):
    """Another lab command is at work on the same thing."""


class StepError(LabError):
    """A step of setting up failed or took too long; the text ends with what its log said last."""
