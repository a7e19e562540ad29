from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    GraniteSWAForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerBase,
)

from core.config.students import StudentConfig
from core.errors import RunFailed
from core.sample import Message
from plugins.forms.windows import FIRST_SCORE, NO_SINK, add_windows
from students.architecture import list_layer_types
from students.chat_encoding import Conversation
from students.comparison import measure_folder_loss, write_untrained_student
from students.gguf_export import export_gguf, read_student
from students.training.student_training import train_student
from tests.students.conftest import opinionated, quiet
from tests.students.test_gguf_export import PREFIXES, lowest_correlation, many_ids
from tests.support.llama_cpp import llama_cpp

WORDS = 100


def llama(layers: int, heads: int = 4, **changes: Any) -> LlamaForCausalLM:
    """With weights so large that each head prefers some tokens."""
    torch.manual_seed(0)
    settings = {
        "vocab_size": WORDS, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": layers,
        "num_attention_heads": heads, "num_key_value_heads": 2, "max_position_embeddings": 2048, "tie_word_embeddings": True,
    }  # fmt: skip
    config = LlamaConfig(**{**settings, **changes})
    return opinionated(LlamaForCausalLM(config), 1).train(False)  # type: ignore[return-value]


def windowed_model(*, window: int, layers: int, full_every: int, sinks: bool = True) -> GraniteSWAForCausalLM:
    model = add_windows(llama(layers), window, full_every, sinks=sinks).train(False)
    for place, parameter in enumerate(trained_sinks(model)):
        torch.nn.init.normal_(parameter, mean=1.0, generator=torch.Generator().manual_seed(place))
    return model  # type: ignore[return-value]


def trained_sinks(model: Any) -> list[torch.nn.Parameter]:
    sinks = [layer.self_attn.sinks for layer in model.model.layers]
    return [scores for scores in sinks if scores.requires_grad]


@torch.no_grad()
def logits(model: Any, ids: torch.Tensor) -> torch.Tensor:
    found: torch.Tensor = model(input_ids=ids, use_cache=False).logits[0]
    return found


def random_ids(length: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, WORDS, (1, length), generator=torch.Generator().manual_seed(seed))


# The model


@pytest.mark.parametrize("changes", [{}, {"head_dim": 32}, {"tie_word_embeddings": False}], ids=str)
def test_it_computes_what_the_llama_does_where_the_window_holds_all(changes: dict[str, Any]) -> None:
    model, ids = llama(3, **changes), random_ids(60)
    long = add_windows(model, 60, sinks=False)
    torch.testing.assert_close(logits(long, ids), logits(model, ids), rtol=1e-4, atol=1e-4)
    for window, sinks in ((59, False), (60, True)):
        difference = logits(add_windows(model, window, sinks=sinks), ids)[-1] - logits(model, ids)[-1]
        assert difference.abs().max() > 1e-2, window


@pytest.mark.parametrize("window", [4, 16])
@pytest.mark.parametrize("layers", [1, 3])
def test_a_token_reaches_as_far_as_the_windows_and_not_further(layers: int, window: int) -> None:
    """Each layer carries it `window` - 1 positions on."""
    model = windowed_model(window=window, layers=layers, full_every=layers + 1)
    with_full = windowed_model(window=window, layers=layers, full_every=2)
    ids, place = random_ids(80), 10
    other = ids.clone()
    other[0, place] = (other[0, place] + 1) % WORDS
    difference = (logits(model, ids) - logits(model, other)).abs().amax(1)
    reach = place + layers * (window - 1)
    assert difference[:place].max() < 1e-6
    assert difference[reach] > 1e-6
    assert difference[reach + 1 :].max() < 1e-6
    if layers > 1:
        assert (logits(with_full, ids) - logits(with_full, other)).abs().amax(1)[reach + 1 :].min() > 1e-6


def test_layers_and_sinks_are_those_of_the_recipe() -> None:
    assert list_layer_types(5, 2, "sliding_attention") == ["sliding_attention", "full_attention"] * 2 + [
        "sliding_attention"
    ]
    assert "full_attention" not in list_layer_types(5, 6, "sliding_attention")
    for sinks in (True, False):
        layers = add_windows(llama(4), 8, 2, sinks=sinks).model.layers
        for layer, windowed in zip(layers, [True, False] * 2, strict=True):
            scores = layer.self_attn.sinks
            assert scores.requires_grad == (windowed and sinks)
            assert scores.eq(FIRST_SCORE if scores.requires_grad else NO_SINK).all()


# The student

TOPICS = ("bees", "rivers", "bread", "chess", "rain", "maps", "owls", "tea", "yoga", "trains", "stars", "soup")
WINDOW = 16


def long_conversations() -> list[Conversation]:
    """Of 50 to 90 tokens; the topic is several windows before the end of the answer."""
    filler = "I like it and I like it more and more. "
    return [
        [
            Message(role="user", content=f"Write about {topic}."),
            Message(role="assistant", content=f"I like {topic}. {filler * 2}I like {topic}" + " and it" * (place % 5)),
        ]
        for place, topic in enumerate(TOPICS)
    ]


@pytest.fixture(scope="session")
def windows_config(teacher: Path) -> StudentConfig:
    return StudentConfig.model_validate({
        "start": str(teacher), "epochs": 6, "learning_rate": 3e-3, "batch_size": 4, "max_tokens": 128,
        "steps": [{"type": "windows", "window": WINDOW, "full_every": 2}],
    })  # fmt: skip


def test_a_llama_becomes_a_student_with_windows(windows_config: StudentConfig, tmp_path: Path) -> None:
    lines: list[str] = []
    (*talk, last), student = long_conversations(), tmp_path / "student"
    held_out = [last]
    record = train_student(talk, windows_config, student, seed=3, progress=lines.append, held_out=held_out)
    [found] = record.step_records
    assert (found.values["window"], found.values["windowed_layers"], found.values["layers"]) == (16, 1, 2)
    assert found.values["longer"] == record.train_samples
    assert found.values["loss_full"] != pytest.approx(record.loss_before, abs=1e-3)
    assert record.loss_after < record.loss_before - 0.5
    assert any(line.startswith("student: windows of 16 tokens in 1 of 2 layers; 11 of 11") for line in lines)
    assert (
        "| attention | windows of 16 tokens in 1 of 2 layers; held-out loss with" in (student / "README.md").read_text()
    )
    trained = AutoModelForCausalLM.from_pretrained(student)
    assert isinstance(trained, GraniteSWAForCausalLM)
    sinks = torch.stack([layer.self_attn.sinks.detach().float() for layer in trained.model.layers])
    assert sinks[0].abs().min() > 0.001, "the sinks of the layer with a window learn"
    assert sinks[1].eq(torch.tensor(NO_SINK).bfloat16().float()).all()
    assert write_untrained_student(student, tmp_path / "start")
    assert measure_folder_loss(tmp_path / "start", held_out, 128).nats_per_token == pytest.approx(
        record.loss_before, abs=0.01
    )


def test_llama_cpp_computes_its_windows_and_sinks(
    windows_config: StudentConfig, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    """On inputs of up to 5.7 windows; without sinks, without windows or with another window it is another model."""
    train_student(long_conversations(), windows_config, tmp_path / "student", seed=3, progress=quiet)
    model, _ = read_student(tmp_path / "student")
    ids = many_ids(tokenizer)
    assert PREFIXES[-1] > 3 * WINDOW
    with llama_cpp(export_gguf(tmp_path / "student", "f32").path) as loaded:
        assert lowest_correlation(model, loaded, ids) > 0.99999  # type: ignore[arg-type]
        for window, sinks in ((WINDOW, False), (4096, True), (WINDOW + 1, True)):
            other, _ = read_student(tmp_path / "student")
            if not sinks:
                other.model.layers[0].self_attn.sinks.data.fill_(NO_SINK)
            other.config.sliding_window = window
            assert lowest_correlation(other, loaded, ids) < 0.9999, window  # type: ignore[arg-type]


def test_it_is_distilled_from_its_start_with_full_attention(windows_config: StudentConfig, tmp_path: Path) -> None:
    """From live probabilities, and from captured ones: the student is not its teacher, as it would be without windows."""
    talk = long_conversations()
    for signals in ("dense", "top_k"):
        changes = {"objective": "forward_kl", "distillation": {"teacher": windows_config.start, "signals": signals}}
        config = StudentConfig.model_validate({**windows_config.model_dump(), **changes})
        record = train_student(talk, config, tmp_path / signals, seed=3, progress=quiet)
        assert record.kl_before is not None
        assert record.kl_after is not None
        assert 0 < record.kl_after < 0.7 * record.kl_before
    control = {
        **config.model_dump(),
        "steps": [{"type": "windows", "window": 126, "sinks": False}],
        "distillation": {"teacher": windows_config.start},
        "precision": "float32",  # in bf16 some processors round attention with windows otherwise, which looks like a gradient
    }
    with pytest.raises(RunFailed, match="had no gradient, so the teacher taught nothing"):
        train_student(talk, StudentConfig.model_validate(control), tmp_path / "control", seed=3, progress=quiet)


@pytest.mark.parametrize(
    ("step", "words"),
    [
        (
            {"window": 127, "full_every": 2},
            "student: window = 127: no training conversation is longer, so the windows change nothing in "
            "the training; lower the window, or train on longer conversations",
        ),
        (
            {"window": 16, "full_every": 3},
            "student: full_every = 3: the student has 2 layers, so none attends to all tokens, and what an earlier "
            "part of the input says cannot be looked up",
        ),
    ],
)
def test_windows_that_change_nothing_or_hide_all_are_named(
    step: dict[str, Any], words: str, windows_config: StudentConfig, tmp_path: Path
) -> None:
    lines: list[str] = []
    config = StudentConfig.model_validate(
        {**windows_config.model_dump(), "steps": [{"type": "windows", **step}], "epochs": 1}
    )
    train_student(long_conversations(), config, tmp_path / "student", seed=3, progress=lines.append)
    assert words in lines
