import errno

import pytest
from safetensors import SafetensorError

from tugofwar import terminal


class Mistake(Exception):
    pass


def ending(error, capsys):
    def app():
        raise error

    with pytest.raises(SystemExit) as end:
        terminal.run(app, (Mistake,))
    captured = capsys.readouterr()
    assert captured.out == ""
    return end.value.code, captured.err


@pytest.mark.parametrize(
    ("error", "status", "says"),
    [
        (Mistake("row 3 has no answer."), 2, "Error: row 3 has no answer.\n"),
        (FileNotFoundError(errno.ENOENT, "No such file", "a.json"), 2, "Error: No such file (a.json).\n"),
        (OSError(errno.ENOSPC, "No space left on device"), 2, "The disk is full; free some room"),
        (OSError(errno.ENOSPC, "No space left on device", "a.npz"), 2, "The disk is full (a.npz)"),
        (SafetensorError("I/O error: No space left on device (os error 28)"), 2, "The disk is full; free some room"),
        (KeyboardInterrupt(), 130, "Interrupted"),
        (SystemExit(130), 130, "Interrupted"),
        (SystemExit(0), 0, ""),
    ],
)
def test_what_a_user_can_cause_ends_with_a_status_and_a_sentence(error, status, says, capsys):
    code, err = ending(error, capsys)
    assert code == status
    assert says in err
    assert err.count("\n") <= 1


@pytest.mark.parametrize("fault", [ZeroDivisionError("1/0"), SafetensorError("header too small"), OSError("odd")])
def test_a_fault_of_ours_keeps_its_traceback(fault):
    def app():
        raise fault

    with pytest.raises(type(fault)):
        terminal.run(app, (Mistake,))
