"""Ways to tamper with a release, each of which rewrites its manifest afterwards: of `DATA` what was made, of `PAPERS` only what
is said about it.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl

from core.config.recipe import ParentRelease, parse_recipe, recipe_digest
from plugins.rebuild.tests.made_releases import edit_json, edit_lines, edit_rows, rewrite_manifest

Tamper = Callable[[Path], None]
Whole = dict[str, Any]


def rows(name: str, change: Callable[[pl.DataFrame], pl.DataFrame]) -> Tamper:
    def tamper(release: Path) -> None:
        edit_rows(release / name, change)
        rewrite_manifest(release)

    return tamper


def lines(name: str, change: Callable[[list[Whole]], None]) -> Tamper:
    def tamper(release: Path) -> None:
        edit_lines(release / name, change)
        rewrite_manifest(release)

    return tamper


def record(name: str, change: Callable[[Whole], None]) -> Tamper:
    def tamper(release: Path) -> None:
        edit_json(release / name, change)
        rewrite_manifest(release)

    return tamper


def manifest(change: Callable[[Whole], None]) -> Tamper:
    return lambda release: rewrite_manifest(release, change)


def change_word(frame: pl.DataFrame) -> pl.DataFrame:
    turns = frame["messages"].to_list()
    turns[0][-1]["content"] += " Honest."
    return frame.with_columns(messages=pl.Series(turns, dtype=frame.schema["messages"]))


def move_side(frame: pl.DataFrame) -> pl.DataFrame:
    sides = frame["side"].to_list()
    other = "validation" if sides[0] == "train" else "train"
    return frame.with_columns(side=pl.Series([other, *sides[1:]]))


def find_sample(recorded: list[Whole], agent: str) -> Whole:
    """The last reply of this agent in the first sample that has one."""
    return next(reply for sample in recorded for reply in reversed(sample["replies"]) if reply["agent"] == agent)


def change_reply(recorded: list[Whole]) -> None:
    reply = find_sample(recorded, "generator")
    reply["reply"] = reply["reply"].replace("e", "a")


def lower_scores(recorded: list[Whole]) -> None:
    reply = find_sample(recorded, "critic")
    whole = json.loads(reply["reply"])
    whole["scores"] = {name: 1 if score > 1 else 5 for name, score in whole["scores"].items()}
    reply["reply"] = json.dumps(whole)


def drop_reply(recorded: list[Whole]) -> None:
    recorded[0]["replies"].pop()


def count_tokens(recorded: list[Whole]) -> None:
    recorded[0]["replies"][0]["usage"]["completion_tokens"] += 1


def change_request(recorded: list[Whole]) -> None:
    recorded[0]["replies"][0]["request"] = "0" * 16


def change_seed(recorded: list[Whole]) -> None:
    key = next(name for name, value in recorded[0]["seed"].items() if isinstance(value, str))
    recorded[0]["seed"][key] += " and another"


def swap_samples(recorded: list[Whole]) -> None:
    recorded[0]["sample"], recorded[1]["sample"] = recorded[1]["sample"], recorded[0]["sample"]


def find_state(decided: list[Whole], state: str) -> Whole:
    return next(one for one in decided if one["state"] == state)


def flip_check(decided: list[Whole]) -> None:
    verdict = next(verdict for one in decided for verdict in one["verdicts"])
    verdict["passed"] = not verdict["passed"]


def pardon(decided: list[Whole]) -> None:
    find_state(decided, "dropped").update(state="kept", reason=None, detail="")


def blame_another(decided: list[Whole]) -> None:
    find_state(decided, "dropped").update(reason="quality")


def change_evidence(decided: list[Whole]) -> None:
    next(verdict for one in decided for verdict in one["verdicts"])["evidence"] = "it is fine"


def reverse_filters(whole: Whole) -> None:
    whole["recipe"]["filters"].reverse()


def reverse_filters_everywhere(release: Path) -> None:
    """And the digest of the recipe wherever a release has it."""
    edit_json(release / "recording/recipe.json", reverse_filters)
    whole = json.loads((release / "recording/recipe.json").read_text())
    parent = whole["identity"]["parent"]
    parent = ParentRelease.model_validate(parent) if parent else None
    digest = recipe_digest(parse_recipe(whole["recipe"]), whole["identity"]["sources"], parent)
    rewrite_manifest(release, lambda one: one["run"].update(digest=digest))


def count_one_more(whole: Whole) -> None:
    whole["run"]["counts"]["kept"] += 1
    whole["run"]["counts"]["dropped"] -= 1


def replace_manifest(release: Path) -> None:
    """By that of an earlier release, under this one's name."""
    other = json.loads((release.parent / "0" / "manifest.json").read_text())
    name = json.loads((release / "manifest.json").read_text())["release"]
    other["run"]["reasons"] = {**other["run"]["reasons"], "length": 3}
    (release / "manifest.json").write_text(json.dumps({**other, "release": name}))
    rewrite_manifest(release)


def add_file(release: Path) -> None:
    shutil.copyfile(release / "dataset/train.parquet", release / "dataset/extra.parquet")
    rewrite_manifest(release)


TRAIN, SAMPLES, VERDICTS = "dataset/train.parquet", "recording/samples.jsonl", "recording/verdicts.jsonl"
RECIPE = "recording/recipe.json"
DATA: dict[str, Tamper] = {
    "a word of a row": rows(TRAIN, change_word),
    "a row less": rows(TRAIN, lambda frame: frame[1:]),
    "a row twice": rows(TRAIN, lambda frame: pl.concat([frame, frame[:1]])),
    "two rows swapped": rows(TRAIN, lambda frame: frame[[1, 0, *range(2, len(frame))]]),
    "a held-out row that is trained on": rows("own.parquet", move_side),
    "a line of the other form": lines("dataset/messages/train.jsonl", lambda found: found.reverse()),
    "a file more": add_file,
    "the verdict of a check": lines(VERDICTS, flip_check),
    "a dropped sample kept": lines(VERDICTS, pardon),
    "another reason": lines(VERDICTS, blame_another),
    "the evidence of a check": lines(VERDICTS, change_evidence),
    "a verdict less": lines(VERDICTS, lambda found: found.pop() and None),
    "the count of kept samples": manifest(count_one_more),
    "the verdict on collapse": manifest(lambda whole: whole.update(verdict="pass")),
    "the record of collapse": manifest(lambda whole: whole["run"]["collapse"].update(verdict="pass")),
    "a reply of the generator": lines(SAMPLES, change_reply),
    "the scores of the critic": lines(SAMPLES, lower_scores),
    "a reply less": lines(SAMPLES, drop_reply),
    "the tokens of a reply": lines(SAMPLES, count_tokens),
    "the digest of a request": lines(SAMPLES, change_request),
    "the seed of a sample": lines(SAMPLES, change_seed),
    "the replies of two samples swapped": lines(SAMPLES, swap_samples),
    "the seed of all random choices": record(RECIPE, lambda whole: whole["recipe"].update(seed=8)),
    "the order of the filters": record(RECIPE, reverse_filters),
    "the order of the filters, with the digest": reverse_filters_everywhere,
    "a check less": record(RECIPE, lambda whole: whole["recipe"]["verifiers"].pop() and None),
    "the hash of a prompt": record(
        RECIPE, lambda whole: whole["identity"]["sources"].update({"prompts/generator.md": "0" * 16})
    ),
    "the digest of the run": manifest(lambda whole: whole["run"].update(digest="0" * 64)),
    "the whole manifest": replace_manifest,
}
PAPERS: dict[str, Tamper] = {
    "a sentence of the card": lambda release: (
        (release / "README.md").write_text("# Written by people\n"), rewrite_manifest(release)
    )[1],
    "the summary of training data": lambda release: (
        (release / "training-data-summary.md").write_text("none\n"), rewrite_manifest(release)
    )[1],
    "the version of a package": record("recording/inputs.json", lambda whole: whole["environment"].update(polars="0.1")),
    "the day": manifest(lambda whole: whole.update(released="2020-01-01T00:00:00+00:00")),
    "the cost": manifest(lambda whole: whole["run"]["costs"]["spent"].update(cost=99.0)),
}  # fmt: skip
