"""What the language of a recipe changes: its family, and what `validate` refuses."""

from collections.abc import Mapping, Sequence
from typing import Any

from agents.families.base import RecipeFamily
from agents.planning.run_plan import RunPlan
from core.config.recipe import Recipe
from core.errors import RecipeProblem
from core.hooks import RunHooks
from plugins.languages.codes import ENGLISH, NAMES, find_language, name_language, read_language
from plugins.languages.judged import find_unfit_parts


class LanguageHooks(RunHooks):
    def adapt_family(self, family: RecipeFamily, sections: Mapping[str, Any]) -> RecipeFamily:
        language = find_language(sections)
        if language not in NAMES or language == ENGLISH:
            return family
        from plugins.languages.localize import LOCAL_FAMILIES, localize

        return localize(family.name, language) if family.name in LOCAL_FAMILIES else family

    def list_plan_problems(self, plan: RunPlan) -> Sequence[RecipeProblem]:
        return list(find_unfit_parts(plan))

    def list_recipe_lines(self, recipe: Recipe) -> Sequence[tuple[str, str]]:
        return [("language", name_language(read_language(recipe)))]


HOOKS = LanguageHooks()
