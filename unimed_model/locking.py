"""A lock on a file that the system drops when the process ends, however it ends."""

import errno
import sys

from .errors import UserError

_UNKNOWN = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)
"""Some network file systems know no locks; what is done there is none the worse for it."""


def take_lock(descriptor: int, taken: str) -> None:
    """Lock a file until its descriptor is closed.

    Args:
        descriptor: of a file that is open for writing.
        taken: what to say if another process holds the lock.

    Raises:
        UserError: another process holds it.
    """
    if sys.platform == "win32":
        return
    import fcntl

    try:
        # not flock, which data workers would inherit and hold on to after their parent was killed
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):  # systems differ
        raise UserError(taken) from None
    except OSError as error:
        if error.errno not in _UNKNOWN:
            raise
