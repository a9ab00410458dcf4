"""The symlink swap, addresses, deadlines: what can be told without an API server."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pytest

from fairlead_cluster.node.addresses import AddressPool
from fairlead_cluster.node.atomicwriter import File, write_atomically
from fairlead_cluster.node.containerlogs import ContainerLogs, termination_message
from fairlead_cluster.node.deadline import Deadline


def files(**content: str) -> dict[str, File]:
    return {name.replace("__", "/"): File(text.encode(), 0o644) for name, text in content.items()}


def visible(directory: Path) -> dict[str, str]:
    return {entry.name: entry.read_text() for entry in directory.iterdir() if not entry.name.startswith("..")}


def test_the_same_files_again_change_nothing(tmp_path: Path) -> None:
    assert write_atomically(tmp_path, files(a="1"))
    before = (tmp_path / "..data").readlink()
    assert not write_atomically(tmp_path, files(a="1"))
    assert (tmp_path / "..data").readlink() == before


def test_files_come_change_and_go(tmp_path: Path) -> None:
    write_atomically(tmp_path, files(a="1", b="1"))
    write_atomically(tmp_path, files(a="2", c="1"))
    assert visible(tmp_path) == {"a": "2", "c": "1"}
    assert len([entry for entry in tmp_path.iterdir() if entry.name.startswith("..2")]) == 1


def test_only_a_mode_is_a_change_too(tmp_path: Path) -> None:
    write_atomically(tmp_path, {"a": File(b"1", 0o644)})
    assert write_atomically(tmp_path, {"a": File(b"1", 0o400)})
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o400


def test_folders_are_linked_by_their_first_component(tmp_path: Path) -> None:
    write_atomically(tmp_path, files(deep__er__a="1", deep__b="2"))
    assert str((tmp_path / "deep").readlink()) == "..data/deep"
    assert (tmp_path / "deep" / "er" / "a").read_text() == "1"
    write_atomically(tmp_path, files(x="1"))
    assert visible(tmp_path) == {"x": "1"}


def test_no_files_are_an_empty_volume(tmp_path: Path) -> None:
    write_atomically(tmp_path / "v", {})
    assert (tmp_path / "v" / "..data").is_dir()


def test_two_pools_never_have_one_address() -> None:
    first, second = AddressPool(first_block=7), AddressPool(first_block=7)
    try:
        mine, others = {first.take() for _ in range(300)}, {second.take() for _ in range(300)}
        assert len(mine) == len(others) == 300
        assert not mine & others
        assert all(address.startswith("127.244.") for address in mine | others)
    finally:
        first.close()
        second.close()


def test_an_address_is_not_taken_twice_nor_again_at_once() -> None:
    pool = AddressPool()
    try:
        address = pool.take()
        pool.give_back(address)
        pool.give_back(address)
        following = [pool.take() for _ in range(254)]
        assert following[-1] == address
        assert len(set(following)) == 254
    finally:
        pool.close()


async def test_a_deadline_may_come_nearer_but_not_go_away() -> None:
    deadline = Deadline(30)
    started_s = time.monotonic()
    asyncio.get_running_loop().call_later(0.05, deadline.shorten_to, 0.05)
    assert not await deadline.wait_for(asyncio.Event().wait())
    assert time.monotonic() - started_s < 5
    deadline.shorten_to(100)
    assert deadline.remaining_s() == 0


async def test_a_deadline_that_has_passed_still_leaves_the_least_time() -> None:
    deadline = Deadline(0)
    event = asyncio.Event()
    asyncio.get_running_loop().call_later(0.05, event.set)
    assert await deadline.wait_for(event.wait(), at_least_s=5)
    assert not await deadline.wait_for(asyncio.Event().wait(), at_least_s=0.05)


def test_logs_keep_two_runs(tmp_path: Path) -> None:
    logs = ContainerLogs(tmp_path)
    for run in range(4):
        os.close(logs.open(run))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["2.log", "3.log"]


@pytest.mark.parametrize(
    ("written", "policy", "code", "message"),
    [
        ("said", "File", 1, "said"),
        ("said", "FallbackToLogsOnError", 1, "said"),
        ("", "FallbackToLogsOnError", 1, "the log\n"),
        ("", "FallbackToLogsOnError", 0, ""),
        ("", "File", 1, ""),
        ("x" * 5000, "File", 0, "x" * 4096),
    ],
)
def test_termination_messages(tmp_path: Path, written: str, policy: str, code: int, message: str) -> None:
    (tmp_path / "message").write_text(written)
    logs = ContainerLogs(tmp_path / "logs")
    (tmp_path / "logs").mkdir()
    logs.path(0).write_text("the log\n")
    assert termination_message(tmp_path / "message", policy, code, logs, 0) == message
