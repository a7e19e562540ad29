"""Rules of four languages on texts that keep and break them, what `validate` refuses, and requests that can be met."""

import asyncio
from random import Random

import pytest

from agents.checks import Check, Subject
from agents.checks.base import refuse_to_ask
from agents.families.constraints import ConstraintTopic, are_contradictory
from core.errors import RecipeError
from core.sample import Candidate, Message, Seed
from filters.base import Document
from filters.chain.filter_chain import apply_filters
from flows.recipes.recipe_catalog import load_recipe_plan
from plugins.languages.constrained import local_topic_check
from plugins.languages.judged import list_judges
from plugins.languages.local_family import in_language_check
from plugins.languages.refusals import LocalRefusalFilter
from plugins.languages.rules import LANGUAGES, draw_rules, list_kinds, state_rule
from plugins.languages.units import count_units, read_local_sentences
from tests.flows.commands.test_commands import called

TEACHER = "teachers={main={model='openai/x',base_url='http://localhost:1/v1'}}"


@pytest.mark.parametrize(
    ("language", "text", "count"),
    [
        ("de", "Im 19. Jahrhundert kam Dr. Klein am 3. Mai. Er brachte z. B. Brot mit.", 2),
        ("de", "Er sagte: „Komm her!“ Dann ging er. »Wirklich?«, fragte sie.", 3),
        ("de", "Der 2. Platz zählt. Am 24. Dezember ist frei.", 2),
        ("fr", "M. Petit et Mme Roux arrivent. « Pourquoi ? » demanda-t-elle. Il se tut !", 3),
        ("fr", "J. Dupont habite au n° 3. C’est tout.", 2),
        ("es", "El Sr. Gómez llegó a las ocho. ¿Qué quiere? ¡Nada!", 3),
        ("es", "Pesa aprox. 3.000 kilos. Ud. lo sabe.", 2),
        ("es", "el rey casi no se mueve. ¿y la dama? ella va y viene.", 3),
        ("zh", "“你好！”他说。然后走了。你去吗？", 3),
        ("zh", "价格是3.5元。下雨了！！快跑……", 3),
    ],
)
def test_sentences_are_counted_as_a_reader_counts_them(language: str, text: str, count: int) -> None:
    reading = read_local_sentences(text, language)
    assert (len(reading.pieces), reading.doubtful) == (count, 0)


def test_a_possible_end_of_a_sentence_is_in_doubt() -> None:
    assert read_local_sentences("Wir haben Äpfel, Birnen usw. Morgen kommt mehr.", "de").doubtful == 1


def test_chinese_lengths_count_characters_without_punctuation() -> None:
    assert count_units("今天，我买了3.5公斤iPad（真的）！", "zh") == (11, 11)


@pytest.mark.parametrize(
    ("language", "kind", "params", "kept", "broken"),
    [
        ("de", "include_words", {"words": ["Regen"]}, "Nach dem Regen ist es kühl.", "Der Regenschirm steht da."),
        ("de", "avoid_word", {"word": "Apfel"}, "Apfelkuchen schmeckt.", "Der *Äpfel*-Händler mag den Apfel."),
        ("de", "in_quotes", {}, "„Der Mond scheint, und „alles“ schläft.“", "Er sagt „ja“ und „nein“"),
        ("de", "uppercase", {}, "DIE STRASSE IST LANG, DER FUẞWEG AUCH.", "DIE STRASSE ist LANG."),
        ("de", "first_person", {}, "Meine Katze schläft.", "Sie sagt: „Ich schlafe.“"),
        ("de", "no_commas", {}, "Es kostet drei Euro.", "Es kostet 3,50 Euro."),
        ("de", "table", {"columns": 2, "rows": 1}, "| a | b |\n|---|---|\n| c | d |", "| a | b |\n|---|\n| c | d |"),
        ("fr", "include_words", {"words": ["eau"]}, "L’eau est froide.", "Les bateaux passent."),
        ("fr", "end_question", {}, "Il pleut. Que fais-tu ?", "Que fais-tu ? Il pleut."),
        ("fr", "ask_question", {}, "« Viens-tu ? » Il rit.", "Voir https://exemple.fr/?q=1 pour lire."),
        ("fr", "start_with", {"word": "Aujourd’hui"}, "Aujourd'hui, il pleut.", "Aujourdhui, il pleut."),
        ("fr", "in_quotes", {}, "« Le four est chaud. »", "« Le four » est « chaud »"),
        ("fr", "second_person", {}, "Si tu viens, apporte du pain.", "Il vient avec du pain."),
        ("es", "avoid_letter", {"letter": "ñ"}, "Un ano es un anillo.", "Un an\u0303o."),
        ("es", "avoid_letter", {"letter": "k"}, "Un queso.", "Un Kilo."),
        ("es", "end_question", {}, "Llueve. ¿Qué haces?", "Llueve. Qué haces?"),
        ("es", "end_exclamation", {}, "¿Llueve? ¡Corre!", "¿Llueve? Corre!"),
        ("es", "mention_times", {"word": "luz", "n": 2}, "La luz y las luces.", "La luz, un trasluz."),
        ("es", "words_in_order", {"words": ["nuez", "cola"]}, "Una nuez y su cola.", "Su cola y una nuez."),
        ("zh", "include_number", {}, "有3只猫。", "有三只猫。"),
        ("zh", "no_commas", {}, "苹果、梨和桃都很甜。", "苹果很甜，梨也很甜。"),
        ("zh", "numbered", {"n": 2}, "1、苹果\n2、梨", "1、苹果\n3、梨"),
        ("zh", "in_quotes", {}, "“月亮很亮。”", "“月亮”很“亮”"),
        ("zh", "bold_word", {}, "**月亮**很亮。", "**月亮挂在高高的天上**很亮。"),
        ("zh", "max_words", {"n": 6}, "今天，天气很好。", "今天的天气，非常好。"),
        ("zh", "start_with", {"word": "其实"}, "其实很简单。", "这其实很简单。"),
        ("zh", "end_with", {"ending": "就是这样。"}, "月亮很亮。就是这样。", "月亮就是这样。"),
        ("zh", "exact_paragraphs", {"n": 2}, "月亮很亮。\n\n星星很多。", "月亮很亮。星星很多。"),
    ],
)
def test_a_rule_accepts_what_keeps_it_and_refuses_what_breaks_it(
    language: str, kind: str, params: dict[str, object], kept: str, broken: str
) -> None:
    rule = state_rule(Random(1), kind, params, language)
    assert rule.fault(kept) is None
    assert rule.fault(broken)


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_kind_is_drawn_stated_and_combined_without_contradiction(language: str) -> None:
    topic, rng, seen = ConstraintTopic("x", ("abc", "def", "ghi")), Random(5), set[str]()
    for _ in range(400):
        rules = draw_rules(rng, topic, dict.fromkeys(list_kinds(language), 1), 3, language)
        assert len({*(rule.kind for rule in rules)}) == len(rules)
        assert not any(are_contradictory(a, b) for a in rules for b in rules if a is not b)
        assert not any("{" in rule.text for rule in rules if rule.kind != "json_keys")
        seen |= {rule.kind for rule in rules}
    assert seen == {*list_kinds(language)}


def judge_reply(check: Check, language: str, topic: str, words: list[str], answer: str) -> bool:
    data = {"language": language, "topic": topic, "words": words}
    seed = Seed(id="run-0", data=data)
    messages = [Message(role="user", content="x"), Message(role="assistant", content=answer)]
    subject = Subject(seed, Candidate(messages=messages), refuse_to_ask)
    [finding] = asyncio.run(check.findings(subject, check.options()))
    return bool(finding.passed)


def test_a_reply_in_another_language_or_on_another_topic_is_refused() -> None:
    german = "Der Bach fließt über die Steine ins Tal, und die Forellen stehen still im kalten Wasser."
    assert judge_reply(in_language_check, "de", "Bach", [], german)
    assert not judge_reply(in_language_check, "de", "Bach", [], "The stream runs over the stones and into the valley.")
    assert judge_reply(in_language_check, "de", "Bach", [], german.upper())
    assert judge_reply(local_topic_check, "de", "ein Bach im Gebirge", ["Forelle"], german)
    assert not judge_reply(local_topic_check, "de", "Schach", ["Brett", "König"], german)
    assert judge_reply(local_topic_check, "zh", "山间的小溪", ["石头"], "小溪从山上流下来。")
    assert not judge_reply(local_topic_check, "zh", "围棋", ["棋盘"], "小溪从山上流下来。")


@pytest.mark.parametrize(
    ("text", "dropped"),
    [
        ("Es tut mir leid, aber ich kann dir dabei nicht helfen.", True),
        ("Als KI-Sprachmodell habe ich keine Gefühle.", True),
        ("Leider regnete es, und ich kann nicht schwimmen.", False),
        ("Je suis désolé, mais je ne peux pas répondre à cette question.", True),
        ("Désolée d’être en retard, elle entra.", False),
        ("Lo siento, pero no puedo ayudarte con eso.", True),
        ("Lo siento en los huesos: va a llover.", False),
        ("很抱歉，我无法回答这个问题。", True),
        ("作为一个人工智能助手，我没有感情。", True),
        ("抱歉的话他说了一遍又一遍。", False),
    ],
)
def test_refusals_are_dropped_and_stories_stay(text: str, dropped: bool) -> None:
    result = apply_filters([Document("0", text)], [LocalRefusalFilter(type="local_refusal")])
    assert bool(result.dropped) == dropped


def test_validate_refuses_what_cannot_judge_the_language_and_says_what_to_use() -> None:
    with pytest.raises(RecipeError) as error:
        load_recipe_plan("grounded-qa", ["language=it", TEACHER])
    found = {problem.where: problem.what for problem in error.value.problems}
    assert found["verifiers.1.type"] == (
        "'supported' judges English, not 'it'; use `judge`, which asks a teacher, in its place, or leave it out"
    )
    assert "verifiers.0.type" not in found, "quotes are compared letter by letter in any language"
    assert "prompts" in found["family"]
    with pytest.raises(RecipeError, match="embedded teacher writes English only, not German"):
        load_recipe_plan("constrained-instructions", ["language=de"])
    assert load_recipe_plan("grounded-qa", ["language=en", TEACHER])


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_family_with_rules_of_the_language_takes_its_checks_filters_and_prompts(language: str) -> None:
    seeds = f"seeds.path=data/seeds/topics-{language}.jsonl"
    plan = load_recipe_plan("constrained-german", [f"language={language}", seeds])
    assert [bound.check.name for bound in plan.checks] == ["constraints", "on_topic", "in_language"]
    assert "local_refusal" in [config.type for config in plan.recipe.filters]
    assert len(plan.prompt("generator").examples) == 5
    assert len(plan.seed_rows.rows) == 40


def test_a_kind_that_a_language_lacks_is_refused() -> None:
    seeds = "seeds.path=data/seeds/topics-zh.jsonl"
    with pytest.raises(RecipeError, match="unknown Chinese kinds lowercase"):
        load_recipe_plan("constrained-german", ["language=zh", seeds, "task.kinds.lowercase=1"])


def test_checks_are_listed_with_their_languages(capsys: pytest.CaptureFixture[str]) -> None:
    languages = {(one.kind, one.name, one.languages) for one in list_judges()}
    assert {("check", "judge", ()), ("check", "occurs", ("en",)), ("check", "constraints", LANGUAGES)} <= languages
    assert {
        ("filter", "refusal", ("en",)),
        ("filter", "minhash", ()),
        ("filter", "local_refusal", LANGUAGES),
    } <= languages
    _code, listed, _log = called(capsys, "checks", "--language", "zh")
    assert "in_language" in listed
    assert "sound_prose" not in listed
