"""How a user words the requests of a conversation on a topic: styles with their first and later requests, and the purposes that a
user may give. Knows of a constraint only the name of its kind; knows no teacher and no sample.
"""

from collections.abc import Collection, Mapping, Sequence
from random import Random
from typing import NamedTuple


class RequestStyle(NamedTuple):
    """Wordings of one style; `{topic}` is replaced by the topic."""

    first: tuple[str, ...]
    later: tuple[str, ...]
    reminders: tuple[str, ...]
    """Sentences of a later request that keep the earlier rules in force."""


PLAIN_TASKS = (
    "Write about {topic}.",
    "Write a short note about {topic}.",
    "Tell me something about {topic}.",
    "Describe {topic}.",
)
PLAIN_FOLLOW_UPS = (
    "Write it again.",
    "Say it in another way.",
    "Now write about {topic} for a child.",
    "What else can you say about {topic}?",
)
PLAIN_REMINDER = "Keep to all rules so far."
REQUEST_STYLES = {
    "plain": RequestStyle(
        PLAIN_TASKS,
        (
            "What else can you say about {topic}?",
            "Now write about {topic} for a child.",
            "Tell me more about {topic}.",
            "Add something that few people know about {topic}.",
        ),
        (PLAIN_REMINDER,),
    ),
    "polite": RequestStyle(
        (
            "Could you please write a few lines about {topic}?",
            "I would be grateful for a short text about {topic}.",
            "Would you mind telling me something about {topic}?",
            "Please tell me what is worth knowing about {topic}.",
        ),
        (
            "Thank you. Could you write about {topic} once more, with other examples?",
            "That is helpful. Would you add something less well known about {topic}?",
            "Thanks. Could you now say it for someone who has never heard of {topic}?",
            "Very kind. What would you warn a beginner about when it comes to {topic}?",
        ),
        ("Please keep to all my earlier rules.", "All the rules that I gave still apply, please."),
    ),
    "terse": RequestStyle(
        (
            "{topic}: a short text.",
            "A few lines on {topic}.",
            "Main points about {topic}?",
            "Something on {topic}, please.",
        ),
        ("Again, from another side.", "More on {topic}.", "One more fact about {topic}.", "Same again for children."),
        ("Same rules.", "Earlier rules still hold.", "All rules so far apply."),
    ),
    "chatty": RequestStyle(
        (
            "So I was thinking about {topic} the other day and realized how little I know. Fill me in?",
            "Okay, odd question: what can you tell me about {topic}?",
            "My friend keeps going on about {topic}. Give me something to say back.",
            "Help me out here, I need a little text about {topic}.",
        ),
        (
            "Ha, nice. Got anything else on {topic}?",
            "Good, but my friend will want an example. Try again with one?",
            "Okay, and how would you put that to a kid?",
            "Right, and what do people usually get wrong about {topic}?",
        ),
        ("Oh, and stick to my rules from before.", "Same rules as before, all of them."),
    ),
    "curious": RequestStyle(
        (
            "What should everyone know about {topic}?",
            "What is interesting about {topic}?",
            "What would you tell a visitor from another century about {topic}?",
            "If you could say only a little about {topic}, what would it be?",
        ),
        (
            "What surprises most people about {topic}?",
            "Why does that matter to somebody who has nothing to do with {topic}?",
            "What would an expert on {topic} add?",
            "What is the best thing about {topic}?",
            "And what makes {topic} worth a second look?",
            "Which question about {topic} do people ask too seldom?",
            "How would you explain the same to a ten-year-old?",
        ),
        ("The rules so far still hold.", "Go on following every rule so far."),
    ),
}
PURPOSES = (
    "It is for the notice board of our library.",
    "I need it for a class of ten-year-olds.",
    "I want to read it out at dinner.",
    "It goes into the newsletter of our street.",
    "I am preparing a quiz evening.",
    "It is for a visitor who knows nothing about it.",
    "My grandmother asked me, and I had no answer.",
    "I have two minutes before a meeting.",
    "It will be printed on a small card.",
    "I write a column for a local paper.",
    "It is for people who are learning English.",
    "I have to say a few words about it tomorrow.",
    "It is for a waiting room, to be read in passing.",
    "I would like to send it to a pen friend.",
    "A colleague and I disagree about it.",
    "I am making a calendar with a text for each month.",
    "It is for the back of a postcard.",
    "My niece asked me, and I want to give her a good answer.",
    "I want to understand it better myself.",
    "My scout group meets on Friday.",
)
"""What a user may say of the text that is wanted; each fits every topic."""
FORMS_FOR_THE_EYE = frozenset(
    "lowercase uppercase no_commas bullets numbered bold_word heading in_quotes postscript json_keys".split()
)
"""Kinds of rules that a listener cannot hear."""
GENERAL = frozenset({"first_person"})
"""What most people know, or what one would tell a child, is no experience of one's own."""
UNFIT_KINDS: Mapping[str, Collection[str]] = {
    "Now write about {topic} for a child.": GENERAL,
    "Thanks. Could you now say it for someone who has never heard of {topic}?": GENERAL,
    "Same again for children.": GENERAL,
    "One more fact about {topic}.": {"bullets", "numbered", "exact_paragraphs"},
    "Okay, and how would you put that to a kid?": GENERAL,
    "Right, and what do people usually get wrong about {topic}?": GENERAL,
    "What should everyone know about {topic}?": GENERAL,
    "What would you tell a visitor from another century about {topic}?": {"max_words", "max_sentence_words"},
    "If you could say only a little about {topic}, what would it be?": {"min_words", "exact_paragraphs"},
    "What surprises most people about {topic}?": GENERAL,
    "Why does that matter to somebody who has nothing to do with {topic}?": {"max_words", "bullets", "numbered"},
    "What would an expert on {topic} add?": GENERAL,
    "Which question about {topic} do people ask too seldom?": GENERAL,
    "How would you explain the same to a ten-year-old?": GENERAL,
    "I want to read it out at dinner.": FORMS_FOR_THE_EYE,
    "I have to say a few words about it tomorrow.": FORMS_FOR_THE_EYE,
    "It will be printed on a small card.": {"min_words", "exact_paragraphs"},
    "It is for the back of a postcard.": {"heading", "exact_paragraphs"},
}
"""By wording or purpose, the kinds of rules with which it makes little sense. No purpose goes with a JSON object."""


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
