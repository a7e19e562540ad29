"""Samples made by the workers of a Dask or Ray cluster, while teachers, budget and files stay with the command; datasets filtered
on the workers of a Dask cluster; runs and releases on an object store.
"""

from typing import Any

from core.plugins import Part, Plugin


def _load_config() -> Any:
    from plugins.scale.config import ScaleConfig

    return ScaleConfig


def _load_hooks() -> Any:
    from plugins.scale.hooks import ScaleHooks

    return ScaleHooks()


def _load_dask_filtering() -> Any:
    from plugins.scale.dask_filtering import connect_dask_workers

    return connect_dask_workers


def _load_object_store() -> Any:
    from plugins.scale.object_store import ObjectStore

    return ObjectStore


PLUGIN = Plugin(
    name="scale",
    about="Samples made on a Dask or Ray cluster, datasets filtered on a Dask cluster, runs on an object store",
    extra="scale",
    parts=(
        Part("section", "scale", _load_config),
        Part("filter_workers", "dask", _load_dask_filtering),
        Part("depot", "object_store", _load_object_store),
        Part("hooks", "scale", _load_hooks),
    ),
)
