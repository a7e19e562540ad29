from pathlib import Path

import polars as pl
import pytest

from core.sample import Candidate, Message, Sample, SampleStatus, Seed, TokenUsage, conversation_digest
from core.storage.sample_files import read_samples, write_samples

PLAIN = ("role", "content", "name", "tool_calls")
ASKED = Message(role="user", content="What is it?")
ANSWERED = Message(role="assistant", content="A bee.")
THOUGHT = ANSWERED.model_copy(update={"reasoning": "It has wings.\nSo it is a bee."})
SHOWN = ASKED.model_copy(update={"images": ("https://example.com/bee.png", "data:image/png;base64,iVBORw0=")})


def sample(number: int, *messages: Message) -> Sample:
    name = f"s-{number:06d}"
    return Sample(
        id=name, seed=Seed(id=name, data={}), state=SampleStatus.kept, candidate=Candidate(messages=list(messages)),
        revisions=0, turns=[], critiques=[], verdicts=[], usage=TokenUsage(),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("samples", "fields"),
    [
        ([], PLAIN),
        ([sample(0, ASKED, ANSWERED)], PLAIN),
        ([sample(0, ASKED, ANSWERED), sample(1, ASKED, THOUGHT)], (*PLAIN, "reasoning")),
        ([sample(0, SHOWN, ANSWERED)], (*PLAIN, "images")),
        ([sample(0, SHOWN, THOUGHT), sample(1, ASKED)], (*PLAIN, "reasoning", "images")),
    ],
)
def test_a_file_has_thinking_and_images_only_if_a_message_has(
    samples: list[Sample], fields: tuple[str, ...], tmp_path: Path
) -> None:
    file = tmp_path / "samples.parquet"
    write_samples(file, samples)
    turns = pl.read_parquet_schema(file)["messages"]
    assert isinstance(turns, pl.List)
    assert isinstance(turns.inner, pl.Struct)
    assert tuple(field.name for field in turns.inner.fields) == fields
    assert read_samples(file) == samples, "nothing is lost"


def test_a_digest_is_of_the_conversation_and_its_images_not_of_the_thinking() -> None:
    recorded = "3acc36d277dc6c1d"  # by a version without thinking
    assert conversation_digest([ASKED, THOUGHT]) == conversation_digest([ASKED, ANSWERED]) == recorded
    assert conversation_digest([SHOWN, ANSWERED]) != recorded
