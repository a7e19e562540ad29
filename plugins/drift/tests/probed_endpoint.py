"""An OpenAI endpoint that answers probes as a small random model does: a temperature, a size of noise, and degraded forms."""

import json
import math
from random import Random
from typing import Any

from plugins.drift.probes import PROBES
from tests.support.scripted_endpoint import Chat, Endpoint, build_completion

WORDS = [f"word{number}" for number in range(40)]


class ProbedEndpoint(Endpoint):
    """`model` seeds the distributions; the rest changes how they are returned."""

    model, shift, noise, top, step, logprobs = 1, 0.0, 0.0, 20, 0.0, True

    def find_distribution(self, probe: int) -> list[float]:
        """Log-probabilities of the words."""
        draw, moved = Random(1000 * self.model + probe), Random(probe)
        logits = [draw.gauss(0, 2) + self.shift * moved.gauss(0, 1) for _ in WORDS]
        total = math.log(sum(map(math.exp, logits)))
        return [one - total for one in logits]


class ProbedChat(Chat):
    server: ProbedEndpoint

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        question = body["messages"][-1]["content"]
        if question not in PROBES:
            self._send(build_completion(self.server.script, body))
            return
        if body.get("top_logprobs") and not self.server.logprobs:
            error = {"message": "Unsupported parameter: top_logprobs", "param": "top_logprobs"}
            self.send_body(400, json.dumps({"error": error}).encode())
            return
        self._send(self._answer(body, PROBES.index(question)))

    def _answer(self, body: dict[str, Any], probe: int) -> dict[str, Any]:
        server = self.server
        exact = server.find_distribution(probe)
        word = Random(body["seed"]).choices(WORDS, [math.exp(one) for one in exact])[0]
        noisy = [one + Random().gauss(0, server.noise) for one in exact]
        seen = [round(one / server.step) * server.step if server.step else one for one in noisy]
        order = sorted(range(len(WORDS)), key=lambda number: -seen[number])[: server.top]
        listed = [{"token": WORDS[number], "logprob": seen[number]} for number in order]
        completion = build_completion(server.script, body)
        choice = completion["choices"][0]
        choice["message"]["content"] = word
        choice["logprobs"] = {"content": [{"token": word, "logprob": exact[WORDS.index(word)], "top_logprobs": listed}]}
        return completion
