"""Samples made by the workers of a Dask or Ray cluster, while teachers, budget and files stay with the command; datasets filtered
on the workers of a Dask cluster; runs and releases on an object store.
"""

from core.plugins import Part, Plugin, load_from

part = load_from(__name__)

PLUGIN = Plugin(
    name="scale",
    about="Samples made on a Dask or Ray cluster, datasets filtered on a Dask cluster, runs on an object store",
    extra="scale",
    parts=(
        Part("section", "scale", part("config:ScaleConfig")),
        Part("filter_workers", "dask", part("dask_filtering:connect_dask_workers")),
        Part("depot", "object_store", part("object_store:ObjectStore")),
        Part("hooks", "scale", part("hooks:HOOKS")),
    ),
)
