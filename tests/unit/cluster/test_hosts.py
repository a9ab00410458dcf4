"""Names outside of the cluster: a file that several processes write and one reads."""

from __future__ import annotations

from pathlib import Path

import pytest

from fairlead_cluster.hosts import HostsFile


def test_what_one_writes_another_finds(tmp_path: Path) -> None:
    writer, reader = HostsFile(tmp_path / "hosts"), HostsFile(tmp_path / "hosts")
    assert reader.find("api.a.test") == ()
    writer.update({"api.a.test": ("127.0.0.5",), "b.test": ("127.0.0.6", "127.0.0.7")})
    assert reader.find("api.a.test") == ("127.0.0.5",)
    assert reader.find("b.test") == ("127.0.0.6", "127.0.0.7")
    HostsFile(tmp_path / "hosts").update({"b.test": None})
    assert reader.find("b.test") == ()
    assert reader.find("api.a.test") == ("127.0.0.5",)
    assert [path.name for path in tmp_path.iterdir()] == ["hosts"]


def test_people_may_write_it(tmp_path: Path) -> None:
    (tmp_path / "hosts").write_text("# mine\n127.0.0.5  One.test two.test # both\n\n127.0.0.6 one.test\n")
    hosts = HostsFile(tmp_path / "hosts")
    assert hosts.find("one.test") == ("127.0.0.5", "127.0.0.6")
    assert hosts.find("two.test") == ("127.0.0.5",)


@pytest.mark.parametrize("name", ["", "UPPER.test", "a b", "a\nb", "-a.test", "a..b", "x" * 64])
def test_names_that_are_none_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError):
        HostsFile(tmp_path / "hosts").update({name: ("127.0.0.5",)})


def test_addresses_that_are_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError):
        HostsFile(tmp_path / "hosts").update({"a.test": ("127.0.0.5\n127.0.0.6 b",)})
