import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unimed_model.step_lines import StepLines, step_of_csv, step_of_json

HEAD = "step,stage,weight\n"


def json_lines(steps):
    return [
        json.dumps({"step": step, "dataset": "größe" if step % 2 else "b"}, ensure_ascii=False) + "\n" for step in steps
    ]


def csv_lines(steps):
    return [f"{step},main,{0.1 * step!r}\n" for step in steps for _ in range(2)]


@pytest.mark.parametrize(("made", "step_of", "head"), [(json_lines, step_of_json, ""), (csv_lines, step_of_csv, HEAD)])
@given(steps=st.integers(0, 12), torn=st.integers(0, 10_000), to=st.integers(0, 13))
def test_any_torn_file_is_cut_back_to_its_whole_lines(tmp_path_factory, made, step_of, head, steps, torn, to):
    path = tmp_path_factory.mktemp("torn") / "lines"
    content = (head + "".join(made(range(1, steps + 1)))).encode()[:torn]
    path.write_bytes(content)
    lines = StepLines(path, step_of, head)
    lines.rewind(to)
    # the oracle: every line that ends, and whose step is told by its position
    ended = content.split(b"\n")[:-1][1 if head else 0 :]
    each = 2 if head else 1
    kept = [line + b"\n" for number, line in enumerate(ended) if number // each + 1 <= to]
    assert (path.read_bytes() if path.exists() else None) == (head.encode() + b"".join(kept) if kept else None)
    # what training writes anew makes the file that was never interrupted
    done = len(kept) // each
    if len(kept) % each == 0:
        lines.append("".join(made(range(done + 1, 13))))
        lines.close()
        assert path.read_text() == head + "".join(made(range(1, 13)))
    assert [p.name for p in path.parent.iterdir() if p.name != "lines"] == []


@given(position=st.integers(0, 60), damage=st.binary(min_size=1, max_size=4))
def test_damage_in_the_middle_costs_only_what_comes_after(tmp_path_factory, position, damage):
    path = tmp_path_factory.mktemp("damaged") / "lines"
    first, rest = "".join(json_lines([1, 2])).encode(), "".join(json_lines([3, 4])).encode()
    path.write_bytes(first + b"\0" + damage.replace(b"\n", b"") + rest)
    lines = StepLines(path, step_of_json)
    lines.rewind(9)
    assert path.read_bytes() == first


def test_a_line_is_in_the_file_before_append_returns(tmp_path):
    lines = StepLines(tmp_path / "lines", step_of_json)
    assert not (tmp_path / "lines").exists()
    for step in (1, 2):
        lines.append("".join(json_lines([step])))
        assert (tmp_path / "lines").read_text() == "".join(json_lines(range(1, step + 1)))
    lines.close()


def test_the_head_is_written_once(tmp_path):
    for step in (1, 2):
        lines = StepLines(tmp_path / "lines", step_of_csv, HEAD)
        lines.append(f"{step},main,0.5\n")
        lines.close()
    assert (tmp_path / "lines").read_text() == HEAD + "1,main,0.5\n2,main,0.5\n"


def test_a_file_of_another_form_is_not_kept(tmp_path):
    (tmp_path / "lines").write_text("1,main,0.5\n")
    StepLines(tmp_path / "lines", step_of_csv, HEAD).rewind(3)
    assert not (tmp_path / "lines").exists()


def test_a_full_disk_names_the_file_and_does_not_fail_once_more_at_the_end(full_disk):
    lines = StepLines(full_disk, step_of_json)
    with pytest.raises(OSError, match="No space left") as caught:
        lines.append("x" * 10)
    assert caught.value.filename == str(full_disk)
    lines.close()


@pytest.fixture
def full_disk(tmp_path):
    from pathlib import Path

    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full to stand for a full disk")
    (tmp_path / "lines").symlink_to("/dev/full")
    return tmp_path / "lines"
