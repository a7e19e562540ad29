"""An endpoint with vLLM's `prompt_logprobs` and a real model behind it."""

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock, Thread
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaForCausalLM, PreTrainedTokenizerBase

from core.config.students import DistillationConfig, StudentConfig
from core.errors import ProviderError, UsageError
from plugins.forms import prompt_logprobs
from students.chat_encoding import Conversation
from students.training.student_training import train_student
from teachers import endpoint_calls
from tests.students.conftest import quiet

KEY = "sk-never-to-be-printed"


class Served:
    """What a test may change of the endpoint, and what it was asked."""

    def __init__(self, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.models = ["big"]
        self.failing: list[int] = []
        """Statuses of the next completions."""
        self.silent = False
        self.asked: list[tuple[str, str | None]] = []
        self.lock = Lock()
        self.url = ""

    @torch.no_grad()
    def completion(self, body: dict[str, Any]) -> dict[str, Any]:
        ids: list[int] = body["prompt"]
        log_probs = self.model(torch.tensor([ids])).logits[0].log_softmax(-1)
        logprobs: list[Any] = [None]
        for place, token in enumerate(ids[1:]):
            ranked = log_probs[place].argsort(descending=True).tolist()
            wanted = dict.fromkeys([token, *ranked[: body["prompt_logprobs"]]])
            logprobs.append({
                str(one): {
                    "logprob": float(log_probs[place, one]), "rank": ranked.index(one) + 1,
                    "decoded_token": self.tokenizer.decode([one]),
                }
                for one in wanted
            })  # fmt: skip
        return {"choices": [{"text": "", "prompt_logprobs": None if self.silent else logprobs}]}


class Handler(BaseHTTPRequestHandler):
    served: Served

    def do_GET(self) -> None:
        self._answer(200, {"data": [{"id": name} for name in self.served.models]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.served.lock:
            self.served.asked.append((body["model"], self.headers.get("Authorization")))
            status = self.served.failing.pop(0) if self.served.failing else 200
            answer = self.served.completion(body) if status == 200 else {"error": f"not now,\n{KEY}"}
        self._answer(status, answer)

    def _answer(self, status: int, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


def fail_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint_calls, "FIRST_WAIT", 0.01)
    monkeypatch.setattr(prompt_logprobs, "OUTAGE_SECONDS", 0.2)


@pytest.fixture
def served(teacher: Path, tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    fail_soon(monkeypatch)
    found = Served(AutoModelForCausalLM.from_pretrained(teacher, dtype=torch.float32), tokenizer)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Handler,), {"served": found}))
    found.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    handler = server.RequestHandlerClass
    assert issubclass(handler, Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    yield found
    server.shutdown()
    server.server_close()


def learning_from(teacher: str, config: StudentConfig, **more: Any) -> StudentConfig:
    settings = DistillationConfig.model_validate({"teacher": teacher, "signals": "top_k", "top_k": 5})
    return config.model_copy(update={"objective": "forward_kl", "distillation": settings, "epochs": 3, **more})


def test_a_student_learns_the_same_from_an_endpoint_as_from_its_model(
    served: Served, teacher: Path, talk: list[Conversation], config: StudentConfig, tmp_path: Path
) -> None:
    served.failing = [503, 429]
    far = train_student(talk, learning_from(served.url, config), tmp_path / "far", seed=7, progress=quiet)
    near = train_student(talk, learning_from(str(teacher), config), tmp_path / "near", seed=7, progress=quiet)
    assert far.kl_before is not None
    assert far.kl_after is not None
    assert far.kl_after < 0.95 * far.kl_before
    assert far.kl_before == pytest.approx(near.kl_before, rel=0.02), "a teacher in torch is captured in bfloat16"
    assert far.kl_after == pytest.approx(near.kl_after, rel=0.02)
    assert len(served.asked) == len(talk) + 2
    assert set(served.asked) == {("big", f"Bearer {KEY}")}


@pytest.mark.attack(
    "captured signals used for another endpoint",
    "refused",
)
def test_its_signals_serve_again_and_for_no_other_model_or_endpoint(
    served: Served, talk: list[Conversation], config: StudentConfig, tmp_path: Path
) -> None:
    train_student(talk, learning_from(served.url, config), tmp_path / "one", seed=7, progress=quiet)
    asked = len(served.asked)
    (tmp_path / "one.signals").rename(tmp_path / "two.signals")
    train_student(talk, learning_from(f"{served.url}#big", config), tmp_path / "two", seed=8, progress=quiet)
    assert len(served.asked) == asked
    (tmp_path / "two.signals").rename(tmp_path / "three.signals")
    with pytest.raises(UsageError, match="captured with another teacher"):
        train_student(talk, learning_from(f"{served.url}#bigger", config), tmp_path / "three", seed=8, progress=quiet)
    elsewhere = served.url.replace("127.0.0.1", "localhost")
    with pytest.raises(UsageError, match="captured with another teacher"):
        train_student(talk, learning_from(f"{elsewhere}#big", config), tmp_path / "three", seed=8, progress=quiet)


def test_an_endpoint_that_reads_other_tokens_is_refused(
    served: Served, talk: list[Conversation], config: StudentConfig, tmp_path: Path
) -> None:
    class Shifted:
        def decode(self, ids: list[int]) -> str:
            return str(served_tokenizer.decode([ids[0] - 1]))

    served_tokenizer = served.tokenizer
    served.tokenizer = Shifted()  # type: ignore[assignment]
    with pytest.raises(UsageError, match=r"token \d+ is '.*' to big and '.*' to the student"):
        train_student(talk, learning_from(served.url, config), tmp_path / "student", seed=7, progress=quiet)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"silent": True}, "returns no log-probabilities of prompt tokens"),
        ({"failing": [400]}, r"/completions: status 400: .*not now"),
        ({"failing": [307]}, "status 307 redirects to another path of the same host; redirects are not followed"),
        ({"failing": [503] * 1000}, r"no answer for 0\.2 s: status 503"),
        ({"failing": [401] * 8}, "it refuses the key; is the environment variable OPENAI_API_KEY right"),
        ({"models": ["a", "b"]}, "serves a, b; name one"),
    ],
)
def test_a_failing_endpoint_is_one_sentence(
    change: dict[str, Any],
    message: str,
    served: Served,
    talk: list[Conversation],
    config: StudentConfig,
    tmp_path: Path,
) -> None:
    vars(served).update(change)
    with pytest.raises((ProviderError, UsageError), match=message) as caught:
        train_student(talk, learning_from(served.url, config), tmp_path / "student", seed=7, progress=quiet)
    assert KEY not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())
