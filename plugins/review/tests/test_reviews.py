"""People's decisions: the log, what the page may show and do, and what they change in a run and in a judge's labels."""

import asyncio
import json
import math
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import aiohttp
import polars as pl
import pytest
from aiohttp.test_utils import TestClient, TestServer

from agents.checks.judge import read_labeled_answers
from core.config.recipe import Recipe
from core.errors import UsageError
from core.project_files import PROJECT
from core.runs.run_dir import RunDir
from core.sample import AgentTurn, Candidate, Critique, Message, RejectionReason, Sample, SampleStatus, Seed, TokenUsage
from core.storage.atomic_files import write_json
from core.storage.image_files import format_image_url, store_sample_images
from core.storage.sample_files import read_samples, write_samples
from flows.clean.run_curation import curate_run
from plugins.review.agreement import compute_kappa
from plugins.review.log import locate_reviews, read_reviews
from plugins.review.review_samples import ReviewSource, index_file, index_run
from plugins.review.review_server import build_review_application, load_review_page
from plugins.review.review_session import DecisionRequest, ReviewSession, SampleQuery
from plugins.review.summary import estimate_finite_share, summarize_reviews
from tests.core.storage.test_image_files import PIXEL
from tests.flows.commands.test_commands import called

HOSTILE = '<img src=x onerror="document.title=1"></script><script>alert(1)</script>'
TOKEN = "secret-of-this-test"
WORDS = ("amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "haze", "islet", "jetty")


def write_rows(folder: Path, count: int = 30) -> Path:
    file = folder / "rows.jsonl"
    rows = [{"messages": [{"role": "user", "content": f"Say {i}."}, {"role": "assistant", "content": f"It is {i}."}],
             "score": i / count} for i in range(count)]  # fmt: skip
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def decide(review: ReviewSession, name: str, decision: Any, answer: str | None = None, **more: Any) -> None:
    edited = None
    if answer is not None:
        messages = [Message.model_validate(m) for m in review.open_sample(name, SampleQuery())["messages"]]
        edited = [*messages[:-1], messages[-1].model_copy(update={"content": answer})]
    review.decide(DecisionRequest(sample=name, decision=decision, edited=edited, **more))


def names(source: ReviewSource) -> list[str]:
    return list(source.samples)


def test_two_reviewers_a_fixed_random_queue_and_an_estimate_of_the_error_rate(tmp_path: Path) -> None:
    file = write_rows(tmp_path)
    anna = ReviewSession(index_file(file), "anna", blind=True)
    anna.draw_queue(10, seed=4)
    assert anna.queue is not None
    queue = anna.queue.samples
    for place, name in enumerate(queue):
        decide(anna, name, "drop" if place == 0 else "keep", blind=True)
    ben = ReviewSession(index_file(file), "ben")
    ben.draw_queue(10, seed=4)
    assert ben.queue == anna.queue, "it is drawn once"
    assert ben.open_sample(queue[0], SampleQuery())["others"] == [], "hidden until he has decided"
    for place, name in enumerate(queue):
        decide(ben, name, "drop" if place in (0, 1) else "keep")
    assert ben.open_sample(queue[0], SampleQuery())["others"] == [{"reviewer": "anna", "decision": "drop", "note": ""}]
    listed = ben.list_samples(SampleQuery(status="disagree", scope="random"))
    assert [row["id"] for row in listed["rows"]] == [queue[1]]

    summary = summarize_reviews(read_reviews(locate_reviews(file)))
    assert summary is not None
    assert summary.error is not None
    assert summary.error.rate is not None
    assert (summary.reviewed, summary.kept, summary.dropped, summary.reviewers) == (10, 8, 2, {"anna": 10, "ben": 10})
    assert (summary.error.errors, summary.error.reviewed, summary.error.population) == (2, 10, 30)
    assert summary.error.rate.low <= 2 / 30 < summary.error.rate.value == 0.2 < summary.error.rate.high
    [pair] = summary.agreements
    assert (pair.agreed, pair.samples) == (9, 10)
    assert pair.kappa is not None
    assert pair.kappa.value == pytest.approx((0.9 - 0.74) / 0.26)  # both drop: .1 * .2; both keep: .9 * .8

    longer = ReviewSession(index_file(file), "anna")
    longer.draw_queue(20, seed=4)
    assert longer.queue is not None
    assert longer.queue.samples[:10] == queue, "a longer queue begins with the shorter one"
    estimate = longer.summarize()["reviews"]["error"]
    assert (estimate["size"], estimate["reviewed"]) == (20, 10)
    assert "the first 10 reviewed" in " ".join(longer.summarize()["sentences"])
    assert [one.partition(" rate ")[0] for one in longer.summarize()["estimate"]][:1] == ["error"]
    assert set(longer.summarize()["estimate"]) < set(longer.summarize()["sentences"])
    (tmp_path / "more").mkdir()
    assert ReviewSession(index_file(write_rows(tmp_path / "more")), "anna").summarize()["estimate"] == []


def test_undo_next_unsure_search_and_blind_mode(tmp_path: Path) -> None:
    review = ReviewSession(index_file(write_rows(tmp_path)), "anna")
    first, second, *_ = names(review.source)
    decide(review, first, "fix", "It is zero.", scores={"quality": 4})
    decide(review, second, "drop", note="wrong")
    assert review.find_next("", SampleQuery(order="unsure", status="open")) == names(review.source)[2], "lowest score"
    assert review.list_samples(SampleQuery(search="SAY 1"))["total"] == 11
    assert review.undo() == second
    assert review.undo() == first
    assert review.undo() is None
    assert review.list_samples(SampleQuery(status="reviewed"))["total"] == 0
    assert len(read_reviews(review.log.path).samples) == 2, "nothing is removed from the log"
    for wrong, sentence in (
        ({"sample": "?", "decision": "keep"}, "has no such sample"),
        ({"sample": first, "decision": "fix"}, "a correction has the same turns"),
        ({"sample": first, "decision": "label"}, "a label needs a score or a note"),
        ({"sample": first, "decision": "keep", "scores": {"taste": 3}}, "taste: no such rubric"),
    ):
        request = DecisionRequest.model_validate(wrong)
        with pytest.raises(UsageError, match=sentence):
            review.decide(request)
    with pytest.raises(UsageError, match="nothing is changed"):
        decide(review, first, "fix", "It is 0.")


def make_sample(number: int, state: SampleStatus, score: int, answer: str) -> Sample:
    name = f"x-{number:06d}"
    turn = AgentTurn(
        agent="generator", revision=0, attempt=0, teacher="fake/x", asked="?", reply="r", usage=TokenUsage()
    )
    return Sample(
        id=name, seed=Seed(id=name, data={"topic": WORDS[number]}), state=state,
        reason=None if state is SampleStatus.kept else RejectionReason.critic, detail="" if score > 2 else "style",
        candidate=Candidate(messages=[
            Message(role="user", content=f"Write about {WORDS[number]}."), Message(role="assistant", content=answer)
        ], fields={"question": f"Write about {WORDS[number]}.", "reasoning": "first this, then that"}),
        revisions=0, turns=[turn], critiques=[Critique(revision=0, scores={"style": score}, faults=[], advice="")],
        verdicts=[], usage=TokenUsage(),
    )  # fmt: skip


def make_run(folder: Path) -> tuple[RunDir, Recipe]:
    """Samples 0 to 4 are kept by agents, of which 4 repeats 3, and 5 and 6 are dropped."""
    run = RunDir(folder / "run")
    answers = [f"{word} is a thing that {word} people like on {word} days." for word in WORDS]
    answers[4] = answers[3]
    kept = [make_sample(i, SampleStatus.kept, 3 + i % 3, answers[i]) for i in range(5)]
    dropped = [make_sample(i, SampleStatus.dropped, 2, answers[i]) for i in (5, 6)]
    write_samples(run.shard_file(0), [*kept, *dropped])
    recipe = Recipe.model_validate(
        {"name": "x", "samples": 7, "seeds": {}, "filters": [{"type": "exact", "of": "answer"}]}
    )
    write_json(run.recipe_file, {"recipe": recipe.model_dump(mode="json")})
    curate_run(run, recipe, [], folder)
    return run, recipe


def test_a_persons_word_beats_agents_and_filters_and_is_taken_back(tmp_path: Path) -> None:
    run, recipe = make_run(tmp_path)
    before = run.kept_file(0).read_bytes(), run.dropped_file(0).read_bytes()
    assert [one.id[-1] for one in read_samples(run.kept_file(0))] == ["0", "1", "2", "3"]
    review = ReviewSession(index_run(run), "anna")
    hidden = review.open_sample("x-000004", SampleQuery(blind=True))
    assert not {"state", "reason", "detail", "scores", "history"} & hidden.keys()
    assert review.open_sample("x-000004", SampleQuery())["reason"] == "exact_duplicate"
    assert review.source.population == [f"x-00000{i}" for i in range(4)]
    assert review.find_next("", SampleQuery(order="unsure")) == "x-000000", "3 is nearest to the critic's min_score"

    decide(review, "x-000000", "drop", note="about\nnothing")
    decide(review, "x-000001", "fix", "A birch is a tree.")
    decide(review, "x-000004", "keep")
    decide(review, "x-000005", "keep", scores={"style": 5})
    curated = curate_run(run, recipe, [], tmp_path)
    kept, dropped = read_samples(run.kept_file(0)), read_samples(run.dropped_file(0))
    assert [one.id[-1] for one in kept] == ["1", "2", "3", "4", "5"]
    assert kept[0].answer == "A birch is a tree."
    assert kept[0].candidate.fields == {"question": "Write about birch."}, "the reasoning was of another answer"
    assert [(one.id[-1], one.reason, one.detail) for one in dropped] == [
        ("0", RejectionReason.review, "about nothing"), ("6", RejectionReason.critic, "style"),
    ]  # fmt: skip
    assert curated.reasons == {"critic:style": 1, "review": 1}
    assert (curated.counts.kept, curated.counts.dropped) == (5, 2)
    summary = summarize_reviews(read_reviews(locate_reviews(run.path)))
    assert summary is not None
    assert (summary.reviewed, summary.corrected, summary.rescued) == (4, 1, 2)

    again = ReviewSession(index_run(run), "anna")
    opened = again.open_sample("x-000001", SampleQuery())
    assert opened["messages"][1]["content"].startswith("birch is a thing"), "the text from before the correction"
    assert (opened["state"], opened["edited"][1]["content"]) == ("kept", "A birch is a tree.")
    critic = again.summarize()["critic"]
    assert (critic["good"], critic["poor"], critic["rubrics"][0]["mean_difference"]) == (2, 2, -3)

    while again.undo():
        pass
    curate_run(run, recipe, [], tmp_path)
    assert (run.kept_file(0).read_bytes(), run.dropped_file(0).read_bytes()) == before


def test_a_person_sees_the_pictures_of_a_sample_and_a_correction_keeps_them(tmp_path: Path) -> None:
    run, recipe = make_run(tmp_path)
    sample = make_sample(0, SampleStatus.kept, 4, "A pixel.")
    asked = Message(role="user", content="What is it?", images=(format_image_url(PIXEL), "https://example.com/a.png"))
    candidate = sample.candidate.model_copy(update={"messages": [asked, *sample.candidate.messages[1:]]})
    sample = store_sample_images(run.path, sample.model_copy(update={"candidate": candidate}))
    write_samples(run.shard_file(0), [sample])
    curate_run(run, recipe, [], tmp_path)
    review = ReviewSession(index_run(run), "anna")
    opened = review.open_sample(sample.id, SampleQuery())
    (name, _) = opened["messages"][0]["images"]
    assert opened["pictures"] == {name: format_image_url(PIXEL)}
    decide(review, sample.id, "fix", "A white pixel.")
    curate_run(run, recipe, [], tmp_path)
    (kept,) = read_samples(run.kept_file(0))
    assert kept.answer == "A white pixel."
    assert kept.candidate.messages[0].images == (name, "https://example.com/a.png")
    (run.path / name).write_bytes(b"")
    assert review.open_sample(sample.id, SampleQuery())["pictures"] == {}, "what is damaged is not shown"


def test_the_reviews_of_a_run_are_the_labels_of_a_judge(tmp_path: Path) -> None:
    run, _ = make_run(tmp_path)
    review = ReviewSession(index_run(run), "anna")
    decide(review, "x-000000", "keep")
    with pytest.raises(UsageError, match="no answer with `good`: false"):
        read_labeled_answers(locate_reviews(run.path))
    decide(review, "x-000001", "fix", "A birch is a tree.")
    decide(review, "x-000003", "drop")
    decide(review, "x-000002", "label", note="to be discussed")
    labels = read_labeled_answers(locate_reviews(run.path))
    assert [(label.good, label.candidate.answer[:8]) for label in labels] == [
        (True, "amber is"), (False, "birch is"), (True, "A birch "), (False, "delta is"),
    ]  # fmt: skip


@pytest.mark.attack(
    "another page or program calls the page of `review`: DNS rebinding, a foreign `Origin` or site, no secret, a "
    "form's content type",
    "403, 415 or 421; nothing is written",
)
def test_the_server_answers_its_own_page_alone(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    rows = [[{"role": "user", "content": HOSTILE}, {"role": "assistant", "content": "\ud800" + HOSTILE}]]
    file.write_text("".join(json.dumps({"messages": row}) + "\n" for row in rows))
    review = ReviewSession(index_file(file), "anna")
    [name] = names(review.source)

    async def run() -> None:
        async with TestClient(TestServer(build_review_application(review, TOKEN), host="127.0.0.1")) as client:
            page = await client.get(f"/{TOKEN}/")
            assert page.status == 200
            policy = page.headers["Content-Security-Policy"]
            assert "default-src 'none'" in policy
            assert "unsafe" not in policy
            assert HOSTILE not in await page.text()
            api = f"/{TOKEN}/api"
            sample = await client.get(f"{api}/sample", params={"id": name})
            assert sample.content_type == "application/json"
            assert [m["content"] for m in (await sample.json())["messages"]] == [HOSTILE, "?" + HOSTILE]
            keep = {"sample": name, "decision": "keep"}
            here = str(client.make_url("/")).rstrip("/")
            for status, path, kind, options in (
                (403, "/wrong/api/state", "GET", {}),
                (403, "/", "GET", {}),
                (421, f"{api}/state", "GET", {"headers": {"Host": "evil.example"}}),
                (403, f"{api}/decisions", "POST", {"json": keep, "headers": {"Origin": "http://evil.example"}}),
                (403, f"{api}/decisions", "POST", {"json": keep, "headers": {"Origin": "null"}}),
                (403, f"{api}/decisions", "POST", {"json": keep, "headers": {"Sec-Fetch-Site": "cross-site"}}),
                (415, f"{api}/decisions", "POST", {"data": json.dumps(keep)}),
                (400, f"{api}/decisions", "POST", {"json": {**keep, "reviewer": "eve"}}),
                (400, f"{api}/samples?limit=100000", "GET", {}),
                (405, f"{api}/decisions", "GET", {}),
                (404, f"{api}/../etc", "GET", {}),
            ):
                reply = await client.request(kind, path, **options)
                assert (reply.status, "error" in await reply.json()) == (status, True), path
                assert reply.headers["X-Frame-Options"] == "DENY"
            assert not review.log.path.exists()
            reply = await client.post(f"{api}/decisions", json=keep, headers={"Origin": here})
            assert reply.status == 200, await reply.text()
            assert [entry.reviewer for _, entry in read_reviews(review.log.path).list_decided()] == ["anna"]

    asyncio.run(run())


def test_the_page_inserts_no_markup_and_loads_nothing() -> None:
    page, _ = load_review_page()
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function", page)
    assert not re.search(r"""(?:src|href)=["'](?!data:,|#)""", page)
    assert " style=" not in page, "the policy would refuse it"


@pytest.mark.waits
def test_no_acknowledged_decision_is_lost_when_the_server_is_killed(tmp_path: Path) -> None:
    """Two tabs decide at once; the process gets SIGKILL in between; another one continues after a torn line."""
    file = write_rows(tmp_path, 60)
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    acknowledged: list[str] = []

    async def decide_until_killed() -> None:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "stillhouse", "review", str(file), "--reviewer", "anna", "--no-browser",
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=PROJECT, env=environment,
        )  # fmt: skip
        assert process.stdout
        address = re.search(r"http://\S+", (await process.stdout.readline()).decode())
        assert address
        source = index_file(file)
        waiting = iter([name for name in source.samples if name not in acknowledged])

        async def tab(client: aiohttp.ClientSession) -> None:
            for name in waiting:
                try:
                    async with client.post(
                        f"{address[0]}api/decisions", json={"sample": name, "decision": "keep"}
                    ) as reply:
                        assert reply.status == 200
                except aiohttp.ClientError:
                    return
                acknowledged.append(name)
                if len(acknowledged) % 15 == 0:
                    process.send_signal(signal.SIGKILL)

        async with aiohttp.ClientSession() as client:
            await asyncio.gather(tab(client), tab(client))
        assert await process.wait() == -signal.SIGKILL

    asyncio.run(decide_until_killed())
    log = locate_reviews(file)
    with log.open("ab") as torn:
        torn.write(b'{"sample": "half a li')
    asyncio.run(decide_until_killed())
    kept = {name for name, entry in read_reviews(log).list_decided() if entry.decision == "keep"}
    assert len(acknowledged) >= 30
    assert set(acknowledged) <= kept
    assert pl.read_ndjson(log)["sample"].n_unique() == len(kept), "every line is whole"


def test_named_columns_reach_the_reader(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"asked": "Why?", "said": "Because."}\n')
    code, _, err = called(capsys, "review", str(rows), "--summary", "--columns", "user=asked,assistant=sad")
    assert (code, "has no `sad`, which --columns names" in err) == (2, True)


def test_kappa_has_published_values() -> None:
    # Cohen (1960), A coefficient of agreement for nominal scales, Educational and Psychological Measurement 20, 37-46, table 1:
    # proportions of three categories; kappa is .492.
    shares = [[0.44, 0.05, 0.01], [0.07, 0.20, 0.03], [0.09, 0.05, 0.06]]
    pairs = [(a, b) for a, row in enumerate(shares) for b, share in enumerate(row) for _ in range(round(share * 200))]
    kappa = compute_kappa(pairs)
    assert kappa
    assert kappa.value == pytest.approx(0.492, abs=5e-4)
    assert kappa.low < kappa.value < kappa.high
    assert compute_kappa([]) is None
    assert compute_kappa([("keep", "keep")] * 9) is None, "one label says nothing about agreement"


@pytest.mark.parametrize(("population", "tries"), [(20, 10), (40, 25), (60, 8)])
def test_the_exact_interval_of_a_finite_population_covers_95_percent(population: int, tries: int) -> None:
    covered = []
    for hits in range(population + 1):
        chances = {k: math.comb(hits, k) * math.comb(population - hits, tries - k) for k in range(tries + 1)}
        estimates = {k: estimate_finite_share(k, tries, population) for k, chance in chances.items() if chance}
        inside = [k for k, one in estimates.items() if one and one.low <= hits / population <= one.high]
        covered.append(sum(chances[k] for k in inside) / math.comb(population, tries))
    assert 0.95 <= min(covered) < 0.99


def test_a_whole_population_has_no_interval_and_a_small_part_that_of_clopper_and_pearson() -> None:
    whole = estimate_finite_share(3, 60, 60)
    assert whole
    assert (whole.low, whole.value, whole.high) == (0.05, 0.05, 0.05)
    part = estimate_finite_share(4, 100, 10_000_000)
    assert part
    assert (part.low, part.high) == pytest.approx(
        (0.0110045, 0.0992572), abs=2e-6
    )  # scipy.stats.binomtest, method "exact"
    assert estimate_finite_share(0, 0, 10) is None
