import copyreg
import os
import pickle
import tracemalloc
from collections import OrderedDict
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from unimed_model.data import pickles
from unimed_model.data.files import noting
from unimed_model.data.pickles import read_pickle
from unimed_model.errors import UserError

PROTOCOLS = range(6)
SCALARS = st.none() | st.booleans() | st.integers(-(2**200), 2**200) | st.floats(allow_nan=False) | st.text()
KEYS = st.text() | st.integers()


def _nested(scalars: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.recursive(
        scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=12
    )


def _written(folder: Path, content: bytes) -> Path:
    path = folder / "third_party.pkl"
    path.write_bytes(content)
    return path


def _read(path: Path) -> tuple[Any, str | None]:
    """The data, or the sentence instead of them."""
    try:
        return read_pickle(path), None
    except UserError as error:
        return None, str(error)


class _Calls:
    """Pickled, it asks for `os.mkdir` of a folder to be called."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.trace),)


class _Stateful:
    def __setstate__(self, state: str) -> None:
        os.mkdir(state)  # noqa: PTH102

    def __getstate__(self) -> str:
        return "/nowhere"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=_nested(SCALARS), protocol=st.sampled_from(PROTOCOLS))
def test_data_come_back_from_every_protocol(tmp_path: Path, data: Any, protocol: int) -> None:
    assert read_pickle(_written(tmp_path, pickle.dumps(data, protocol))) == data


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=_nested(SCALARS | st.binary()), protocol=st.sampled_from([3, 4, 5]))
def test_bytes_come_back_from_the_protocols_that_have_them(tmp_path: Path, data: Any, protocol: int) -> None:
    assert read_pickle(_written(tmp_path, pickle.dumps(data, protocol))) == data


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=300)
@given(
    data=_nested(SCALARS),
    protocol=st.sampled_from(PROTOCOLS),
    changes=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=4),
    cut=st.integers(0, 10_000),
)
def test_damage_gives_data_or_one_sentence(
    tmp_path: Path, data: Any, protocol: int, changes: list[tuple[int, int]], cut: int
) -> None:
    content = bytearray(pickle.dumps(data, protocol))
    for place, value in changes:
        content[place % len(content)] = value
    path = _written(tmp_path, bytes(content[: cut % (len(content) + 1)]))
    found, said = _read(path)
    if said is None:
        assert type(found) in (list, dict, str, int, float, bytes, bool, type(None))
    else:
        assert said.startswith(str(path))
        assert "\n" not in said


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=300)
@given(content=st.binary(max_size=60))
def test_any_bytes_give_data_or_one_sentence(tmp_path: Path, content: bytes) -> None:
    said = _read(_written(tmp_path, content))[1]
    assert said is None or "third_party.pkl" in said


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_call_is_refused_and_named_and_not_made(tmp_path: Path, protocol: int) -> None:
    trace = tmp_path / "called"
    content = pickle.dumps([{"img_id": "train_0000", "label": _Calls(trace)}], protocol)
    with pytest.raises(
        UserError, match=rf"third_party\.pkl is refused: it asks for code to be run \({os.name}\.mkdir\)"
    ):
        read_pickle(_written(tmp_path, content))
    assert not trace.exists()
    pickle.loads(content)
    assert trace.exists(), "the pickle is harmless, so its refusal proves nothing"


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    "value", [_Stateful(), OrderedDict(a=1), Decimal(1), {1, 2}, 1j, Path("/"), bytearray(b"a"), len]
)
def test_objects_are_refused(tmp_path: Path, value: object, protocol: int) -> None:
    with pytest.raises(UserError, match="is refused"):
        read_pickle(_written(tmp_path, pickle.dumps([value], protocol)))


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (b"cos\nsystem\n(S'true'\ntR.", "os.system"),
        (b"(S'true'\nios\nsystem\n.", "os.system"),
        (b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x04true\x85R.", "os.system"),
        (b"\x80\x04\x8c\x02os\x94\x8c\x06system\x94h\x00h\x01\x93.", "os.system"),
        (b"\x80\x02cbuiltins\neval\n.", "builtins.eval"),
        (b"\x80\x04\x8c\x08builtins\x8c\x0cgetattr.evil\x93.", "builtins.getattr.evil"),
    ],
)
def test_every_way_to_name_a_global_is_refused(tmp_path: Path, content: bytes, name: str) -> None:
    with pytest.raises(UserError, match=r"asks for code to be run \(" + name.replace(".", r"\.") + r"\)"):
        read_pickle(_written(tmp_path, content))


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x02]N}b.",  # BUILD on a list
        b"\x80\x04NN\x81.",  # NEWOBJ
        b"\x80\x04NN}\x92.",  # NEWOBJ_EX
        b"(NNo.",  # OBJ
        b"Pname\n.",  # persistent ids
        b"\x80\x02Nq\x00Q.",
        b"\x80\x04\x8c\x01a\x93.",  # STACK_GLOBAL without a second text
        b"c\x1b[31m\nx\n.",  # a name that would colour the terminal
    ],
)
def test_calls_without_a_name_are_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(UserError, match="asks for code to be run, where only lists"):
        read_pickle(_written(tmp_path, content))


@pytest.fixture
def extension() -> Iterator[int]:
    copyreg.add_extension("os", "getpid", 200)
    pickle.loads(b"\x80\x02\x82\xc8.")  # now it stands in the cache, from which no name is looked up
    yield 200
    copyreg.remove_extension("os", "getpid", 200)


def test_registered_extensions_are_refused(tmp_path: Path, extension: int) -> None:
    for content in (b"\x80\x02\x82\xc8.", b"\x80\x02\x83\xc8\x00.", b"\x80\x02\x84\xc8\x00\x00\x00."):
        assert pickle.loads(content) is os.getpid
        with pytest.raises(UserError, match="asks for code to be run"):
            read_pickle(_written(tmp_path, content))


def test_the_unpickler_itself_looks_nothing_up(tmp_path: Path) -> None:
    unpickler = pickles._DataUnpickler(pickle.dumps(os.getpid), tmp_path)
    with pytest.raises(UserError, match=rf"{os.name}\.getpid"):
        unpickler.load()
    with pytest.raises(UserError, match="asks for code"):
        pickles._DataUnpickler(b"Pname\n.", tmp_path).load()


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x04]r\xff\xff\xff\x7f.",  # a memo of 2^31 entries
        b"]p2000000000\n.",
        b"]p-1\n.",
        b"\x80\x04\x8e\xff\xff\xff\xff\xff\x00\x00\x00abc.",  # bytes of 2^40
        b"\x80\x04\x8d\xff\xff\xff\xff\xff\x00\x00\x00abc.",  # a text of 2^40
        b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7f]",  # a frame of 2^63
        b"\x80\x02\x8b\xff\xff\xff\x7fabc.",  # an integer of 2^31 bytes
        b"T\xff\xff\xff\x7fabc.",
        b"I" + b"9" * 100_000 + b"\n.",
    ],
)
def test_a_few_bytes_do_not_take_much_memory(tmp_path: Path, content: bytes) -> None:
    path = _written(tmp_path, content)
    tracemalloc.start()
    try:
        with pytest.raises(UserError):
            read_pickle(path)
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


def test_nested_tuples_are_not_hashed(tmp_path: Path) -> None:
    # A dictionary's key of 60 levels, each twice the one below it: its hash takes 2^60 steps.
    content = b"\x80\x02})" + b"q\x00h\x00h\x00\x86" * 60 + b"Ns."
    with pytest.raises(UserError, match=r"holds more than lists, dictionaries, texts and numbers \(step EMPTY_TUPLE\)"):
        read_pickle(_written(tmp_path, content))


def test_deep_nesting_is_no_recursion(tmp_path: Path) -> None:
    depth = 200_000
    found = read_pickle(_written(tmp_path, b"\x80\x04" + b"]" * depth + b"a" * (depth - 1) + b"."))
    levels = 1
    while found:
        found, levels = found[0], levels + 1
    assert levels == depth


def test_what_is_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _written(tmp_path, pickle.dumps(list(range(1000))))
    assert len(read_pickle(path)) == 1000
    monkeypatch.setattr(pickles, "MOST_STEPS", 900)
    with pytest.raises(UserError, match="far more memory"):
        read_pickle(path)
    monkeypatch.setattr(pickles, "MOST_BYTES", 900)
    with pytest.raises(UserError, match="over 900"):
        read_pickle(path)


def test_missing_truncated_and_wrong_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"absent\.pkl is missing"):
        read_pickle(tmp_path / "absent.pkl")
    with pytest.raises(UserError, match="cannot be read"):
        read_pickle(tmp_path)
    for content in (b"", pickle.dumps([1, 2, 3])[:-1], b"PK\x03\x04 an archive", b"<!DOCTYPE html>", b"0.", b"h\x05."):
        with pytest.raises(UserError, match=r"third_party\.pkl is (not a complete, valid pickle|refused)"):
            read_pickle(_written(tmp_path, content))


def test_what_was_read_is_noted(tmp_path: Path) -> None:
    path = _written(tmp_path, pickle.dumps([]))
    with noting() as noted:
        read_pickle(path)
    assert noted == {path}
