"""The reader of GGUF files gives what gguf's own gives, and refuses a header that leads beyond the end of its file."""

import struct
from pathlib import Path

import gguf
import numpy as np
import pytest

from students.embedded_teacher import QuickGgufReader

TEXTS = ["", "a", "Grüße", "🐝 and more"]


@pytest.fixture(params=list(gguf.GGUFEndian), ids=lambda order: str(order.name))
def file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    writer = gguf.GGUFWriter(tmp_path / "small.gguf", "llama", endianess=request.param)
    writer.add_uint32("number", 7)
    writer.add_string("text", TEXTS[2])
    writer.add_array("texts", TEXTS)
    writer.add_array("numbers", [1, -2, 2**20])
    writer.add_array("floats", [0.5, -1.25])
    writer.add_array("flags", [True, False, True])
    writer.add_array("more texts", [*TEXTS, "the last"])
    writer.add_tensor("weights", np.arange(12, dtype=np.float32).reshape(3, 4))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return tmp_path / "small.gguf"


def test_fields_and_tensors_are_those_of_the_library(file: Path) -> None:
    ours, theirs = QuickGgufReader(file), gguf.GGUFReader(file)
    assert ours.fields["more texts"].contents() == [*TEXTS, "the last"]
    assert [(name, field.contents()) for name, field in ours.fields.items()] == [
        (name, field.contents()) for name, field in theirs.fields.items()
    ]
    (own,), (other,) = ours.tensors, theirs.tensors
    assert (own.name, own.tensor_type, own.shape.tolist()) == (other.name, other.tensor_type, other.shape.tolist())
    assert np.array_equal(own.data, other.data)


def test_a_header_that_is_cut_off_anywhere_is_refused(file: Path, tmp_path: Path) -> None:
    whole = file.read_bytes()
    for end in range(1, whole.index(b"the last") + len(b"the last"), 7):
        (tmp_path / "cut.gguf").write_bytes(whole[:end])
        with pytest.raises(ValueError, match="longer than its"):
            QuickGgufReader(tmp_path / "cut.gguf")


def test_a_key_that_is_there_twice_is_refused(file: Path) -> None:
    file.write_bytes(file.read_bytes().replace(b"floats", b"number"))
    with pytest.raises(ValueError, match="number twice"):
        QuickGgufReader(file)


@pytest.mark.parametrize("announced", [2**40, 2**63, 2**64 - 1])
@pytest.mark.parametrize("name", ["texts", "numbers", "a text of the list"])
def test_an_announced_length_beyond_the_file_is_refused_at_once(file: Path, name: str, announced: int) -> None:
    whole = bytearray(file.read_bytes())
    order = ">" if QuickGgufReader(file).endianess == gguf.GGUFEndian.BIG else "<"
    if name.startswith("a text"):
        at = whole.index(b"a", whole.index(b"texts") + 5) - 8  # the length of the text `a`
    else:
        at = whole.index(name.encode()) + len(name) + 4 + 4
    assert struct.unpack_from(f"{order}Q", whole, at)[0] < 6
    struct.pack_into(f"{order}Q", whole, at, announced)
    file.write_bytes(whole)
    with pytest.raises(ValueError, match="longer than its"):
        QuickGgufReader(file)
