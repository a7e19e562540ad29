"""Languages of short texts, and what is too little to tell."""

import pytest

from core.config.filters import LanguageFilter
from core.sample import RejectionReason
from filters.base import Document
from filters.chain.filter_chain import apply_filters
from filters.rules.language import list_known_languages

ENGLISH = LanguageFilter(type="language")


def dropped(text: str, config: LanguageFilter = ENGLISH) -> list[RejectionReason]:
    return [drop.reason for drop in apply_filters([Document("a", text)], [config]).dropped]


@pytest.mark.parametrize(
    "text",
    [
        "Bees visit flowers to gather nectar.",
        "The vertical alignment, from 0 (top) to 1 (bottom)",
        "Maximum value level for the bar",
        'She said "bonjour" and left the café without a word.',
        "Photosynthesis converts light into chemical energy.",
        "The German word Schadenfreude means joy at the misfortune of others.",
        "Sure! The capital of Kazakhstan is Astana.",
        "To bake the bread, mix flour, water, salt and yeast.",
        "Here it is:\n```python\nfor i in range(10):\n    print(i)\n```\nIt prints ten numbers.",
        "Paris",
        "Ja, natürlich.",  # too short to tell
        "x = (-b ± √(b² - 4ac)) / 2a",
        "```python\nimport numpy as np\nprint(np.arange(10).reshape(2, 5))\n```",
        "https://de.wikipedia.org/wiki/Die_Verwandlung_und_andere_Geschichten",
        "0x7f3a 1024 4096 aaaa bbbb cccc dddd eeee ffff 0000",
        "12 + 30 = 42",
        "",
    ],
)
def test_english_and_text_of_no_language_are_kept(text: str) -> None:
    assert dropped(text) == []


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("de", "Die Bienen sammeln den Nektar der Blüten."),
        ("fr", "Les abeilles visitent les fleurs du verger."),
        ("es", "Las abejas visitan las flores del jardín."),
        ("it", "Le api visitano i fiori per raccogliere il nettare."),
        ("pt", "As abelhas visitam as flores para recolher néctar."),
        ("nl", "De bijen bezoeken bloemen om nectar te verzamelen."),
        ("sv", "Bina besöker blommorna för att samla nektar."),
        ("pl", "Pszczoły odwiedzają kwiaty, żeby zbierać nektar."),
        ("cs", "Včely navštěvují květy, aby sbíraly nektar."),
        ("tr", "Arılar nektar toplamak için çiçekleri ziyaret eder."),
        ("ru", "Пчёлы летают от цветка к цветку и собирают нектар."),
        ("el", "Οι μέλισσες επισκέπτονται τα λουλούδια."),
        ("ar", "يزور النحل الأزهار لجمع الرحيق كل يوم."),
        ("hi", "मधुमक्खियाँ रस इकट्ठा करने के लिए फूलों पर जाती हैं।"),
        ("zh", "蜜蜂从一朵花飞到另一朵花，采集花蜜，并且传播花粉。"),
        ("ja", "ミツバチは花から花へ飛んで蜜を集め、花粉を運びます。"),
        ("ko", "꿀벌은 꽃에서 꽃으로 날아다니며 꿀을 모으고 꽃가루를 옮긴다."),
    ],
)
def test_other_languages_are_dropped_unless_they_are_wanted(code: str, text: str) -> None:
    assert dropped(text) == [RejectionReason.language]
    assert dropped(text, LanguageFilter(type="language", languages=(code,))) == []
    assert dropped(text, LanguageFilter(type="language", languages=("en", code))) == []


def test_known_languages_have_the_codes_of_recipes() -> None:
    known = list_known_languages()
    assert {"en", "de", "no", "zh", "ja", "ar"} <= set(known)
    assert len(known) >= 139
