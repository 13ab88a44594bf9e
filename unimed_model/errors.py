"""What a user can mend: shown as one sentence, without a traceback, with exit status 2."""


class UserError(Exception):
    """Something the caller can put right; the message names what is wrong, where, and what would be right."""


class AbsentError(UserError):
    """What was asked for is not in the data root; other parts of the same dataset may be."""
