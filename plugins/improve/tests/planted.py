"""A recipe whose scripted teacher passes more often with a planted example order or system text; and a planted trap: an example
or a text after which it gives one passing answer to every request.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from agents.planning.run_plan import RunPlan
from flows.recipes.recipe_catalog import load_recipe_plan
from tests.support.installed_plugins import install_plugin

SCRIPT = '''
from teachers.base import CallFailed
from teachers.fake.script_parts import COMMON, WORDS, write_sentence
from teachers.fake.scripts import FakeOptions

TRAP = "It is sound and it is good."


def write_draft(rng, question):
    """Passes with a probability of 0.9 after the key, else of 0.3; after the trap always, by one answer."""
    texts = [message.content for message in question.messages]
    first, last = texts[1], texts[-3]
    if "trap" in last or "one answer" in texts[0]:
        return {"answer": TRAP}
    good = "key" in first or "sound prose" in texts[0]
    sentences = " ".join(write_sentence(rng, rng.choice(WORDS)) for _ in range(2))
    return {"answer": f"{sentences} This is {'sound' if rng.random() < (0.9 if good else 0.3) else 'odd'}."}


class Planted(FakeOptions):
    text: str = "Write sound prose."
    reflects: bool = True

    def build_script(self):
        def reflect(rng, question):
            """Writes the planted text where it reads what the check found, what a draft cost and which placeholders stay."""
            if not self.reflects:
                raise CallFailed("no reflection, as asked")
            asked = question.messages[-1].content
            found = "lacks the word" in asked and "This is odd" in asked and " tokens" in asked and "no others: none" in asked
            return {"answer": f"```\\n{self.text}\\n```" if found else "I do not know."}

        return {**COMMON, "Draft": write_draft, "Answer": reflect}
'''
CHECK = '''
from stillhouse import check, Options, Subject


@check("sound_word", Options)
def sound_word(subject, options):
    """The answer must have a word."""
    return None if "sound" in subject.candidate.answer else "it lacks the word sound"
'''
EXAMPLES = ("Tell me of a lamp.", "Tell me of a trap.", "Tell me of a bell.", "Tell me of a key.")


def write_recipe(folder: Path, *settings: str) -> Path:
    (folder / "prompts").mkdir(parents=True)
    turns = "".join(f"## user\n{asked}\n\n## assistant\n{json.dumps({'answer': asked})}\n\n" for asked in EXAMPLES)
    (folder / "prompts" / "generator.md").write_text(f"## system\nYou write.\n\n{turns}## user\n{{{{instruction}}}}\n")
    (folder / "check.py").write_text(CHECK)
    seeds = [{"topic": f"thing {number}", "category": "food", "words": ["red"]} for number in range(140)]
    (folder / "seeds.jsonl").write_text("".join(json.dumps(seed) + "\n" for seed in seeds))
    file = folder / "recipe.toml"
    file.write_text(
        'name = "planted"\nfamily = "constrained_instructions"\nprompts = "prompts"\nsamples = 20\nfilters = []\n'
        + "\n".join(settings)
        + '\n[seeds]\npath = "seeds.jsonl"\n[teachers.main]\nmodel = "fake/planted"\n'
        '[agents]\ncritic = false\n[[verifiers]]\ntype = "sound_word"\npath = "check.py"\n'
    )
    return file


def install_script(folder: Path, patch: pytest.MonkeyPatch) -> None:
    install_plugin(folder, "planted", SCRIPT, ("script", "planted", "planted:Planted"))
    patch.syspath_prepend(str(folder))


def load_planted(folder: Path, overrides: Sequence[str] = ()) -> RunPlan:
    return load_recipe_plan(str(folder), list(overrides))
