"""A depot on a real S3 server (moto): what is published is fetched whole, and one machine at a time may publish."""

import threading
import time
from pathlib import Path

import pytest

from core import lease as leases
from core.depot import Depot
from core.errors import RunExists, StoreError
from core.lease import TakenOver
from core.store import write_text

pytestmark = [pytest.mark.slow, pytest.mark.waits]


def write(depot: Depot, **files: str) -> None:
    for name, text in files.items():
        write_text(depot.mirror / "runs" / "one" / name.replace("__", "/").replace("_", "."), text)


def read(depot: Depot) -> dict[str, str]:
    root = depot.mirror / "runs" / "one"
    return {str(file.relative_to(root)): file.read_text() for file in root.rglob("*") if file.is_file()}


def test_what_is_published_is_fetched_elsewhere_and_goes_on_there(url: str, tmp_path: Path) -> None:
    here, there = Depot(url, tmp_path / "here"), Depot(url, tmp_path / "there")
    write(here, manifest_json="1", shards__0="a", wip__0="answers", lock="")
    here.publish("runs/one")
    there.fetch("runs/one")
    assert read(there) == {"manifest.json": "1", "shards/0": "a", "wip/0": "answers"}
    assert there.names("runs") == ["one"]

    write(there, manifest_json="2", shards__1="b")
    (there.mirror / "runs/one/wip/0").unlink()
    there.publish("runs/one")
    write(here, shards__2="only here")
    here.fetch("runs/one")
    assert read(here) == {"manifest.json": "2", "shards/0": "a", "shards/1": "b", "shards/2": "only here", "lock": ""}


def test_who_finds_a_manifest_finds_all_that_it_names(url: str, tmp_path: Path) -> None:
    here, there = Depot(url, tmp_path / "here"), Depot(url, tmp_path / "there")
    names = {f"samples__{number}": "row" * 1000 for number in range(40)}
    write(here, **names, manifest_json="all")
    publishing = threading.Thread(target=here.publish, args=("runs/one",))
    publishing.start()
    until = time.monotonic() + 30
    while not there.has("runs/one/manifest.json") and time.monotonic() < until:
        pass
    assert len(there.names("runs/one/samples")) == 40
    publishing.join()


def test_a_name_that_leads_out_of_the_mirror_is_refused(url: str, tmp_path: Path) -> None:
    import s3fs

    s3fs.S3FileSystem().pipe_file(f"{url.removeprefix('s3://')}/runs/one/../../../out", b"mine")
    with pytest.raises(StoreError, match=r"'\.\./\.\./\.\./out' is no name of a file here; remove it"):
        Depot(url, tmp_path / "mirror").fetch("runs/one")


def test_of_many_machines_one_holds_a_folder(url: str, tmp_path: Path) -> None:
    held, refused, all_tried = [], [], threading.Barrier(6)

    def work(number: int) -> None:
        try:
            with Depot(url, tmp_path / str(number)).leased("runs/one"):
                held.append(number)
                all_tried.wait(30)
        except RunExists:
            refused.append(number)
            all_tried.wait(30)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(held), len(refused)) == (1, 5)
    with Depot(url, tmp_path / "later").leased("runs/one") as lease:
        lease.beat()


def test_a_silent_machine_loses_its_folder_and_hears_of_it(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = Depot(url, tmp_path / "here"), Depot(url, tmp_path / "there")
    with here.leased("runs/one") as mine:
        with (
            pytest.raises(RunExists, match=r"works on it, heard of \d s ago; wait for it or stop it"),
            there.leased("runs/one"),
        ):
            raise AssertionError
        with pytest.raises(RunExists, match="another process of this machine works on it"), here.leased("runs/one"):
            raise AssertionError
        monkeypatch.setattr(leases, "SILENT_SECONDS", 1.0)
        time.sleep(2.1)  # the store tells whole seconds
        with there.leased("runs/one"), pytest.raises(TakenOver, match="another machine took over"):
            mine.beat()


def test_what_a_dead_process_held_its_own_machine_takes_up_at_once(url: str, tmp_path: Path) -> None:
    from contextlib import ExitStack

    left = ExitStack()
    left.enter_context(Depot(url, tmp_path).leased("runs/one"))
    lock = next((tmp_path / ".depot").rglob("*.lock"))
    lock.rename(lock.with_suffix(".gone"))  # as the kernel lets go of it
    with Depot(url, tmp_path).leased("runs/one") as lease:
        lease.beat()
    left.close()


def test_a_store_that_is_not_there_is_one_sentence(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import s3fs

    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(StoreError, match=r"the store does not answer as it should: .*check address and keys"):
        Depot(url, tmp_path).names("runs")
