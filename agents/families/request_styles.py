"""How a user words the requests of a conversation on a topic: styles with their first and later requests, and the purposes that a
user may give. Knows no constraint, teacher or sample.
"""

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
    "plain": RequestStyle(PLAIN_TASKS, PLAIN_FOLLOW_UPS, (PLAIN_REMINDER,)),
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
    "I work nights and read such things on my break.",
    "It is the first page of a scrapbook.",
    "I am a nurse, and patients ask me about all sorts of things.",
    "I drive a bus and like to think about something new.",
    "I am new in this country and want to join in when people talk about it.",
    "My scout group meets on Friday.",
    "It is for a museum label that nobody has written yet.",
)
"""What a user may say of the text that is wanted; each fits every topic."""


def draw_first_request(rng: Random, style: str, topic: str, purposes: float) -> str:
    """A first request in one of `REQUEST_STYLES`, in a share of `purposes` with the purpose of the text."""
    request = _fill(rng.choice(REQUEST_STYLES[style].first), topic)
    return f"{request} {rng.choice(PURPOSES)}" if rng.random() < purposes else request


def draw_later_requests(rng: Random, style: str, topic: str, count: int) -> list[str]:
    """Later requests of the same user, different while there are wordings, each with a reminder of the earlier rules."""
    wordings = REQUEST_STYLES[style]
    later = [*rng.sample(wordings.later, len(wordings.later)), *rng.choices(wordings.later, k=count)][:count]
    return [f"{_fill(wording, topic)} {rng.choice(wordings.reminders)}" for wording in later]


def _fill(wording: str, topic: str) -> str:
    filled = wording.format(topic=topic)
    return filled[0].upper() + filled[1:]
