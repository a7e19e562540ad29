"""What the bike shop may write to a customer. Its prices are those of `generator.md`."""

import re

from stillhouse.checks import Options, Subject, check

PRICES = {18, 25, 28, 30, 35, 45, 95}


class ShopOptions(Options):
    min_words: int = 5
    max_words: int = 60
    """Of each answer."""


@check("shop_answers", ShopOptions)
def shop_answers(subject: Subject, options: ShopOptions) -> str | None:
    """Every answer must be short and may only name prices of the shop."""
    for turn in subject.candidate.messages:
        if turn.role != "assistant":
            continue
        if not options.min_words <= (words := len(turn.content.split())) <= options.max_words:
            return f"use {options.min_words} to {options.max_words} words, not {words}: {turn.content[:40]!r}"
        for price in re.findall(r"\$ ?(\d+(?:\.\d+)?)|(\d+(?:\.\d+)?) dollars", turn.content):
            if float("".join(price)) not in PRICES:
                return f"${''.join(price)} is no price of the shop; offer a free estimate"
    return None
