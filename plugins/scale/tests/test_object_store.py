"""An object store on a real S3 server (moto): what is published is fetched whole, and one machine at a time may publish."""

import threading
import time
from pathlib import Path

import pytest

from core.errors import RunExists, StoreError
from core.storage.atomic_files import write_text
from plugins.scale import lease as leases
from plugins.scale.lease import LeaseLost
from plugins.scale.object_store import ObjectStore
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.waits]


def write(store: ObjectStore, **files: str) -> None:
    for name, text in files.items():
        write_text(store.mirror / "runs" / "one" / name.replace("__", "/").replace("_", "."), text)


def read(store: ObjectStore) -> dict[str, str]:
    root = store.mirror / "runs" / "one"
    return {str(file.relative_to(root)): file.read_text() for file in root.rglob("*") if file.is_file()}


def test_what_is_published_is_fetched_elsewhere_and_continued_there(url: str, tmp_path: Path) -> None:
    here, there = ObjectStore(url, tmp_path / "here"), ObjectStore(url, tmp_path / "there")
    write(here, manifest_json="1", shards__0="a", wip__0="answers", lock="")
    here.publish("runs/one")
    there.fetch("runs/one")
    assert read(there) == {"manifest.json": "1", "shards/0": "a", "wip/0": "answers"}
    assert there.list_folders("runs") == ["one"]

    write(there, manifest_json="2", shards__1="b")
    (there.mirror / "runs/one/wip/0").unlink()
    there.publish("runs/one")
    write(here, shards__2="only here")
    here.fetch("runs/one")
    assert read(here) == {"manifest.json": "2", "shards/0": "a", "shards/1": "b", "shards/2": "only here", "lock": ""}


def test_who_finds_a_manifest_finds_all_that_it_names(url: str, tmp_path: Path) -> None:
    here, there = ObjectStore(url, tmp_path / "here"), ObjectStore(url, tmp_path / "there")
    names = {f"samples__{number}": "row" * 1000 for number in range(40)}
    write(here, **names, manifest_json="all")
    publishing = threading.Thread(target=here.publish, args=("runs/one",))
    publishing.start()
    wait_until(lambda: there.exists("runs/one/manifest.json"), every=0)
    assert len(there.list_folders("runs/one/samples")) == 40
    publishing.join()


def test_a_name_that_leads_out_of_the_mirror_is_refused(url: str, tmp_path: Path) -> None:
    import s3fs

    s3fs.S3FileSystem().pipe_file(f"{url.removeprefix('s3://')}/runs/one/../../../out", b"mine")
    with pytest.raises(StoreError, match=r"'\.\./\.\./\.\./out' is not a valid file name; remove it"):
        ObjectStore(url, tmp_path / "mirror").fetch("runs/one")


def test_of_many_machines_one_holds_a_folder(url: str, tmp_path: Path) -> None:
    held, refused, all_tried = [], [], threading.Barrier(6)

    def work(number: int) -> None:
        try:
            with ObjectStore(url, tmp_path / str(number)).hold_lease("runs/one"):
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
    with ObjectStore(url, tmp_path / "later").hold_lease("runs/one") as lease:
        lease.renew()


def test_a_silent_machine_loses_its_folder_and_hears_of_it(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = ObjectStore(url, tmp_path / "here"), ObjectStore(url, tmp_path / "there")
    with here.hold_lease("runs/one") as mine:
        with (
            pytest.raises(RunExists, match=r"works on it, last heartbeat \d+ s ago; wait for it or stop it"),
            there.hold_lease("runs/one"),
        ):
            raise AssertionError
        with pytest.raises(RunExists, match="another process of this machine works on it"), here.hold_lease("runs/one"):
            raise AssertionError
        monkeypatch.setattr(leases, "EXPIRY_SECONDS", 1.0)
        time.sleep(2.1)  # the store reports whole seconds
        with there.hold_lease("runs/one"), pytest.raises(LeaseLost, match="another machine took over"):
            mine.renew()


def test_what_a_dead_process_held_its_own_machine_takes_up_at_once(url: str, tmp_path: Path) -> None:
    from contextlib import ExitStack

    left = ExitStack()
    left.enter_context(ObjectStore(url, tmp_path).hold_lease("runs/one"))
    lock = next((tmp_path / ".depot").rglob("*.lock"))
    lock.rename(lock.with_suffix(".gone"))  # as the kernel lets go of it
    with ObjectStore(url, tmp_path).hold_lease("runs/one") as lease:
        lease.renew()
    left.close()


def test_a_store_that_is_not_there_is_one_sentence(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import s3fs

    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(StoreError, match=r"unexpected answer of the store: .*check address and keys"):
        ObjectStore(url, tmp_path).list_folders("runs")
