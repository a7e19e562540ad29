"""Several processes that train one student, each on its part of every step, as `torchrun` starts them. Mostly there is one.

Knows torch.distributed; knows nothing of what is trained.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import distributed


@contextmanager
def together() -> Iterator[None]:
    """Join the processes that `torchrun` started, if any, and wait for all of them in the end."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield
        distributed.barrier()
    finally:
        distributed.destroy_process_group()


def place() -> tuple[int, int]:
    """The number of this process, and how many there are."""
    if not distributed.is_initialized():
        return 0, 1
    return distributed.get_rank(), distributed.get_world_size()


def first() -> bool:
    """Whether this is the process that writes."""
    return place()[0] == 0


def device() -> torch.device:
    """The GPU of this process, or the CPU where there is none."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


@contextmanager
def one_at_first() -> Iterator[None]:
    """Do something in the first process while the others wait, and then in the others."""
    if not first():
        distributed.barrier()
    yield
    if first() and distributed.is_initialized():
        distributed.barrier()


def add_up(tensors: Iterable[torch.Tensor]) -> None:
    """Make each tensor the sum of all processes' tensors in its place, in place."""
    if distributed.is_initialized():
        for tensor in tensors:
            distributed.all_reduce(tensor)
