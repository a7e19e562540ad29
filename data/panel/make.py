"""Make `questions.jsonl` again: short questions, each with one known answer.

    python data/panel/make.py data/panel/questions.jsonl

Tables of facts that are written here, put into several wordings, and arithmetic and word tasks of reasoning-gym (Apache-2.0, the
extra `reasoning`) at their easiest settings. Facts are split between the parts `test` and `validation`, so that no fact is in both.
"""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

SEED = 20
GYM_QUESTIONS = 40
"""Questions of each task of reasoning-gym."""
GYM_TASKS: dict[str, dict[str, Any]] = {
    "products": {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1},
    "needle_haystack": {"min_num_statements": 2, "max_num_statements": 3},
}
CAPITALS = """France Paris, Italy Rome, Spain Madrid, Germany Berlin, Japan Tokyo, China Beijing, Russia Moscow, Egypt Cairo,
Greece Athens, Portugal Lisbon, Austria Vienna, Poland Warsaw, Sweden Stockholm, Norway Oslo, Finland Helsinki, Ireland Dublin,
Canada Ottawa, Cuba Havana, Peru Lima, Kenya Nairobi, Thailand Bangkok, India Delhi, Hungary Budapest, Denmark Copenhagen,
Belgium Brussels, Argentina Buenos-Aires, Iraq Baghdad, Iran Tehran, Turkey Ankara, Ukraine Kyiv, Vietnam Hanoi, Chile Santiago,
Australia Canberra, Iceland Reykjavik, Nepal Kathmandu, Indonesia Jakarta, Colombia Bogota, Venezuela Caracas, Lebanon Beirut,
Romania Bucharest"""
OPPOSITES = """hot cold, big small, up down, left right, day night, happy sad, fast slow, open closed, light dark, old new, high low,
full empty, hard soft, wet dry, strong weak, rich poor, early late, long short, near far, loud quiet, good bad, black white, win lose,
push pull, love hate, start stop, buy sell, give take, in out, true false, thick thin, clean dirty, heavy light, inside outside,
first last, alive dead, begin end, deep shallow, wide narrow, asleep awake"""
PLURALS = """mouse mice, foot feet, tooth teeth, child children, man men, woman women, goose geese, leaf leaves, knife knives,
baby babies, city cities, box boxes, bus buses, wolf wolves, person people, lady ladies, dish dishes, potato potatoes, hero heroes,
wife wives, ox oxen, story stories, party parties, glass glasses, half halves, country countries, berry berries, church churches,
shelf shelves, fox foxes"""
PASTS = """go went, eat ate, see saw, run ran, buy bought, take took, write wrote, give gave, come came, think thought, speak spoke,
drink drank, swim swam, fly flew, sing sang, break broke, bring brought, teach taught, catch caught, drive drove, find found, sleep slept,
know knew, begin began, make made, leave left, sell sold, feel felt, win won, grow grew"""
CONTINENTS = """France Europe, Brazil South-America, Egypt Africa, China Asia, Canada North-America, Kenya Africa, Japan Asia,
Spain Europe, India Asia, Nigeria Africa, Mexico North-America, Germany Europe, Argentina South-America, Thailand Asia, Italy Europe,
Morocco Africa, Vietnam Asia, Poland Europe, Chile South-America, Ghana Africa, Sweden Europe, Peru South-America, Norway Europe,
Pakistan Asia"""
LANGUAGES = """France French, Spain Spanish, Germany German, Italy Italian, Japan Japanese, Mexico Spanish, Portugal Portuguese,
Brazil Portuguese, Russia Russian, Greece Greek, Poland Polish, Egypt Arabic, Argentina Spanish, Austria German, Sweden Swedish,
Turkey Turkish, Hungary Hungarian, Finland Finnish, Thailand Thai, Vietnam Vietnamese, Denmark Danish, Norway Norwegian,
Iran Persian, Cuba Spanish"""
COUNTS = """the legs of a spider: 8; the legs of an insect: 6; the wheels of a bicycle: 2; the wheels of a car: 4; the days of a week: 7;
the months of a year: 12; the hours of a day: 24; the minutes of an hour: 60; the seconds of a minute: 60; the fingers of one hand: 5;
the sides of a triangle: 3; the sides of a square: 4; the players of a soccer team on the field: 11; the letters of the English alphabet: 26;
the colors of a rainbow: 7; the planets of our solar system: 8; the legs of a dog: 4; the cents of a dollar: 100; the years of a century: 100;
the years of a decade: 10; the sides of a hexagon: 6; the arms of an octopus: 8; the wheels of a tricycle: 3; the eggs of a dozen: 12;
the sides of a pentagon: 5; the strings of a violin: 4; the seasons of a year: 4; the legs of a chicken: 2; the weeks of a year: 52;
the degrees of a right angle: 90"""
KINDS_OF = """rose flower, salmon fish, hammer tool, violin instrument, apple fruit, carrot vegetable, sparrow bird, oak tree, chair furniture,
ant insect, soccer sport, gold metal, January month, Monday day, Europe continent, purple color, shirt clothing, bus vehicle, tulip flower,
trout fish, piano instrument, banana fruit, eagle bird, pine tree, bee insect, tennis sport, iron metal, Friday day, blue color, train vehicle,
potato vegetable, table furniture, screwdriver tool, jacket clothing, August month, Africa continent"""
REPEATED = """The cat sleeps on the sofa.; My brother likes green apples.; It is raining in the city.; We will meet at the station.;
The door is closed.; Birds sing in the morning.; She bought three red pens.; The soup is too hot.; Our train leaves at noon.; I can see the sea.;
The old man reads a letter.; Please bring your own chair.; The lamp is on the table.; They walked home slowly.; Nobody opened the window.;
The baker makes sweet rolls.; His hat fell into the river.; Winter came early this year.; The children play outside.; You can keep the change.;
A dog ran across the road.; The museum opens at ten.; My shoes are wet.; Her answer was short.; The bridge is very long.; The queen wore a blue dress.;
He forgot his umbrella.; The map is wrong.; Two boats crossed the lake.; The party starts at seven."""
PERSONS = "Anna Ben Clara David Emma Frank Grace Henry Ida Jack".split()
THINGS = "car bicycle lamp bag chair cup box coat book hat".split()
PAINTS = "red blue green yellow black white".split()
PLACES = ("in the kitchen", "in the garden", "under the bed", "in the garage", "on the roof", "in the cellar")
FACTS = """Which planet do we live on?|Earth;Which animal says "meow"?|cat;Which animal says "woof"?|dog;Which animal gives us milk and says "moo"?|cow;
What do bees make?|honey;Which star gives the earth light and heat?|sun;What is frozen water called?|ice;Which organ pumps blood through the body?|heart;
Which gas do people need to breathe?|oxygen;What do we call the meal in the morning?|breakfast;Which season comes after winter?|spring;
Which month comes after March?|April;Which day comes after Monday?|Tuesday;Which ocean is between Europe and America?|Atlantic;
Which instrument has 88 black and white keys?|piano;What do you use to see far stars?|telescope;Which animal is called the king of the jungle?|lion;
Which fruit does cider come from?|apple,apples;What falls from the sky when it is very cold, white and soft?|snow;Which metal do magnets attract?|iron;
What is the largest animal in the sea?|whale;Which tool do you use to drive a nail into wood?|hammer;What do you open a lock with?|key;
Which part of the body do you hear with?|ear,ears;Which part of the body do you smell with?|nose;Which month comes after October?|November;
Which day comes after Thursday?|Friday;Which season comes after summer?|autumn,fall;Which animal has a very long neck and eats leaves from trees?|giraffe;
Which animal has a trunk and big ears?|elephant;What do we call a baby's bed?|crib,cradle,bassinet,cot;Who wrote "Romeo and Juliet"?|Shakespeare;
Which number comes after nine?|ten;Which letter comes after A in the alphabet?|B;What is H2O called?|water;Which planet is called the red planet?|Mars;
What do caterpillars become?|butterfly,butterflies;Which country has the city of London?|England,United Kingdom,UK;Which country has the city of Rome?|Italy;
Which country is famous for the pyramids?|Egypt;What is the tallest mountain on earth?|Everest;Which month is the first of the year?|January;
Which month is the last of the year?|December;What do you call water that falls from clouds?|rain;Which bird is known for saying "hoot"?|owl;
What do we wear on our feet inside shoes?|socks,sock;What is the main ingredient of bread?|flour,wheat;Which insect makes webs and has eight legs, though it is no insect?|spider"""

Row = dict[str, Any]


def pairs(table: str, separator: str = ",") -> list[tuple[str, str]]:
    """`some words answer` as (`some words`, `answer`); a dash in the answer is a space."""
    split = (" ".join(entry.split()).rpartition(" ") for entry in table.split(separator))
    return [(left, right.replace("-", " ")) for left, _, right in split]


def written_questions() -> Iterator[Row]:
    """A row for each fact; its wording is drawn."""
    rng = Random(SEED)

    def fact(kind: str, wordings: tuple[str, ...], answers: list[str], options: list[str] | None = None, **values: str) -> Row:
        row = {"kind": kind, "question": rng.choice(wordings).format(**values), "answers": answers}
        return row | ({"options": options} if options else {})

    for a, b in pairs(CAPITALS):
        yield fact("capital", ("What is the capital of {a}?", "Name the capital city of {a}.", "Which city is the capital of {a}? Answer in a few words."), [b], a=a)
    for a, b in pairs(CAPITALS):
        yield fact("capital_of", ("{b} is the capital of which country?", "Which country has the capital {b}?"), [a], b=b)
    for a, b in pairs(OPPOSITES):
        yield fact("opposite", ('What is the opposite of "{a}"? Answer with one word.', 'Which word is the opposite of "{a}"?'), [b], a=a)
    for a, b in pairs(PLURALS):
        yield fact("plural", ('Complete the sentence: "Here is one {a}, and there are two ..."', 'What is the plural of the word "{a}"?'), [b], a=a)
    for a, b in pairs(PASTS):
        yield fact("past", ('Complete the sentence: "Today they {a}. Yesterday they ..."', 'Complete the sentence: "Now I {a}. Last week I ..."'), [b], a=a)
    for a, b in pairs(CONTINENTS):
        yield fact("continent", ("Which continent is {a} in?", 'Complete the sentence: "{a} is a country in ..."'), [b], a=a)
    for a, b in pairs(LANGUAGES):
        yield fact("language", ("Which language do most people in {a} speak? Answer with one word.", "What is the main language of {a}?"), [b], a=a)
    for entry in COUNTS.split(";"):
        what, _, number = " ".join(entry.split()).rpartition(": ")
        part, _, whole = what.removeprefix("the ").partition(" of ")
        yield fact("count", ("How many {part} does {whole} have?", "Answer with a number: how many {part} does {whole} have?"), [number],
                   part=part, whole=whole.replace("of our", "our"))  # fmt: skip
    for sentence in REPEATED.split(";"):
        yield fact("repeat", ('Repeat this sentence: "{a}"', 'Say the following: "{a}"'), [" ".join(sentence.split())], a=" ".join(sentence.split()))
    for number in range(40):
        name, thing, other = PERSONS[number % 10], *rng.sample(THINGS, 2)
        color, place = rng.choice(PAINTS), rng.choice(PLACES)
        wordings, answer = rng.choice((
            (("{name} has a {color} {thing} and an old {other}. What color is the {thing}?",), color),
            (("{name} put the {thing} {place} and took the {other}. Where is the {thing}?",), place),
        ))  # fmt: skip
        options = PAINTS if answer == color else PLACES
        yield fact("reading", wordings, [answer], list(options), name=name, color=color, thing=thing, other=other, place=place)
    for a, b in pairs(KINDS_OF):
        names = sorted({kind for _, kind in pairs(KINDS_OF)})
        others = rng.sample([name for name in names if name != b], 2)
        options = sorted([b, *others])
        yield fact("kind_of", ("Choose {x}, {y} or {z}: what is {a}? Answer with one word.", "Is {a} a kind of {x}, {y} or {z}?"), [b], options, a=a,
                   x=options[0], y=options[1], z=options[2])  # fmt: skip
    for entry in FACTS.split(";"):
        question, _, answers = " ".join(entry.split()).partition("|")
        yield {"kind": "fact", "question": f"{question} Answer in a few words.", "answers": answers.split(",")}


def gym_questions() -> Iterator[Row]:
    from reasoning_gym import create_dataset

    for task, settings in GYM_TASKS.items():
        seen = set()
        for entry in create_dataset(task, seed=SEED, size=GYM_QUESTIONS * 10, **settings):
            question = " ".join(entry["question"].split())
            repeated = task == "products" and str(entry["answer"]) in re.findall(r"\d+", question)
            if question in seen or repeated:  # a factor of 0 or 1 gives the answer away
                continue
            seen.add(question)
            yield {"kind": task, "question": question, "answers": [str(entry["answer"])]}
            if len(seen) == GYM_QUESTIONS:
                break


def main(out: Path) -> None:
    rows = [*written_questions(), *gym_questions()]
    counts: dict[str, int] = {}
    with out.open("w", encoding="utf-8") as file:
        for row in rows:
            number = counts[row["kind"]] = counts.get(row["kind"], 0) + 1
            part = ("test", "validation")[number % 2 == 0]
            file.write(json.dumps({"kind": row["kind"], "part": part, **{k: v for k, v in row.items() if k != "kind"}}, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
