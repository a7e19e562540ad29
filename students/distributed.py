"""Data-parallel training under `torchrun`: several processes train one student, each on its part of every step.

Knows torch.distributed; knows no model. Without `torchrun` there is one process.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import distributed


@contextmanager
def process_group() -> Iterator[None]:
    """Join the process group that `torchrun` started, if any, and wait for all processes at the end."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield
        distributed.barrier()
    finally:
        distributed.destroy_process_group()


def rank_and_world_size() -> tuple[int, int]:
    """The number of this process, and the number of processes."""
    if not distributed.is_initialized():
        return 0, 1
    return distributed.get_rank(), distributed.get_world_size()


def is_main_process() -> bool:
    """Whether this process writes files."""
    return rank_and_world_size()[0] == 0


def select_device() -> torch.device:
    """The GPU of this process, or the CPU without a GPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


@contextmanager
def main_process_first() -> Iterator[None]:
    """Run the block in the main process first, while the others wait, then in the others."""
    if not is_main_process():
        distributed.barrier()
    yield
    if is_main_process() and distributed.is_initialized():
        distributed.barrier()


def all_reduce_sum(tensors: Iterable[torch.Tensor]) -> None:
    """Replace each tensor by its sum over all processes, in place."""
    if distributed.is_initialized():
        for tensor in tensors:
            distributed.all_reduce(tensor)
