"""The setup of a chat server: student, teacher and threshold from options and calibration, and what a file may not decide."""

import math
import re
import sys
from pathlib import Path

import pytest

from core import installation
from core.config.teachers import TeacherConfig
from core.errors import UsageError
from core.storage.atomic_files import hash_file
from plugins.serving.cascade.routing_result import RoutingResult
from plugins.serving.cascade.serving_setup import ServingOptions, add_draft, prepare_serving
from plugins.serving.cascade.terminal_chat import ChatSettings, ChatStudent, open_conversation
from plugins.serving.tests.test_cascade_calibration import FREE, routing_of
from tests.flows.commands.test_commands import called


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["serve", "missing.gguf"], "error: missing.gguf: there is no such file"),
        (["serve", "missing"], "error: missing: there is no student"),
        (["serve", "{gguf}", "--share", "0.3", "--threshold", "1"], "both say when the teacher is asked; leave one out"),
        (["serve", "{gguf}", "--teacher", "openai/big"], "no routing.json next to the student, so there is no threshold"),
        (["serve", "{gguf}", "--teacher", "vllm/big", "--threshold", "1", "--signal", "mood"], "--signal mood: is not known"),
        (["serve", "{gguf}", "--teacher", "openai/big", "--threshold", "1"], "OPENAI_API_KEY holds no key for api.openai.com"),
        (["serve", "{gguf}", "--draft", "missing.gguf"], "error: missing.gguf: there is no such file"),
        (["serve", "{gguf}", "--draft", "missing"], "error: missing: there is no student"),
        (["serve", "{gguf}", "--draft", "{broken}"], "--draft: '{broken}': its 4 bytes are no GGUF file"),
        (["serve", "{gguf}", "--teacher", "vllm/big", "--threshold", "1", "--draft", "ngram"],
         "--draft: the cascade reads the probabilities of the student's tokens, which llama.cpp does not return with a draft"),
        (["serve", "{routed}"], "routing.json: is of another student than"),
        (["serve", "{broken}"], "routing.json: is not what this version writes (seeds)"),
    ],
)  # fmt: skip
def test_each_mistake_is_one_sentence(
    words: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = {name: tmp_path / name / "m.gguf" for name in ("gguf", "routed", "broken")}
    for place in places.values():
        place.parent.mkdir()
        place.write_bytes(b"GGUF")
    (tmp_path / "routed" / "routing.json").write_text(routing_of(0.5, 0.9).model_dump_json())
    (tmp_path / "broken" / "routing.json").write_text("{}")
    code, out, err = called(capsys, *(word.format(**places) for word in words), "-q")
    assert (code, out) == (2, "")
    assert sentence.format(**places) in err
    assert "Traceback" not in err


def test_the_calibration_chooses_teacher_signal_and_threshold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = tmp_path / "m.gguf"
    weights.write_bytes(b"GGUF")

    def calibrated(student: float, teacher: float) -> RoutingResult:
        found = routing_of(student, teacher, hash_file(weights))
        (tmp_path / "routing.json").write_text(found.model_dump_json())
        return found

    found = calibrated(0.5, 0.9)
    setup = prepare_serving(weights, None, ServingOptions())
    assert setup.rule
    assert (setup.teacher, setup.rule.signal) == (FREE, found.best)
    assert setup.rule.threshold == found.find_curve(found.best).at_quality.threshold
    assert setup.defaults == {"temperature": 0.3, "top_p": 1.0, "max_tokens": 90}
    ends = [
        prepare_serving(weights, None, ServingOptions(share=share, signal="agreement")).rule for share in (0.0, 1.0)
    ]
    assert [rule and (rule.threshold, rule.draws) for rule in ends] == [(-math.inf, 1), (math.inf, 1)]
    asking = prepare_serving(weights, None, ServingOptions(share=0.5, signal="question"))
    assert asking.rule
    assert (asking.rule.by_question, asking.rule.draws) == (True, 0)
    assert "or before it is asked local/smollm2-135m (started here) where question is under" in asking.description
    assert add_draft(asking, "ngram").draft == "ngram", "no rule reads the probabilities of its tokens"
    assert found.question
    short = found.question.student.model_copy(update={"weights": [row[:-1] for row in found.question.student.weights]})
    for router, fault in (
        (None, "--signal question: .*has no router of questions"),
        (
            found.question.model_copy(update={"student": short}),
            r"is not what this version writes \(question\); calibrate again",
        ),
    ):
        (tmp_path / "routing.json").write_text(found.model_copy(update={"question": router}).model_dump_json())
        with pytest.raises(UsageError, match=fault):
            prepare_serving(weights, None, ServingOptions(share=0.5, signal="question"))
    large = tmp_path / "large.gguf"
    large.write_bytes(b"GGUF")
    of_students = found.model_copy(
        update={"teacher": TeacherConfig(model=f"local/{large}"), "teacher_weights": hash_file(large)}
    )
    (tmp_path / "routing.json").write_text(of_students.model_dump_json())
    monkeypatch.chdir(tmp_path)
    assert prepare_serving(weights, None, ServingOptions(teacher="local/large.gguf")).teacher == of_students.teacher
    large.write_bytes(b"GGUF of a later training")
    with pytest.raises(UsageError, match="is not the file that was calibrated; calibrate again"):
        prepare_serving(weights, None, ServingOptions(teacher="local/large.gguf"))
    found = calibrated(0.5, 0.9)
    assert prepare_serving(weights, None, ServingOptions(teacher="none")).teacher is None
    elsewhere = prepare_serving(
        weights, None, ServingOptions(teacher="openai/big", teacher_url="http://x/v1", threshold=-0.7)
    )
    assert elsewhere.teacher == TeacherConfig(model="openai/big", base_url="http://x/v1")
    assert "an uncalibrated threshold" in elsewhere.description
    with pytest.raises(UsageError, match="the calibration is of local/smollm2-135m, so there is no threshold for it"):
        prepare_serving(weights, None, ServingOptions(teacher="openai/big"))

    calibrated(0.9, 0.3)
    alone = prepare_serving(weights, None, ServingOptions())
    assert (alone.teacher, alone.rule) == (None, None)
    assert "No routing needed" in alone.description
    assert prepare_serving(weights, None, ServingOptions(share=0.2)).teacher == FREE


EVIL = "http://127.0.0.1:1/v1"


@pytest.mark.attack(
    "a student's `routing.json` names an address and a key variable, starts vLLM with `trust_remote_code` or a "
    "plugin, or loads a GGUF file",
    "refused, by name",
)
@pytest.mark.parametrize(
    ("recorded", "sentences"),
    [
        (
            TeacherConfig(model="openai/gpt-5-mini", base_url=EVIL, api_key_env="AWS_SECRET_ACCESS_KEY"),
            [f"the address {EVIL} (--teacher-url URL)", "the key in AWS_SECRET_ACCESS_KEY (--teacher-key-env NAME)"],
        ),
        (TeacherConfig(model="openai/m", base_url=EVIL), [f"the address {EVIL}"]),
        (TeacherConfig(model="openai/m", api_key_env="AWS_SECRET_ACCESS_KEY"), ["the key in AWS_SECRET_ACCESS_KEY"]),
        (
            TeacherConfig(model="vllm/evil/model", engine={"trust_remote_code": True}),
            [
                "to start vllm/evil/model (--teacher vllm/evil/model)",
                "engine options trust_remote_code (--recipe RECIPE)",
            ],
        ),
        (TeacherConfig(model="vllm/evil/model"), ["to start vllm/evil/model"]),
        (TeacherConfig(model="local/evil.gguf"), ["to start local/evil.gguf"]),
    ],
    ids=lambda value: value.model if isinstance(value, TeacherConfig) else "",
)
def test_a_file_decides_neither_where_prompts_and_keys_go_nor_what_is_started(
    recorded: TeacherConfig, sentences: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "aws-canary-555")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary-93121")
    weights = tmp_path / "m.gguf"
    weights.write_bytes(b"GGUF")
    found = routing_of(0.5, 0.9, hash_file(weights)).model_copy(update={"teacher": recorded})
    (tmp_path / "routing.json").write_text(found.model_dump_json())
    code, out, err = called(capsys, "serve", str(weights), "--port", "0", "-q")
    assert (code, out) == (2, "")
    for sentence in sentences:
        assert sentence in err
    assert "canary" not in err
    assert prepare_serving(weights, None, ServingOptions(teacher="none")).teacher is None

    monkeypatch.setenv("MY_KEY", "x")
    own = "http://127.0.0.1:2/v1"
    given = TeacherConfig(model=recorded.model, base_url=own, api_key_env="MY_KEY", engine={"max_model_len": 512})
    setup = prepare_serving(weights, None, ServingOptions(recipe=given))
    assert (setup.teacher, "started here" in setup.description) == (given, not recorded.model.startswith("openai/"))
    if recorded.model.startswith("openai/"):
        setup = prepare_serving(weights, None, ServingOptions(teacher_url=own, teacher_key_env="MY_KEY"))
        assert setup.teacher == TeacherConfig(model=recorded.model, base_url=own, api_key_env="MY_KEY")
        assert f"{recorded.model} ({own}) where" in setup.description


@pytest.mark.attack(
    "a student's `routing.json` asks for 10^9 tokens per slot or no timeout",
    "only the teacher's name is used",
)
def test_of_a_hosted_teacher_only_the_name_is_taken_from_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary-93121")
    weights = tmp_path / "m.gguf"
    weights.write_bytes(b"GGUF")
    recorded = TeacherConfig(model="openai/m", timeout_seconds=9e9, max_concurrent=4096, slot_tokens=10**9)
    found = routing_of(0.5, 0.9, hash_file(weights)).model_copy(update={"teacher": recorded})
    (tmp_path / "routing.json").write_text(found.model_dump_json())
    setup = prepare_serving(weights, None, ServingOptions())
    assert setup.teacher == TeacherConfig(model="openai/m")
    assert "openai/m (https://api.openai.com/v1) where" in setup.description
    with pytest.raises(UsageError, match="--teacher-key-env NOT_SET: the environment variable NOT_SET is not set"):
        prepare_serving(weights, None, ServingOptions(teacher_key_env="NOT_SET"))


def test_without_llama_cpp_messages_of_serve_and_chat_name_the_extra_local(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    monkeypatch.setattr(installation, "PROJECT", tmp_path)
    needed = "needs the extra `local` (llama.cpp): run `"
    weights = tmp_path / "student-q8_0.gguf"
    weights.write_bytes(b"GGUF")
    with pytest.raises(UsageError, match=re.escape(needed)):
        prepare_serving(weights, None, ServingOptions())
    settings = ChatSettings(None, 0.0, 1)
    for folder, torch in ((None, True), (tmp_path, False)):
        if not torch:
            monkeypatch.setitem(sys.modules, "torch", None)
        with (
            pytest.raises(UsageError, match=re.escape(needed)),
            open_conversation(ChatStudent(folder, weights), settings),
        ):
            pass
