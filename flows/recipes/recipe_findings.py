"""What `validate` finds out about a valid recipe beyond its keys: release gate, prices, weights, tools and abilities."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from core.config.teacher_prices import PriceRecord
from flows.release.release_gate import describe_release_gate

if TYPE_CHECKING:
    from agents.planning.run_plan import RunPlan


class RecipeFindings(NamedTuple):
    """All but the gate by name: of the teacher, or of the source of tools."""

    gate: str
    prices: Mapping[str, PriceRecord]
    weights: Mapping[str, Path | None]
    """None if they are not downloaded."""
    abilities: Mapping[str, str]
    """Empty if no teacher was asked."""
    tools: Mapping[str, Sequence[str]]

    def to_json(self) -> dict[str, Any]:
        return {
            "live": self.abilities,
            "tools": self.tools,
            "gate": self.gate,
            "weights": {name: file and str(file) for name, file in self.weights.items()},
            "prices": {name: record.model_dump(mode="json") for name, record in self.prices.items()},
        }


async def inspect_recipe(plan: "RunPlan", *, live: bool) -> RecipeFindings:
    """With `live`, each teacher is asked a few short questions, and tool servers list their tools.

    Raises:
        ProviderError: as `probe_teachers`.
        RunFailed: as `list_source_tools`.
    """
    from teachers.local_weights import list_local_weights

    recipe, collapse = plan.recipe, plan.recipe.collapse
    abilities: dict[str, str] = {}
    if live:
        from agents.studies.preview import probe_teachers

        abilities = await probe_teachers(plan)
    tools: dict[str, list[str]] = {}
    if recipe.tools:
        from plugins.tools.toolbox.toolbox import list_source_tools

        tools = await list_source_tools(recipe.tools, plan.folder, live=live)
    gate = describe_release_gate(
        collapse.gate if collapse else True,
        has_reference=bool(collapse and collapse.reference),
        judges_structures=not collapse or collapse.structures,
    )
    return RecipeFindings(gate, plan.prices, list_local_weights(recipe), abilities, tools)
