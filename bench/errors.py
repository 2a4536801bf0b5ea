"""What can keep a contender out of a workload."""


class ContenderError(Exception):
    """A contender is not installed, does not start, or answers wrongly: it is named with this reason, and left out."""
