"""Samples made by the workers of a Dask or Ray cluster, while teachers, budget and files stay with the command."""

from typing import Any

from core.plugins import Part, Plugin


def _load_config() -> Any:
    from plugins.scale.config import ScaleConfig

    return ScaleConfig


def _load_hooks() -> Any:
    from plugins.scale.hooks import ScaleHooks

    return ScaleHooks()


PLUGIN = Plugin(
    name="scale",
    about="Samples made on a Dask or Ray cluster",
    extra="cluster",
    parts=(Part("section", "scale", _load_config), Part("hooks", "scale", _load_hooks)),
)
