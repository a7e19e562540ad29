"""The page of `stillhouse review` in a real browser, by keyboard alone, with hostile samples."""

import asyncio
import json
from pathlib import Path

import pytest
from aiohttp.test_utils import TestServer

from plugins.review.log import read_reviews
from plugins.review.review_samples import index_file
from plugins.review.review_server import build_review_application
from plugins.review.review_session import ReviewSession
from tests.support.devtools import CONTROL, SHIFT, BrowserPage, open_browser_page

HOSTILE = '<img src=x onerror="document.title=\'broken\'"><script>document.title="broken"</script>{{7*7}}'
COUNT = 10_000
ACTIVE = "document.activeElement"
DESCRIBE_FOCUS = """(() => {
  const here = document.activeElement, label = here.labels && here.labels[0] ? here.labels[0].textContent : "";
  const name = (here.getAttribute("aria-label") || here.textContent || label).trim();
  return [here.id || here.name || name, getComputedStyle(here).outlineStyle, name];
})()"""


def text_of(name: str) -> str:
    return f"document.getElementById('{name}').textContent"


async def wait_for_sample(page: BrowserPage, name: str) -> None:
    await page.wait_for(f"{text_of('title')} === '{name}'")


async def review_by_keyboard(page: BrowserPage, names: list[str]) -> None:
    await wait_for_sample(page, names[0])
    assert await page.evaluate("document.querySelectorAll('*').length") < 400, "10,000 samples are not 10,000 nodes"
    assert HOSTILE in await page.evaluate(text_of("conversation"))

    await page.press("k")
    await wait_for_sample(page, names[1])
    await page.wait_for(f"{text_of('status')}.includes('{names[0]} kept')")
    assert await page.evaluate(f"{ACTIVE}.id") == "title", "where a screen reader continues"
    await page.press("4")
    await page.press("m")
    await page.wait_for(f"{ACTIVE}.id === 'note'")
    await page.write("dull")
    await page.press("Escape")
    await page.press("d")
    await wait_for_sample(page, names[2])

    await page.press("e")
    await page.wait_for(f"{ACTIVE}.tagName === 'TEXTAREA' && {ACTIVE}.getAttribute('aria-label') === 'Edit the answer'")
    await page.write(" Corrected kd.")
    await page.wait_for(
        "document.querySelector('ins') && document.querySelector('ins').textContent.includes('Corrected')"
    )
    await page.press("Enter", CONTROL)
    await wait_for_sample(page, names[3])

    await page.press("k")
    await wait_for_sample(page, names[4])
    await page.press("z")
    await wait_for_sample(page, names[3])

    await page.press("/")
    await page.write("number 77 PLEASE")
    await page.press("Enter")
    await wait_for_sample(page, names[77])
    await page.press("Escape")
    await page.press("t")
    await page.wait_for("document.querySelectorAll('#rows tr').length === 1")
    await page.press("?", SHIFT)
    await page.wait_for("document.getElementById('help').open")
    await page.press("Escape")
    await page.wait_for("!document.getElementById('help').open")

    # Every control can be reached by Tab and has a visible focus and a name.
    seen: dict[str, bool] = {}
    for _ in range(40):
        await page.press("Tab")
        where = await page.evaluate(DESCRIBE_FOCUS)
        seen[where[0]] = where[1] != "none" and bool(where[2])
    assert {"view", "results", "keys", "search", "status", "order", "blind", "undo", "unsure"} <= seen.keys()
    assert all(focused for name, focused in seen.items() if name in ("view", "results", "search", "status", "undo"))


@pytest.mark.attack(
    "a sample with script, markup or half a surrogate pair on the page of `review`",
    "shown as text; no script but the page's own runs, and nothing is loaded",
)
@pytest.mark.slow
def test_ten_thousand_hostile_samples_are_reviewed_by_keyboard_alone(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    with file.open("w") as rows:
        for i in range(COUNT):
            turns = [
                {"role": "user", "content": f"Number {i} please. {HOSTILE}"},
                {"role": "assistant", "content": f"It is {i}."},
            ]
            rows.write(json.dumps({"messages": turns}) + "\n")
    review = ReviewSession(index_file(file), "anna")
    names = list(review.source.samples)

    async def run() -> None:
        async with TestServer(build_review_application(review, "token"), host="127.0.0.1") as server:
            url = str(server.make_url("/token/"))
            async with open_browser_page(tmp_path / "profile") as page:
                await page.show_as(1200, 900, "dark")
                await page.visit(url)
                await review_by_keyboard(page, names)
                assert await page.evaluate("document.title") == "Review: rows.jsonl", "no script of a sample has run"
                await page.show_as(390, 844, "light", mobile=True)
                assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth"), (
                    "no sideways scrolling"
                )
                assert page.complaints == []
                assert [one for one in page.requests if not one.startswith((url, "data:"))] == []

    asyncio.run(run())
    decided = dict(read_reviews(review.log.path).list_decided())
    assert {name: entry.decision for name, entry in decided.items()} == {
        names[0]: "keep", names[1]: "drop", names[2]: "fix",
    }  # fmt: skip
    assert (decided[names[1]].note, decided[names[1]].scores) == ("dull", {"quality": 4})
    assert decided[names[2]].edited is not None
    assert decided[names[2]].edited[-1].content == "It is 2. Corrected kd."
