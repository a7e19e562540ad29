"""Replies of a capable model to requests of the families `instructions` and `decisions` in four languages, and faults planted in
them: what the checks of the language find, and which sound replies they refuse.

python -m plugins.languages.benchmarks.planted_tasks > plugins/languages/benchmarks/tasks.md

Declared before the first reply was read:
- 30 replies for each language and family, to requests that `stillhouse generate` drew with seed 7, without a revision and without
  these checks. The writers did not see the checks. Who wrote the checks wrote no reply.
- Goal: of the faults in `FOUND_BY_CODE`, the checks find 90 % or more in each family; of the sound replies they refuse 5 % or
  fewer. Other faults are for a critic or for nobody: they are printed, without a goal.
- Control: the checks for English on the same replies and faults. `decisions` has no checks for English: its control is the filter
  `language` for English, and the votes. A second control for the votes: those of the next text.
- Votes of `decisions` are those of readers who saw the text and the questions only, at most three for a text.
- A refused reply is read. If the reply breaks its request, it counts as unsound, is listed, and its faults are left out.
Faults are edits of the reply, without any function of the checks (`TASK_PLANTERS`).
"""

import asyncio
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from random import Random
from typing import Any

from agents.checks import Check, Subject
from agents.families import list_families
from agents.families.instructions import answered_check, askable_check, novel_check
from agents.reply_schema import InvalidReply, parse_reply
from core.config.filters import LanguageFilter
from core.sample import Seed
from filters.base import Document
from filters.rules.language import drop_other_languages
from plugins.languages.benchmarks.planted_answers import (
    AnswerJudgment,
    Fault,
    Reply,
    list_judgments,
    tabulate_judgments,
)
from plugins.languages.codes import NAMES
from plugins.languages.localize import localize
from plugins.languages.rules import LANGUAGES

RECORDED = Path(__file__).with_name("tasks.jsonl")
FIRST_JUDGMENT: Mapping[str, str] = {
    "instructions": "Declared arms at the first judgment, before any repair: 1,339 of 1,440 faults found (93.0 %), 2 of 120 "
    "sound replies refused; English checks 689 of 1,440, 2 of 120.",
    "decisions": "This is the first judgment: nothing was repaired after it. Two readers voted on each Spanish and Chinese text, "
    "one on each German and French one. All 180 votes are the drawn answers.",
}
BROKEN: Mapping[tuple[str, str, int], str] = {}
"""Replies that break their request, by family, language and number, with the fault that a reader found."""
FOUND_BY_CODE = {
    "instructions": (
        "language", "answer_language", "copied", "copied_politely", "refusal", "empty", "echo", "prompt", "beyond_text", "short",
        "long", "broken",
    ),
    "decisions": ("language", "wrong_label", "wrong_second", "other_text", "broken"),
}  # fmt: skip
ENGLISH_TASK_CHECKS: Sequence[Check] = (askable_check, novel_check, answered_check)

POLITE = {"de": "Bitte: ", "fr": "S’il te plaît : ", "es": "Por favor: ", "zh": "请："}
REFUSED = {
    "de": ["Es tut mir leid, aber das kann ich nicht schreiben.", "Leider kann ich dir dabei nicht helfen.",
           "Als KI-Modell habe ich dazu keine Meinung.", "Diese Anfrage kann ich nicht beantworten."],
    "fr": ["Désolé, je ne peux pas écrire cela.", "Je suis désolée, mais je ne peux pas t’aider.",
           "En tant qu’IA, je n’ai pas d’avis sur ce point.", "Je ne peux pas répondre à cette demande."],
    "es": ["Lo siento, pero no puedo escribir eso.", "Lamentablemente no puedo ayudarte con esto.",
           "Como modelo de lenguaje, no tengo opinión sobre eso.", "No puedo responder a esta petición."],
    "zh": ["对不起，我不能写这个。", "很抱歉，我无法帮助你。", "作为一个人工智能，我对此没有看法。", "我无法回答这个请求。"],
}  # fmt: skip
HOLLOW = {
    "de": ["Gerne!", "Ja, natürlich.", "Hier ist die Antwort:", "Klar, danke."],
    "fr": ["Bien sûr !", "Oui, d’accord.", "Voici la réponse :", "Merci bien."],
    "es": ["¡Claro!", "Sí, de acuerdo.", "Aquí está la respuesta:", "Muchas gracias."],
    "zh": ["好的！", "当然可以。", "答案如下：", "谢谢。"],
}
SPOKEN_OF = {
    "de": ["Diese neue Aufgabe ist schwerer.", "Löse sie wie die ursprüngliche Aufgabe.",
           "Gehe dabei wie in der obigen Aufgabe vor."],
    "fr": ["Cette nouvelle tâche est plus difficile.", "Fais comme dans la tâche originale.",
           "Procède comme dans la consigne ci-dessus."],
    "es": ["Esta nueva tarea es más difícil.", "Hazlo como en la tarea original.", "Procede como en la instrucción anterior."],
    "zh": ["这个新任务更难。", "像原来的任务那样做。", "按照上面的任务来做。"],
}  # fmt: skip
FOR_OTHER_MEDIA = {
    "de": ["Zeichne dazu eine Skizze.", "Beschreibe auch, was auf dem Foto zu sehen ist.", "Lade dafür die Datei herunter.",
           "Klicke danach auf den Knopf.", "Sieh dir zuerst dieses Video an."],
    "fr": ["Dessine aussi un croquis.", "Décris aussi ce que montre cette photo.", "Télécharge d’abord le fichier.",
           "Clique ensuite sur le bouton.", "Regarde d’abord cette vidéo."],
    "es": ["Dibuja también un esquema.", "Describe también lo que muestra esta foto.", "Descarga primero el archivo.",
           "Haz clic después en el botón.", "Mira primero este vídeo."],
    "zh": ["再画一张草图。", "再描述一下这张照片里有什么。", "先下载这个文件。", "然后点击按钮。", "先看这段视频。"],
}  # fmt: skip
LONG_WORDS, LONG_CHARACTERS, REPLIES_OF_EACH = 230, 460, 30


def read_task_replies() -> list[Reply]:
    """The first replies to different requests, of recordings (`stillhouse generate --record`). Each row of `decisions` needs
    `language` and `votes`, a list of readers' answers, in addition. Texts that no reader has voted on are left out.
    """
    found: dict[tuple[str, str], dict[str, Reply]] = {}
    for one in map(json.loads, RECORDED.read_text(encoding="utf-8").splitlines()):
        family, data, (reply, *_) = one["family"], one["seed"], one["replies"]
        language = data.get("language") or one["language"]
        known = found.setdefault((family, language), {})
        if one.get("votes", True) and reply["asked"] not in known and len(known) < REPLIES_OF_EACH:
            drafted = json.loads(reply["reply"])
            votes = {"votes": one["votes"]} if "votes" in one else {}
            known[reply["asked"]] = Reply(family, language, len(known), {**data, **votes}, drafted)
    return [reply for known in found.values() for reply in known.values()]


def plant_tasks(reply: Reply, others: Sequence[Reply], rng: Random) -> Iterator[Fault]:
    """Faults of a task with its answer."""
    draft, data, language = reply.draft, reply.data, reply.language
    task, answer = draft["instruction"], draft["answer"]
    abroad = [one.draft for one in others if one.language != language]
    at_home = [one.draft for one in others if one.language == language and one.number != reply.number]
    space, known = "" if language == "zh" else " ", rng.choice(data["examples"] or [data["parent"]])
    words = list(task) if language == "zh" else task.split()
    many = words * (1 + (LONG_CHARACTERS if language == "zh" else LONG_WORDS) // len(words))
    yield "language", rng.choice(abroad)
    yield "answer_language", {**draft, "answer": rng.choice(abroad)["answer"]}
    yield "copied", {**draft, "instruction": known}
    yield "copied_politely", {**draft, "instruction": POLITE[language] + known}
    yield "refusal", {**draft, "answer": rng.choice(REFUSED[language])}
    yield "empty", {**draft, "answer": rng.choice(HOLLOW[language])}
    yield "echo", {**draft, "answer": task}
    yield "prompt", {**draft, "instruction": f"{task}{space}{rng.choice(SPOKEN_OF[language])}"}
    yield "beyond_text", {**draft, "instruction": f"{task}{space}{rng.choice(FOR_OTHER_MEDIA[language])}"}
    yield "short", {**draft, "instruction": space.join(words[:2])}
    yield "long", {**draft, "instruction": space.join(many)}
    yield "broken", rng.choice([{"instruction": task}, {"answer": answer}, {**draft, "answer": ""}])
    yield "other_answer", {**draft, "answer": rng.choice(at_home)["answer"]}
    yield "cut_answer", {**draft, "answer": answer[: len(answer) * 2 // 3]}


def plant_decisions(reply: Reply, others: Sequence[Reply], rng: Random) -> Iterator[Fault]:
    """Faults of a text that was written for drawn answers. `targets` and `votes` are not of the draft: they are those that the
    faulty sample has.
    """
    draft, data = reply.draft, reply.data
    first, second = data["questions"][:2]
    lure = data["request"].splitlines()[-1]  # names the other answer of an ambiguous text
    right = data["targets"][first["name"]]
    twin = rng.choice([one for one in others if one.language != reply.language and one.number == reply.number])
    stray = [one for one in others if one.language == reply.language and one.data["targets"][first["name"]] != right]
    yield "language", twin.draft
    wrong = rng.choice([label for label in first["labels"] if label != right and f'"{label}"' not in lure])
    yield "wrong_label", {**draft, "targets": {**data["targets"], first["name"]: wrong}}
    flipped = not data["targets"][second["name"]]
    yield "wrong_second", {**draft, "targets": {**data["targets"], second["name"]: flipped}}
    other = rng.choice(stray)
    yield "other_text", {**other.draft, "votes": other.data["votes"]}
    yield "broken", rng.choice([{}, {"text": ""}, {"message": draft["text"]}])
    yield "label_in_text", {"text": f"{draft['text']}\n{first['name']}: {right}"}
    yield "long_text", {"text": " ".join([draft["text"]] * 4)}


TASK_PLANTERS: Mapping[str, Callable[[Reply, Sequence[Reply], Random], Iterator[Fault]]] = {
    "instructions": plant_tasks,
    "decisions": plant_decisions,
}


async def judge_task(
    reply: Reply, draft: Mapping[str, Any], *, english: bool, votes: Sequence[Any] | None = None
) -> str:
    """Which check refuses a draft, and why; "" if none does."""
    values, data = deepcopy(dict(draft)), deepcopy(reply.data)
    if reply.family == "instructions":
        family: Any = localize("instructions", reply.language)
        checks = ENGLISH_TASK_CHECKS if english else family.checks
    else:
        family = next(one for one in list_families() if one.name == "decisions")
        checks = family.checks
        data["targets"] = values.pop("targets", data["targets"])
    known = values.pop("votes", data.pop("votes", []))
    seed = Seed(id=f"run-{reply.number}", data=data)
    try:
        candidate = family.candidate(seed, parse_reply(family.reply_type(seed), values))
    except InvalidReply as error:
        return f"reply: {error}"

    async def vote(*asked: Any, which: int, **_: Any) -> Any:
        return asked[1].model_validate((known if votes is None else votes)[which])

    subject = Subject(seed, candidate, vote)
    if reply.family == "decisions":
        config = LanguageFilter(type="language", languages=("en" if english else reply.language,))
        if drops := drop_other_languages([Document("", candidate.fields["text"])], config):
            return f"language: {drops[0].detail}"
    for one in checks:
        options = one.options.model_validate({"votes": len(known)} if one.name == "votes" else {})
        for finding in await one.findings(subject, options):
            if not finding.passed:
                return f"{one.name}: {finding.evidence}"
    return ""


def judge_task_replies(replies: Sequence[Reply]) -> list[AnswerJudgment]:
    judged = []
    for reply in replies:
        others = [one for one in replies if one.family == reply.family]
        rng = Random(f"{reply.family} {reply.language} {reply.number}")
        for fault, draft in [("", reply.draft), *TASK_PLANTERS[reply.family](reply, others, rng)]:
            ours, by_english = (asyncio.run(judge_task(reply, draft, english=english)) for english in (False, True))
            judged.append(AnswerJudgment(reply, fault, ours, by_english))
    return judged


def count_refused_by_other_votes(replies: Sequence[Reply]) -> str:
    """The control for the votes: each text with those of the next."""
    own = [one for one in replies if one.family == "decisions"]
    refused = [
        bool(asyncio.run(judge_task(one, one.draft, english=False, votes=other.data["votes"])))
        for language in LANGUAGES
        if (part := [one for one in own if one.language == language])
        for one, other in zip(part, [*part[1:], part[0]], strict=True)
    ]
    return f"With the votes of the next text, {sum(refused)} of {len(refused)} sound replies are refused."


def print_tasks_page() -> None:
    replies = read_task_replies()
    judged = [
        one
        for one in judge_task_replies(replies)
        if (one.reply.family, one.reply.language, one.reply.number) not in BROKEN
    ]
    parts = [
        "# Instructions and decisions in four languages",
        "`python -m plugins.languages.benchmarks.planted_tasks`",
    ]
    for family, by_code in FOUND_BY_CODE.items():
        own = [one for one in judged if one.reply.family == family]
        if not own:
            continue
        aimed = [one for one in own if not one.fault or one.fault in by_code]
        names = [*(NAMES[one] for one in LANGUAGES), "all"]
        rest = sorted({one.fault for one in own} - {"", *by_code})
        parts += [
            f"## {family}",
            FIRST_JUDGMENT[family],
            tabulate_judgments(aimed, lambda one: NAMES[one.reply.language], names, "language"),
            tabulate_judgments([one for one in own if one.fault], lambda one: one.fault, [*by_code, *rest], "fault"),
            f"No check claims {', '.join(f'`{one}`' for one in rest)}; the first table is without them.",
            list_judgments("Sound, and refused", [one for one in own if not one.fault and one.refused], refused=True),
            list_judgments(
                "Faults that were not found",
                [one for one in aimed if one.fault and not one.refused],
                refused=False,
            ),
            "\n".join(
                ["Replies that break their request, left out above:", ""]
                + [
                    f"- {language} {number}: {why}"
                    for (name, language, number), why in BROKEN.items()
                    if name == family
                ]
            ),
        ]
    if any(one.family == "decisions" for one in replies):
        parts.append(count_refused_by_other_votes(replies))
    sys.stdout.write("\n\n".join(part.strip() for part in parts if part) + "\n")


if __name__ == "__main__":
    print_tasks_page()
