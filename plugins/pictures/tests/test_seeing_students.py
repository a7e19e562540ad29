"""A student that sees: what it reads of an image, that it learns from images, and that llama.cpp computes the same."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import gguf
import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from safetensors.torch import load_file
from transformers import LlamaForCausalLM, PreTrainedTokenizerBase

from core.config.students import StudentConfig
from core.config.teachers import TeacherConfig
from core.errors import ProviderError, UsageError
from core.runs.student_records import StudentRecord
from core.sample import Message
from core.shared_options import EMBEDDER_FILE, PROJECTOR_FILE
from core.weights.gguf_files import ImageLimits, read_image_limits
from plugins.pictures.config import SightStep
from plugins.pictures.seeing.embedder import (
    ImagePatches,
    add_image_embedder,
    build_image_mask,
    collect_patches,
    embed_images,
)
from students.chat_encoding import (
    IMAGE_MARKER,
    EncodedConversation,
    UnusableReason,
    encode_conversation,
)
from students.comparison import measure_folder_loss, write_untrained_student
from students.gguf_export import export_gguf, read_student
from students.predictions import TokenBatch, build_batch, predict_tokens, save_model
from students.start_model import StartModel
from students.student_folder import FinishedTraining, build_model_card
from students.training.checkpoint import locate_checkpoint
from students.training.student_training import train_student
from students.training_data import TrainingData, encode_and_split
from teachers.local_llama import fit_message_images, projector_settings, start_local_server
from teachers.openai_chat import build_messages
from tests.students.conftest import quiet, saved, tiny_llama, tiny_tokenizer
from tests.support.colored_pictures import COLORS, SIZES, ask_color, color_conversations, png_url
from tests.support.llama_cpp import LlamaCpp, llama_cpp

SIGHT = SightStep(type="sight", patch=16, size=64)
LIMITS = ImageLimits(16, 64)


def encode(conversation: list[Message], tokenizer: PreTrainedTokenizerBase) -> EncodedConversation:
    encoded = encode_conversation(conversation, tokenizer, 256, LIMITS)
    assert isinstance(encoded, EncodedConversation)
    return encoded


def seeing_model(tokenizer: PreTrainedTokenizerBase) -> LlamaForCausalLM:
    model = tiny_llama(len(tokenizer))
    add_image_embedder(model, LIMITS)
    model.train(False)
    return model


# What it reads


@pytest.mark.parametrize(
    ("images", "text", "reason"),
    [
        (("https://example.com/a.png",), "Which color?", UnusableReason.unreadable_image),
        (("data:image/png;base64,AAAA",), "Which color?", UnusableReason.unreadable_image),
        ((), f"Which {IMAGE_MARKER} color?", UnusableReason.has_special_token),
    ],
)
def test_what_cannot_be_read_is_left_out(
    images: tuple[str, ...], text: str, reason: UnusableReason, tokenizer: PreTrainedTokenizerBase
) -> None:
    talk = [Message(role="user", content=text, images=images), Message(role="assistant", content="red")]
    assert encode_conversation(talk, tokenizer, 256, LIMITS) is reason


def test_patches_see_their_whole_image_and_nothing_after_it(tokenizer: PreTrainedTokenizerBase) -> None:
    """A change of the last patch changes the first one's output, and nothing before the image."""
    model = seeing_model(tokenizer)
    one = encode(ask_color("red", Random(1)), tokenizer)
    batch = build_batch([one], 0)
    patches = collect_patches(batch.images)
    changed = patches.values.clone()
    changed[-1] = torch.arange(changed.shape[1]) % 251
    [placed] = one.images

    def read(patches: ImagePatches) -> torch.Tensor:
        inputs, mask = embed_images(model, batch.ids, patches), build_image_mask(batch)
        return model.model(inputs_embeds=inputs, attention_mask=mask, use_cache=False).last_hidden_state[0]

    with torch.no_grad():
        difference = (read(patches) - read(patches._replace(values=changed))).abs().amax(-1)
    assert difference[: placed.begin].max() < 1e-6
    assert difference[placed.begin : placed.end].min() > 1e-5, "every patch of the image"
    assert difference[placed.end :].min() > 1e-6, "and every token after it"


def test_a_batch_computes_what_each_conversation_does_alone(tokenizer: PreTrainedTokenizerBase) -> None:
    model = seeing_model(tokenizer)
    rng = Random(2)
    talks = [ask_color(color, rng, size) for color, size in zip(COLORS, (*SIZES, *SIZES), strict=False)]
    talks.append([Message(role="user", content="Hello"), Message(role="assistant", content="I like bees.")])
    encoded = [encode(talk, tokenizer) for talk in talks]
    with torch.no_grad():
        together = predict_tokens(model, build_batch(encoded, 0))
        for place, one in enumerate(encoded):
            alone = predict_tokens(model, build_batch([one], 0)).logits
            assert torch.allclose(together.logits[together.rows == place], alone, atol=1e-4), place


# What it learns


def blank(conversation: list[Message]) -> list[Message]:
    white = (png_url(Image.new("RGB", SIZES[0], "white")),)
    return [turn.model_copy(update={"images": white}) if turn.images else turn for turn in conversation]


@pytest.mark.slow
@pytest.mark.xdist_group("students")
def test_it_learns_from_images_alone(seeing_student: Path, tmp_path: Path) -> None:
    """Blind, it can only guess among six colors; before the training it knows nothing either."""
    held_out = color_conversations(60, seed=9)
    seeing, guessing = (
        measure_folder_loss(seeing_student, rows, 128).nats_per_token for rows in (held_out, list(map(blank, held_out)))
    )
    assert seeing is not None
    assert guessing is not None
    assert seeing < 0.25
    assert guessing > seeing + 0.25
    assert write_untrained_student(seeing_student, tmp_path / "start")
    assert (tmp_path / "start" / EMBEDDER_FILE).is_file()
    untrained = measure_folder_loss(tmp_path / "start", held_out, 128).nats_per_token
    assert untrained
    assert untrained > 4


@pytest.mark.slow
@pytest.mark.xdist_group("students")
def test_it_is_a_start_that_sees(seeing_student: Path, tmp_path: Path) -> None:
    config = StudentConfig(
        start=str(seeing_student), epochs=1, learning_rate=1e-5, batch_size=16, max_tokens=128, steps=(SIGHT,)
    )
    record = train_student(color_conversations(40, seed=5), config, tmp_path / "more", seed=3, progress=quiet)
    assert record.loss_before < 0.4, "the embedder was continued, not made anew"
    other = config.model_copy(update={"steps": (SightStep(type="sight", patch=8, size=64),)})
    with pytest.raises(UsageError, match="sees patches of 16 in images of 64 pixels; use"):
        train_student(color_conversations(40, seed=5), other, tmp_path / "other", seed=3, progress=quiet)


# Color jitter


class Interrupted(Exception):
    pass


def test_color_jitter_is_of_the_training_alone(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An interrupted training resumes to the same weights, held-out losses are of unchanged images, and a student that was
    trained with jitter is a start without it.
    """
    start = saved(tiny_llama(len(tokenizer)), tokenizer, tmp_path / "start")
    rows, held_out = color_conversations(24), color_conversations(8, seed=9)
    config = StudentConfig(
        start=str(start), epochs=3, learning_rate=3e-3, batch_size=8, max_tokens=128, checkpoint_steps=4, steps=(SIGHT,),
        precision="float32",
    )  # fmt: skip

    def train(strength: float, name: str, start: Path, progress: Any = quiet) -> StudentRecord:
        sight = SIGHT.model_copy(update={"color_jitter": strength})
        settings = config.model_copy(update={"steps": (sight,), "start": str(start)})
        return train_student(rows, settings, tmp_path / name, seed=3, progress=progress, held_out=held_out)

    def stop(_: str) -> None:
        if locate_checkpoint(tmp_path / "resumed").exists():
            raise Interrupted

    plain, jittered = train(0, "plain", start), train(0.4, "jittered", start)
    assert plain.loss_before == jittered.loss_before
    assert plain.loss_after != jittered.loss_after
    stored = measure_folder_loss(tmp_path / "jittered", held_out, 128).nats_per_token
    assert stored == pytest.approx(jittered.loss_after, rel=1e-5)
    assert train(0, "more", tmp_path / "jittered").loss_before == pytest.approx(jittered.loss_after, rel=1e-5)

    monkeypatch.setattr("students.training.training_loop.PROGRESS_SECONDS", 0.0)
    with pytest.raises(Interrupted):
        train(0.4, "resumed", start, stop)
    lines: list[str] = []
    train(0.4, "resumed", start, lines.append)
    assert any("resumes after step 4" in line for line in lines)
    for file in (EMBEDDER_FILE, "model.safetensors"):
        whole, resumed = (load_file(tmp_path / name / file) for name in ("jittered", "resumed"))
        assert all(weight.equal(resumed[key]) for key, weight in whole.items()), file


# What llama.cpp computes


@pytest.fixture
def served(seeing_student: Path) -> Iterator[LlamaCpp]:
    exported = export_gguf(seeing_student, "f32")
    assert exported.projector
    limits = read_image_limits(exported.projector)
    assert limits == ImageLimits(16, 64)
    with llama_cpp(exported.path, projector_settings(exported.projector, limits)) as loaded:
        yield loaded


def build_causal_mask(batch: TokenBatch) -> torch.Tensor:
    longest = batch.ids.shape[1]
    return torch.ones(len(batch.ids), 1, longest, longest, dtype=torch.bool).tril()


@pytest.mark.slow
@pytest.mark.xdist_group("students")
def test_llama_cpp_sees_what_torch_sees(
    seeing_student: Path, served: LlamaCpp, tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On 50 new images of four sizes: the same first token, and its alternatives to 1e-3 nats. Causal patches would differ."""
    model, _ = read_student(seeing_student)
    model.train(False)
    rng = Random(11)
    worst = causal = 0.0
    for place in range(50):
        talk = ask_color(COLORS[place % len(COLORS)], rng, SIZES[place % len(SIZES)])
        prompt = [fit_message_images(talk[0], ImageLimits(16, 64))]
        body = {
            "messages": build_messages(prompt, images_first=True), "max_tokens": 1, "temperature": 0, "logprobs": True,
            "top_logprobs": 3,
        }  # fmt: skip
        completion = served.post("/v1/chat/completions", body)
        encoded = encode(talk, tokenizer)
        assert completion["usage"]["prompt_tokens"] == encoded.learned.index(True)
        theirs = {
            one["id"]: one["logprob"] for one in completion["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
        }
        batch = build_batch([encoded], 0)
        with torch.no_grad():
            ours = predict_tokens(model, batch).logits[0].log_softmax(-1)
            with monkeypatch.context() as patched:
                patched.setattr("plugins.pictures.seeing.embedder.build_image_mask", build_causal_mask)
                without = predict_tokens(model, batch).logits[0].log_softmax(-1)
        assert max(theirs, key=theirs.__getitem__) == int(ours.argmax())
        worst = max(worst, *(abs(ours[token].item() - logprob) for token, logprob in theirs.items()))
        causal = max(causal, *(abs(without[token].item() - logprob) for token, logprob in theirs.items()))
    assert worst < 1e-3
    assert causal > 10 * worst


# What cannot see


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"lora": {}}, "lora: low-rank adapters would not train the embedder of images"),
        ({"replay": {}}, "replay: its start sees nothing"),
        ({"evaluation": {"requests": 20}}, "evaluation: its questions have no pictures"),
        ({"objective": "forward_kl"}, "objective forward_kl: its teacher or reference sees nothing; use sft"),
        ({"objective": {"sft": 1.0, "dpo": 1.0}}, "objective dpo: its teacher or reference sees nothing"),
        ({"max_tokens": 128}, "144 patches of an image leave no room in max_tokens = 128; raise it to 272 or more"),
        ({"size": 100}, "size = 100: is no multiple of patch = 16; use 96 or 112"),
        ({"size": 368}, "23 x 23 patches of 16 are more than the 512 tokens"),
    ],
)
def test_settings_that_cannot_see_are_refused(changes: dict[str, Any], words: str) -> None:
    sight = {name: changes.pop(name) for name in ("size",) if name in changes}
    with pytest.raises(ValidationError, match=words):
        StudentConfig.model_validate({"steps": [{"type": "sight", **sight}], **changes})


@pytest.fixture
def untrained(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> Path:
    """The folder of a student that sees, and was not trained."""
    model, folder = seeing_model(tokenizer), tmp_path / "student"
    save_model(model, folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_an_export_is_not_complete_before_its_embedder(untrained: Path) -> None:
    """Ended between the two files, it would leave a student that answers blind."""
    exported = export_gguf(untrained, "f32")
    assert exported.projector
    assert exported.projector.stat().st_mtime_ns < exported.path.stat().st_mtime_ns


def test_a_student_that_lost_its_embedder_is_not_served(untrained: Path) -> None:
    exported = export_gguf(untrained, "f32")
    assert exported.projector
    exported.projector.unlink()

    async def start() -> None:
        async with start_local_server(TeacherConfig(model=f"local/{exported.path}"), exported.path, quiet):
            pass

    with pytest.raises(ProviderError, match=f"{PROJECTOR_FILE} is missing next to it; export the student again"):
        asyncio.run(start())


@pytest.mark.parametrize(("patch", "size"), [(16_384, 16_384), (16, 16 * 23), (2, 32), (16, 8)])
def test_limits_that_no_student_has_are_refused(patch: int, size: int, tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / PROJECTOR_FILE, "clip")
    writer.add_vision_image_size(size)
    writer.add_vision_patch_size(patch)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with pytest.raises(ValueError, match="no sizes of patches and images that a student can have"):
        read_image_limits(tmp_path / PROJECTOR_FILE)


# Its data and its card


def test_questions_about_one_picture_are_held_out_together(tokenizer: PreTrainedTokenizerBase) -> None:
    rows = [
        [turns[0].model_copy(update={"content": ask}), turns[1]]
        for turns in color_conversations(6)
        for ask in ("A?", "B?")
    ]
    config = StudentConfig.model_validate({"steps": [SIGHT], "max_tokens": 96, "held_out": 0.2})
    for seed in range(5):
        data = encode_and_split(rows, None, tokenizer, config, seed)
        trained, held_out = ({one.images[0].image for one in part} for part in (data.train, data.held_out))
        assert len(data.train) + len(data.held_out) == len(rows)
        assert not trained & held_out


def test_pictures_of_rows_about_two_are_held_out_together(tokenizer: PreTrainedTokenizerBase) -> None:
    """A row about two pictures joins the rows about either of them."""
    shown = [turns[0].images[0] for turns in color_conversations(12)]
    rows = [
        [Message(role="user", content=f"{n}?", images=pair), Message(role="assistant", content="red")]
        for n, pair in enumerate([*((one,) for one in shown), (shown[0], shown[1]), (shown[1], shown[2])])
    ]
    config = StudentConfig.model_validate({"steps": [SIGHT], "max_tokens": 128, "held_out": 0.2})
    for seed in range(8):
        data = encode_and_split(rows, None, tokenizer, config, seed)
        trained, held_out = ({p.image for one in part for p in one.images} for part in (data.train, data.held_out))
        assert not trained & held_out


@pytest.mark.parametrize("sees", [False, True])
def test_the_card_asks_a_student_that_sees_where_its_images_arrive(sees: bool) -> None:
    """AutoModelForCausalLM would load it without a word, and drop every image."""
    model = tiny_llama(64)
    if sees:
        add_image_embedder(model, LIMITS)
    start = StartModel(model, tiny_tokenizer(), "made here", None, "other")
    record = StudentRecord(
        start="layers", parameters=1, train_samples=9, held_out_samples=1, steps=3, seconds=1.0, loss_before=3.5, loss_after=1.1
    )  # fmt: skip
    training = FinishedTraining(
        StudentConfig(), 7, "", TrainingData([], [], {}), record, [], color_conversations(1), synthetic=False
    )
    card = build_model_card(start, training)
    assert ("AutoModelForCausalLM" in card) is not sees
    assert ("\npipeline_tag: text-generation\n" in card) is not sees
    assert ("--mmproj mmproj-f32.gguf --image-min-tokens 1 --image-max-tokens 16\n" in card) is sees
    assert "$" not in card
