"""The two ways in which a command fails; both end in one line on standard error."""


class Failure(Exception):
    """Something outside the input went wrong (a download, the disk)."""

    status = 1


class InputError(Failure):
    """Bad usage or bad input: the message names the file, the line and what would be right."""

    status = 2
