import errno
import warnings

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


def test_notes_are_said_also_through_typers_own_ending(capsys):
    kept = KeyboardInterrupt()
    kept.add_note("2 datasets are kept.")
    end = SystemExit(130)
    end.__context__ = RuntimeError("exit")
    end.__context__.__cause__ = kept
    assert ending(end, capsys) == (130, "Interrupted. 2 datasets are kept.\n")
    mistake = Mistake("row 3 has no answer.")
    mistake.add_note("2 datasets are kept.")
    assert ending(mistake, capsys) == (2, "Error: row 3 has no answer.\n2 datasets are kept.\n")


def test_of_several_processes_only_the_first_speaks(capsys, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    assert ending(Mistake("no."), capsys) == (2, "")
    assert ending(KeyboardInterrupt(), capsys) == (130, "")
    monkeypatch.setenv("RANK", "0")
    assert ending(Mistake("no."), capsys) == (2, "Error: no.\n")


@pytest.mark.filterwarnings("error")
def test_own_warnings_are_plain_lines_and_others_are_left_alone(capsys):
    with terminal.plain_warnings("tugofwar"):
        warnings.warn_explicit("weight a falls back", UserWarning, terminal.__file__, 7, module="tugofwar.terminal")
        with pytest.raises(DeprecationWarning):
            warnings.warn_explicit("old", DeprecationWarning, "elsewhere.py", 7, module="elsewhere")
    assert capsys.readouterr().err == "Warning: weight a falls back\n"
    with pytest.raises(UserWarning):
        warnings.warn_explicit("weight a falls back", UserWarning, terminal.__file__, 7, module="tugofwar.terminal")


@pytest.mark.parametrize("fault", [ZeroDivisionError("1/0"), SafetensorError("header too small"), OSError("odd")])
def test_a_fault_of_ours_keeps_its_traceback(fault):
    def app():
        raise fault

    with pytest.raises(type(fault)):
        terminal.run(app, (Mistake,))
