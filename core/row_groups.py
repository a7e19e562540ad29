"""Groups of rows that must be on one side of a split, since they share a prompt, an image or the like. Knows keys, not rows."""

from collections.abc import Hashable, Iterable, Sequence


def group_rows(keys: Sequence[Iterable[Hashable]]) -> list[list[int]]:
    """The places of rows that share a key, directly or through other rows (union-find). Groups are ordered by their first row."""
    parents = list(range(len(keys)))
    first: dict[Hashable, int] = {}

    def find_root(place: int) -> int:
        while parents[place] != place:
            parents[place] = place = parents[parents[place]]
        return place

    for place, shared in enumerate(keys):
        for key in shared:
            parents[find_root(place)] = find_root(first.setdefault(key, place))
    groups: dict[int, list[int]] = {}
    for place in range(len(keys)):
        groups.setdefault(find_root(place), []).append(place)
    return list(groups.values())


def choose_groups(groups: Sequence[Sequence[int]], size: int) -> set[int]:
    """The rows of the first groups that fit into `size` rows; of the smallest group if none fits. Empty if `size` is 0."""
    chosen: set[int] = set()
    for group in groups:
        if len(chosen) + len(group) <= size:
            chosen.update(group)
    if size and not chosen:
        smallest: Sequence[int] = min(groups, key=len)
        chosen.update(smallest)
    return chosen
