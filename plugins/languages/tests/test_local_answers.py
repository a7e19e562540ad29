"""Numbers, dates and times of four languages, and the checks of extraction and grounded questions that read them."""

import asyncio
from datetime import date, time
from fractions import Fraction
from random import Random
from typing import Any

import pytest

from agents.checks import Check, Subject
from agents.checks.base import refuse_to_ask
from agents.reply_schema import parse_reply
from core.errors import RecipeError
from core.project_files import PROJECT
from core.sample import Seed
from flows.recipes.recipe_catalog import load_recipe_plan
from plugins.languages.benchmarks.planted_answers import judge_replies, read_replies
from plugins.languages.local_answers import find_unsupported
from plugins.languages.local_quantities import LocalText
from plugins.languages.local_readers import is_same_local_answer
from plugins.languages.local_values import find_local_value_faults
from plugins.languages.localize import LOCAL_FAMILIES, localize
from plugins.languages.number_words import list_number_words
from plugins.languages.rules import LANGUAGES

TEACHER = "teachers={main={model='openai/x',base_url='http://localhost:1/v1'}}"
WATER = "Der Turm ist 46 Meter hoch. Ruth Kaminski baute ihn 1995 um. Hunde dürfen nicht hinauf."


@pytest.mark.parametrize(
    ("language", "text", "numbers"),
    [
        ("de", "1.234,50 Euro und 12.500 km", [1234.5, 12500]),
        ("de", "zweiundvierzigtausenddreihundert, zweieinhalb", [42300, 2.5]),
        ("de", "2 Mio. Euro, zwei Dutzend", [2_000_000, 24]),
        ("fr", "1 234,50 euros, quatre-vingt-dix-sept, soixante et onze", [1234.5, 97, 71]),
        ("fr", "deux heures et demie, quarante-deux mille trois cents", [2.5, 42300]),
        ("es", "doscientas, veintidós, cuarenta y dos mil", [200, 22, 42000]),
        ("es", "1.290,00 euros y dos horas y media", [1290, 2.5]),
        ("zh", "1,290元，1.2万，四万三千，两个半小时", [1290, 12000, 43000, 2.5]),
        ("zh", "零下五度，负三度", [-5, -3]),
        ("de", "neunzehnhundertneunundneunzig, im zweiundzwanzigsten Stock, 2½ l, ¾ l", [1999, 22, 2.5, 0.75]),
        ("de", "eine Million zweihunderttausend Euro, 3 Mio. 400 Tsd.", [1_200_000]),
        ("fr", "deux millions cinq cent mille, cent une, au vingt-deuxième, quinze cents", [2_500_000, 101, 22, 1500]),
        ("fr", "trois quarts d'heure", [0.75]),
        ("es", "un millón quinientos mil, ciento una, doscientos veintiún, tres cuartos", [1_500_000, 101, 221, 0.75]),
        (
            "zh",
            "三百五，两万五，三点零五公斤，四分之三，一亿两千万，3万5千",
            [350, 25000, 3.05, 0.75, 120_000_000, 35000],
        ),
        ("zh", "5千克，三千米，七八个人，廿三", [5, 3000, 7, 8, 23]),
    ],
)
def test_numbers_are_read_in_the_forms_of_the_language(language: str, text: str, numbers: list[float]) -> None:
    assert {Fraction(str(number)) for number in numbers} <= LocalText(text, language).numbers


@pytest.mark.parametrize(
    ("language", "text", "number"),
    [
        ("zh", "一半的人", 1.5), ("zh", "三百五", 305), ("zh", "七八个人", 78), ("fr", "une demi-heure", 1.5),
        ("de", "2 Millionen Euro für 300 Leute", 2_000_300), ("de", "9" * 5000, 9),
    ],
)  # fmt: skip
def test_a_number_that_is_not_written_is_not_read(language: str, text: str, number: float) -> None:
    assert Fraction(str(number)) not in LocalText(text, language).numbers


@pytest.mark.parametrize(
    ("language", "text", "days"),
    [
        ("de", "am 18. Mai 2024, vom 3. bis 5. März 2025, 01.02.24", ["2024-05-18", "2025-03-03", "2025-03-05", "2024-02-01"]),
        ("de", "geboren am 12.03.98, am zwanzigsten Juni 2024", ["1998-03-12", "2024-06-20"]),
        ("fr", "le 1er mars 2025 et le dix-huit mai deux mille vingt-quatre", ["2025-03-01", "2024-05-18"]),
        ("es", "1.º de mayo de 2024; del 3 de mayo al 5 de junio de 2024", ["2024-05-01", "2024-05-03", "2024-06-05"]),
        ("zh", "2024年5月18日至20日，二〇二五年三月一日", ["2024-05-18", "2024-05-20", "2025-03-01"]),
    ],
)  # fmt: skip
def test_dates_are_read_and_their_numbers_are_no_amounts(language: str, text: str, days: list[str]) -> None:
    written = LocalText(text, language)
    assert written.dates == {date.fromisoformat(day) for day in days}
    assert Fraction(2024) not in written.numbers


@pytest.mark.parametrize(
    ("language", "text", "read", "not_read"),
    [
        ("de", "um halb neun", "08:30", "09:30"), ("de", "um 9 Uhr abends", "21:00", "09:00"),
        ("fr", "à 14 h 30", "14:30", "14:00"), ("fr", "à neuf heures et quart du matin", "09:15", "21:15"),
        ("es", "a las doce y cuarto", "12:15", "12:04"), ("es", "a las cinco y media de la tarde", "17:30", "05:30"),
        ("zh", "下午2点半", "14:30", "02:30"), ("zh", "上午9点", "09:00", "21:00"),
        ("de", "um 2 Uhr nachts", "02:00", "14:00"), ("de", "um zwölf Uhr nachts", "00:00", "12:00"),
        ("de", "am Nachmittag um 15 Uhr", "15:00", "12:00"), ("de", "abends um neun Uhr", "21:00", "12:00"),
        ("de", "um zehn nach acht", "08:10", "08:00"), ("de", "um fünf vor halb neun", "08:25", "08:30"),
        ("fr", "l'après-midi à 15 h", "15:00", "12:00"), ("fr", "à neuf heures moins dix", "08:50", "09:00"),
        ("fr", "à huit heures moins le quart", "07:45", "08:00"), ("es", "a las ocho y media", "08:30", "08:00"),
        ("es", "a las ocho y diez", "20:10", "20:00"), ("es", "a las 20.30 h", "20:30", "20:00"),
        ("es", "a las doce de la noche", "00:00", "12:00"), ("zh", "夜里两点", "02:00", "14:00"),
        ("zh", "晚上十二点", "00:00", "12:00"), ("zh", "差十分八点", "07:50", "08:00"), ("zh", "晚上八点三刻", "20:45", "20:03"),
    ],
)  # fmt: skip
def test_times_are_read_with_their_half_of_the_day(language: str, text: str, read: str, not_read: str) -> None:
    times = LocalText(text, language).times
    assert time.fromisoformat(read) in times
    assert time.fromisoformat(not_read) not in times


@pytest.mark.parametrize("language", ["de", "fr", "es"])
def test_every_number_below_a_thousand_has_a_word(language: str) -> None:
    assert {*list_number_words(language).values()} >= {*range(1000)}


def test_a_value_must_occur_in_the_text_as_its_language_writes_it() -> None:
    schema: dict[str, Any] = {"type": "object", "properties": {
        "preis": {"type": "number"}, "tag": {"type": "string"}, "telefon": {
            "type": ["string", "null"], "x-evidence": ["Telefon"]},
        "eilig": {"type": "boolean", "x-evidence": {"true": ["dringend"], "false": ["eilt nicht"]}},
    }}  # fmt: skip
    text = (
        "Das Rad kostet 1.290,00 Euro, gekauft am 3. März 2025 bei Firma Kessler. Es ist nicht dringend, es eilt nicht."
    )
    good = {"preis": 1290, "tag": "2025-03-03", "telefon": None, "eilig": False}
    assert find_local_value_faults(good, text, schema, "de", 0.5) == []
    for key, wrong in (("preis", 1.29), ("tag", "2025-03-04"), ("tag", "Firma Kessel"), ("eilig", True)):
        assert find_local_value_faults({**good, key: wrong}, text, schema, "de", 0.5), (key, wrong)
    assert find_local_value_faults(good, f"{text} Telefon: 12", schema, "de", 0.5), "an empty field that the text gives"


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        ("46 Meter.", None),
        ("Sechsundvierzig Meter.", None),
        ("Im Jahr 1995, durch Ruth Kaminski.", None),
        ("47 Meter.", "number 47"),
        ("Peter Lorenz.", "'Peter'"),
        ("Nicht 46 Meter.", "denies"),
        ("Weil Regen auf warme Steine fällt.", "most words"),
    ],
)
def test_an_answer_says_what_its_quotes_say(answer: str, fault: str | None) -> None:
    quotes = "Der Turm ist 46 Meter hoch.\nRuth Kaminski baute ihn 1995 um."
    found = find_unsupported(answer, quotes, "Wie hoch ist der Turm?", WATER, "de", 0.5)
    assert found is None if fault is None else fault in (found or "")


def test_a_right_time_does_not_excuse_a_wrong_number() -> None:
    quote, asked = "Der Bus fährt um halb zehn und kostet 5 Euro.", "Wann fährt der Bus, und was kostet er?"
    assert find_unsupported("Um 9:30 Uhr, für 5 Euro.", quote, asked, quote, "de", 0.5) is None
    assert "number 7" in (find_unsupported("Um 9:30 Uhr, für 7 Euro.", quote, asked, quote, "de", 0.5) or "")


def test_a_half_in_words_is_no_number_of_its_own_and_a_wrong_decimal_is_one() -> None:
    quote, asked = "Le bac part à 6 h 30 et pèse 2 tonnes.", "Quand part le bac ?"
    assert find_unsupported("À six heures et demie.", quote, asked, quote, "fr", 0.5) is None
    assert "number 6.5" in (find_unsupported("Le bac pèse 6,5 tonnes.", quote, asked, quote, "fr", 0.5) or "")


def judge_question(check: str, question: str, answer: str, quotes: list[str], *, answerable: bool = True) -> str:
    family = localize("grounded_qa", "de")
    options = family.options()
    row = {"text": WATER, "source": "turm.md"}
    data = {**family.condition(row, options, Random(1)), "answerable": answerable}
    seed = Seed(id="run-0", data=data)
    draft = {"question": question, "quotes": quotes, "answer": answer}
    candidate = family.candidate(seed, parse_reply(family.reply_type(seed), draft))
    assert candidate.messages[0].content.count("Text:\n") == 1, "the student is asked in German"
    one = next(one for one in family.checks if one.name == check)
    return find_fault(one, Subject(seed, candidate, refuse_to_ask))


def find_fault(check: Check, subject: Subject) -> str:
    findings = asyncio.run(check.findings(subject, check.options()))
    return "; ".join(finding.evidence for finding in findings if not finding.passed)


def test_a_question_stands_alone_and_an_open_one_stays_open() -> None:
    quotes = ["Der Turm ist 46 Meter hoch."]
    assert not judge_question("standalone", "Wie hoch ist der Turm?", "46 Meter.", quotes)
    assert "already" in judge_question("standalone", "Ist der Turm 46 Meter hoch?", "46 Meter.", quotes)
    assert "several" in judge_question("standalone", "Wie hoch? Wer baute ihn?", "46 Meter.", quotes)
    silence = "Der Text sagt es nicht."
    assert not judge_question("unanswerable", "Wie viele Stufen hat der Turm?", silence, [], answerable=False)
    assert "else" in judge_question("unanswerable", "Wann blüht Flieder?", silence, [], answerable=False)
    assert "every word" in judge_question("unanswerable", "Dürfen Hunde hinauf?", silence, [], answerable=False)
    long = "Ruth Kaminski baute ihn 1995 um"
    assert not judge_question("own_words", "Wer baute den Turm um?", long, [long])


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize(
    ("family", "seeds"), [("extraction", "extraction"), ("grounded_qa", "passages"), ("instructions", "tasks")]
)
def test_a_family_in_the_language_has_its_own_prompts_checks_and_questions(
    family: str, seeds: str, language: str
) -> None:
    local = localize(family, language)
    names = {one.name for one in local.checks}
    assert names >= {one["type"] for one in local.defaults["verifiers"]} - {"schema", "quotes"}
    assert all(language in one.languages for one in local.checks)
    assert (local.prompts / "generator.md").is_file() if local.prompts else False
    assert len((PROJECT / "data" / "seeds" / f"{seeds}-{language}.jsonl").read_text().splitlines()) >= 6


@pytest.mark.whole
@pytest.mark.parametrize("language", LANGUAGES)
def test_a_recipe_of_a_language_is_valid_with_a_critic(language: str) -> None:
    for recipe, seeds in (("extraction", "extraction"), ("grounded-qa", "passages")):
        sets = [f"language={language}", f"seeds.path=data/seeds/{seeds}-{language}.jsonl", TEACHER]
        sets += ["task={}", "verifiers=[{type='in_language'}]", "agents={critic={}}"]
        sets += [] if recipe == "extraction" else [f"seeds={{path='data/seeds/passages-{language}.jsonl'}}"]
        plan = load_recipe_plan(recipe, sets)
        assert "{{language_name}}" in plan.prompt("critic").messages[0].content


def test_what_is_read_in_english_only_is_refused() -> None:
    sets = ["language=de", "seeds.path=data/seeds/extraction-de.jsonl", TEACHER]
    with pytest.raises(RecipeError, match="unknown forms email"):
        load_recipe_plan("extraction", sets)
    assert set(LOCAL_FAMILIES) == {"constrained_instructions", "extraction", "grounded_qa", "instructions"}


def test_recorded_replies_pass_and_planted_faults_are_found() -> None:
    replies = [one for one in read_replies() if one.number % 5 == 0]
    judged = judge_replies(replies)
    sound = [one for one in judged if not one.fault]
    faulty = [one for one in judged if one.fault]
    assert sum(bool(one.refused) for one in sound) <= 0.05 * len(sound)
    assert sum(bool(one.refused) for one in faulty) >= 0.9 * len(faulty)
    assert sum(bool(one.refused_by_english) for one in sound) > 0.5 * len(sound), (
        "the control refuses most sound replies"
    )


@pytest.mark.parametrize(
    ("language", "question", "left", "right", "same"),
    [
        ("de", "Wie hoch ist der Turm?", "46 Meter.", "Sechsundvierzig Meter", True),
        ("de", "Wie hoch ist der Turm?", "46 Meter.", "64 Meter", False),
        ("de", "Warum ist montags zu?", "Weil Bücher einsortiert werden.", "Die Bücher werden dann einsortiert.", True),
        ("de", "Darf ein Hund hinauf?", "Nein, Hunde dürfen nicht.", "Ja, immer.", False),
        ("fr", "Qui dirige le bac ?", "Hélène Bernard.", "Mireille Vasseur", False),
        ("es", "¿Qué da a las abejas?", "Agua con azúcar.", "Da agua azucarada.", True),
        ("zh", "谁是会长？", "韩艾民。", "会长是韩艾民", True),
        ("zh", "谁是会长？", "韩艾民。", "吴美珍", False),
        ("de", "Wann fährt der Bus?", "Um halb zehn.", "9:30 Uhr", True),
        ("de", "Wann fährt der Bus?", "Um halb zehn.", "10:30 Uhr", False),
        ("fr", "Quand part le bac ?", "À six heures et demie.", "à 6 h 30", True),
        ("fr", "Quand part le bac ?", "À six heures et demie.", "à six heures", False),
        ("es", "¿A qué hora abre?", "A las ocho y media.", "A las 8:30", True),
        ("zh", "几点开门？", "八点半", "8:30", True),
        ("zh", "几点开门？", "八点半", "八点一刻", False),
        ("de", "Wie weit ist es?", "46 Meter.", "46 Kilometer", False),
        ("de", "Wie weit ist es?", "46 m", "46 km", False),
        ("de", "Wie weit ist es?", "46 Meter.", "Mit 46 Metern", True),
    ],
)
def test_a_second_reader_finds_the_same_answer(language: str, question: str, left: str, right: str, same: bool) -> None:
    assert is_same_local_answer(left, right, question, language, 0.5) is same


def judge_task(language: str, way: str, parent: str, instruction: str, answer: str) -> list[str]:
    """The faults of a task with its answer, by the checks of the language."""
    family = localize("instructions", language)
    options = family.options.model_validate({"ways": {way: 1}})
    [row] = family.gather_rows([{"instruction": parent}], [])
    seed = Seed(id="run-0", data=family.condition(row, options, Random(1)))
    draft = parse_reply(family.reply_type(seed), {"instruction": instruction, "answer": answer})
    subject = Subject(seed, family.candidate(seed, draft), refuse_to_ask)
    assert parent in seed.data["request"]
    return [one.name for one in family.checks if find_fault(one, subject)]


@pytest.mark.parametrize(
    ("language", "way", "parent", "task", "answer", "faults"),
    [
        ("de", "new", "Nenne drei Farben.", "Warum wird Brot braun?", "Zucker und Eiweiß reagieren in der Hitze.", []),
        ("de", "new", "Nenne drei Farben.", "Nenne drei Farben!", "Rot, grün und blau sind drei Farben.", ["novel"]),
        ("de", "constrain", "Nenne drei Farben.", "Nenne drei Farben, die in Flaggen vorkommen.", "Rot, Weiß und Blau.", []),
        ("de", "constrain", "Nenne drei Farben.", "Farben nennen.", "Rot, Weiß und Blau kommen vor.", ["novel", "askable"]),
        ("de", "constrain", "Nenne drei Farben.", "Bitte: Nenne drei Farben.", "Rot, Weiß und Blau.", ["novel"]),
        ("de", "new", "Nenne drei Farben.", "Beschreibe, was auf dem Foto zu sehen ist.", "Das Haus ist rot.", ["askable"]),
        ("fr", "new", "Cite trois couleurs.", "Pourquoi le pain brunit-il ?", "Désolé, je ne peux pas répondre.", ["answered"]),
        ("es", "new", "Di tres colores.", "¿Por qué se dora el pan?", "¿Por qué se dora el pan?", ["answered"]),
        ("es", "new", "Di tres colores.", "Why does bread turn brown in the oven?", "Sugar and protein react.", ["in_language"]),
        ("zh", "new", "说出三种颜色。", "面包烤的时候为什么会变成褐色？", "糖和蛋白质受热发生反应。", []),
        ("zh", "reason", "说出三种颜色。", "请：说出三种颜色。", "红、黄、蓝。", ["novel"]),
        ("zh", "reason", "说出三种颜色。", "说出三种颜色。", "红、黄、蓝。", ["novel"]),
    ],
)  # fmt: skip
def test_a_task_is_new_askable_and_answered(
    language: str, way: str, parent: str, task: str, answer: str, faults: list[str]
) -> None:
    assert judge_task(language, way, parent, task, answer) == faults
