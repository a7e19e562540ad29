"""How a user words the requests of a conversation on a topic: styles with their first and later requests, and the purposes that a
user may give. Knows of a constraint only the name of its kind; knows no teacher and no sample.
"""

from collections.abc import Collection, Mapping, Sequence
from random import Random
from typing import Any, NamedTuple

from core.project_files import read_shipped_table


class RequestStyle(NamedTuple):
    """Wordings of one style; `{topic}` is replaced by the topic."""

    first: tuple[str, ...]
    later: tuple[str, ...]
    reminders: tuple[str, ...]
    """Sentences of a later request that keep the earlier rules in force."""


_WORDINGS: Mapping[str, Any] = read_shipped_table("data/seeds/request_wordings.toml")
REQUEST_STYLES = {
    name: RequestStyle(**{key: tuple(texts) for key, texts in style.items()})
    for name, style in _WORDINGS["styles"].items()
}
PLAIN_TASKS = REQUEST_STYLES["plain"].first
PLAIN_FOLLOW_UPS = tuple(_WORDINGS["plain_follow_ups"])
[PLAIN_REMINDER] = REQUEST_STYLES["plain"].reminders
PURPOSES = tuple(_WORDINGS["purposes"])
UNFIT_KINDS: Mapping[str, Collection[str]] = _WORDINGS["unfit_kinds"]


def draw_first_request(rng: Random, style: str, topic: str, purposes: float, kinds: Collection[str] = ()) -> str:
    """A first request in one of `REQUEST_STYLES` for an answer under rules of these kinds, in a share of `purposes` with the
    purpose of the text.
    """
    request = _fill(rng.choice(_list_fitting(REQUEST_STYLES[style].first, kinds)), topic)
    stated = rng.random() < purposes and "json_keys" not in kinds
    return f"{request} {rng.choice(_list_fitting(PURPOSES, kinds))}" if stated else request


def draw_later_requests(rng: Random, style: str, topic: str, kinds: Sequence[Collection[str]]) -> list[str]:
    """Later requests of the same user, different while there are wordings, each with a reminder of the earlier rules. `kinds`
    are the kinds of rules that hold for each.
    """
    wordings, requests, used = REQUEST_STYLES[style], [], set[str]()
    for held in kinds:
        fitting = _list_fitting(wordings.later, held)
        wording = rng.choice([one for one in fitting if one not in used] or fitting)
        used.add(wording)
        requests.append(f"{_fill(wording, topic)} {rng.choice(wordings.reminders)}")
    return requests


def _list_fitting(wordings: Sequence[str], kinds: Collection[str]) -> Sequence[str]:
    return [wording for wording in wordings if not {*UNFIT_KINDS.get(wording, ())} & {*kinds}] or wordings


def _fill(wording: str, topic: str) -> str:
    filled = wording.format(topic=topic)
    return filled[0].upper() + filled[1:]
