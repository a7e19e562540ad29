"""A text of each form of the general panel, with the parameters of its check."""

from typing import Any

LINES = "Zoos are large and old,\nlions there are bold,\nbears sleep in the sun,\nmonkeys climb and run."
TWO = f"Zoos keep animals that many people never see outside.\n\n{'Visitors walk along the cages and read the signs there.'}"
FORM_TEXTS: dict[str, tuple[dict[str, Any], str]] = {
    "long_text": ({"n": 50}, "Zoos keep many animals from far away. " * 8),
    "two_paragraphs": ({"n": 2}, TWO),
    "two_words": ({"words": ["animals", "cages"]}, "Zoos keep animals in cages."),
    "repeated_word": ({"word": "cages", "n": 2}, "Zoos have cages. Some cages are small."),
    "figure": ({}, "The oldest zoo opened in 1752."),
    "three_tips": ({"n": 3}, "1. Go early.\n2. Bring water.\n3. Feed no animals."),
    "advice": ({}, "You should go early."),
    "memory": ({}, "I remember the zoo of my town."),
    "list": ({"n": 3}, "Here they are:\n- lions\n- bears\n- monkeys"),
    "paragraphs": ({"n": 2}, TWO),
    "letter": ({}, "Dear friend,\nthe zoo is open again."),
    "email": ({}, "Subject: Zoos\n\nDear all, the zoo is open."),
    "poem": ({}, LINES),
    "dialogue": ({"names": ["Anna", "Ben"]}, "Anna: I love zoos.\nBen: I do not."),
    "compare": ({"other": "soap"}, "Zoos smell of animals. Soap smells of flowers."),
    "fairy_tale": ({"opening": "Once upon a time"}, "Once upon a time, a zoo lost its lions."),
    "steps": ({}, "Step 1: Buy a ticket.\nStep 2: Walk in.\nStep 3: Look."),
    "speech": ({}, 'The keeper said: "The lions are asleep."'),
}
