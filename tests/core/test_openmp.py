"""Threads that sleep soon, so that other processes do not stop a training."""

import os
import subprocess
import sys

import pytest

from core.openmp import LLAMA_SPINS, SPIN_VARIABLE, TORCH_SPINS, choose_llama_spins


@pytest.mark.parametrize(
    ("own", "seen"),
    [({}, TORCH_SPINS), ({SPIN_VARIABLE: "77"}, "77"), ({"OMP_WAIT_POLICY": "active"}, "30000000000")],
)
def test_torch_is_loaded_with_the_chosen_spins_or_the_users(own: dict[str, str], seen: str) -> None:
    """OpenMP itself prints what it read, long before the import of torch ends, which nothing here waits for."""
    others = {name: value for name, value in os.environ.items() if name != SPIN_VARIABLE}
    environment = {**others, **own, "OMP_DISPLAY_ENV": "VERBOSE"}
    command = [sys.executable, "-c", "import students.losses.loss_functions"]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as importing:
        assert importing.stderr
        printed = next((line.strip() for line in importing.stderr if SPIN_VARIABLE in line), "nothing")
        importing.kill()
    assert f"{SPIN_VARIABLE} = '{seen}'" in printed


@pytest.mark.parametrize(("own", "chosen"), [(None, LLAMA_SPINS), (TORCH_SPINS, LLAMA_SPINS), ("77", "77")])
def test_llama_cpp_gets_the_users_choice_and_not_that_of_torch(
    own: str | None, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if own is None:
        monkeypatch.delenv(SPIN_VARIABLE, raising=False)
    else:
        monkeypatch.setenv(SPIN_VARIABLE, own)
    assert choose_llama_spins() == chosen
