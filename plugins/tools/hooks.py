"""What tools do in a run beyond its samples: they are listed by `validate`, and only their own family takes them."""

from collections.abc import Mapping, Sequence
from typing import Any

from core.config.recipe import Recipe
from core.errors import RecipeProblem
from core.hooks import RunHooks
from plugins.tools.config import ToolSourceConfig
from plugins.tools.toolbox.toolbox import list_source_tools

FAMILY = "tool_calls"


class ToolHooks(RunHooks):
    def list_plan_problems(self, plan: Any) -> Sequence[RecipeProblem]:
        recipe = plan.recipe
        if recipe.family == FAMILY or not recipe.section_list(ToolSourceConfig):
            return ()
        return [RecipeProblem("tools", f"only the family {FAMILY} takes tools, and this is {recipe.family}")]

    def list_recipe_lines(self, recipe: Recipe) -> Sequence[tuple[str, str]]:
        sources = recipe.section_list(ToolSourceConfig)
        return [("tools", ", ".join(source.title for source in sources))] if sources else ()

    async def find_recipe_facts(self, plan: Any, *, live: bool) -> Mapping[str, Sequence[str]]:
        sources = plan.recipe.section_list(ToolSourceConfig)
        return await list_source_tools(sources, plan.folder, live=live) if sources else {}
