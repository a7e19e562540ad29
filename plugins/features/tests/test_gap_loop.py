"""Two generations by plugins/features/README.md: gaps, seeds, a run with the filter, and no gap; without the filter it stays."""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from core.project_files import PROJECT
from core.sample import text_digest
from flows.data.curated_run import read_finished_samples, read_kept_samples
from plugins.features.tests.conftest import WORDS, write_rows, write_texts
from tests.flows.commands.test_commands import called
from tests.support.http_serving import QuietHandler, serve
from tests.support.produce_run import produce_run
from tests.support.scripted_endpoint import Endpoint

SAMPLES = 150
IMITATED = 0.5


class Imitation(QuietHandler):
    """Replies with a text of its own, in half of the cases with brackets as those that it is shown."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        draw = Random(text_digest(json.dumps([body["messages"], body["seed"]])))
        words = draw.choices(WORDS, k=draw.randrange(8, 16))
        if "(" in str(body["messages"]) and draw.random() < IMITATED:
            words[3] = f"({words[3]})"
        content = json.dumps({"answer": " ".join(words) + "."})
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": content}}
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        reply = {"id": "1", "object": "chat.completion", "model": body["model"], "choices": [choice], "usage": usage}
        self.send_body(200, json.dumps(reply).encode())


def write_recipe(folder: Path) -> None:
    """The folder of the page."""
    blocks = re.findall(
        r"^```(\w+)\n(.*?)^```$", (PROJECT / "plugins" / "features" / "README.md").read_text(), re.MULTILINE | re.DOTALL
    )
    [recipe] = [text for _, text in blocks if text.startswith("# mine/recipe.toml")]
    [check] = [text for language, text in blocks if language == "python"]
    [prompt] = [text for language, text in blocks if language == "markdown"]
    (folder / "prompts").mkdir(parents=True)
    for name, text in {"recipe.toml": recipe, "checks.py": check, "prompts/generator.md": prompt}.items():
        (folder / name).write_text(text)


def test_a_planted_gap_closes_in_the_second_generation_with_the_filter(
    folder: Path, dictionary: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    poor = [json.loads(line)["text"] for line in (folder / "poor.jsonl").read_text().splitlines()]
    write_rows(tmp_path / "real.jsonl", write_texts(120, 1, brackets=True))
    (tmp_path / "features").symlink_to(dictionary)

    def find_gaps(added: Iterable[str], *options: str) -> list[dict[str, Any]]:
        write_rows(tmp_path / "own.jsonl", [*poor, *added])
        words = ["own.jsonl", "--reference", "real.jsonl", "--features", "features"]
        code, out, err = called(capsys, "feature-gaps", *words, *options, "--json")
        assert code == 0, err
        gaps: list[dict[str, Any]] = json.loads(out)["gaps"]
        return gaps

    before = find_gaps([], "--out", "seeds.jsonl")
    largest = before[0]["feature"]
    write_recipe(tmp_path / "mine")
    with serve(Endpoint(("127.0.0.1", 0), Imitation)) as endpoint:
        teacher = f"teachers.main={{model='openai/NAME',base_url='http://{endpoint.address}/v1'}}"
        settings = ["seeds.path=seeds.jsonl", f"samples={SAMPLES}", teacher]
        run, missing = produce_run(str(tmp_path / "runs"), "mine", settings)
    assert not missing.sentences

    kept, verified = list(read_kept_samples(run)), list(read_finished_samples(run))
    assert 0.3 * SAMPLES <= len(kept) <= 0.7 * SAMPLES
    shown, of_all = (sum("(" in one.answer for one in samples) / len(samples) for samples in (kept, verified))
    assert shown >= of_all + 0.2  # seeds also ask for features that are active near brackets
    after = find_gaps(sample.answer for sample in kept)
    assert largest not in {gap["feature"] for gap in after}
    assert len(after) <= len(before) / 2
    unfiltered = find_gaps(sample.answer for sample in verified[: len(kept)])
    assert len(unfiltered) > len(after)
