"""Which kernels are meant; what apt says is given."""

from __future__ import annotations

import pytest
from vm import kernels
from vm.errors import Unavailable
from vm.kernels import Kernel, choose

RELEASES = (
    "6.1.0-9-amd64", "6.12.101+deb12-amd64", "6.1.0-56-amd64", "6.12.117+deb12-rt-amd64", "6.12.9+deb12-amd64",
    "6.1.0-56-cloud-amd64",
)  # fmt: skip
OFFERED = [Kernel.of(release) for release in RELEASES]


def releases(*names: str) -> list[str]:
    return [kernel.release for kernel in choose(OFFERED, names)]


def test_kernel_of_release_knows_series_and_flavour():
    assert [kernel.name for kernel in OFFERED] == ["6.1", "6.12", "6.1", "6.12-rt", "6.12", "6.1-cloud"]


@pytest.mark.parametrize("release", ["6.18.44-fc", "6.1.0-56-arm64", "", "../6.1.0-56-amd64"])
def test_kernel_of_another_form_is_refused(release):
    with pytest.raises(Unavailable, match="not a kernel release of Debian"):
        Kernel.of(release)


def test_choose_all_gives_the_newest_stock_kernel_of_each_series():
    assert releases("all") == ["6.1.0-56-amd64", "6.12.101+deb12-amd64"]


def test_choose_oldest_gives_the_newest_of_the_oldest_series():
    assert releases("oldest") == ["6.1.0-56-amd64"]


def test_choose_takes_names_and_releases_each_once_and_orders_them():
    assert releases("6.12-rt", "6.1.0-9-amd64", "6.12", "all") == [
        "6.1.0-9-amd64", "6.1.0-56-amd64", "6.12.101+deb12-amd64", "6.12.117+deb12-rt-amd64",
    ]  # fmt: skip


def test_choose_unknown_name_says_which_are_known():
    with pytest.raises(Unavailable, match=r"no kernel '5\.10'; known: 6\.1, .*6\.12-rt"):
        releases("5.10")


def test_choose_among_none_says_so():
    with pytest.raises(Unavailable, match="known: none"):
        choose([], ["oldest"])


def test_known_falls_back_on_what_was_fetched(monkeypatch, tmp_path, capsys):
    (tmp_path / RELEASES[0]).mkdir()
    (tmp_path / RELEASES[0] / "version").write_text("1-1\n")
    monkeypatch.setattr(kernels, "CACHE", tmp_path)
    monkeypatch.setattr(kernels, "offered", list)

    def no_network(*command):
        raise Unavailable("apt-get update: no network")

    monkeypatch.setattr(kernels, "_run", no_network)
    assert kernels.known() == [OFFERED[0]]
    assert OFFERED[0].version == "1-1"
    assert "no network" in capsys.readouterr().err


def test_packages_are_the_image_and_both_headers(monkeypatch):
    depends = "linux-headers-x\n  Depends: linux-base\n  Depends: linux-headers-6.12.117+deb12-common-rt\n"
    monkeypatch.setattr(kernels, "_run", lambda *_: depends)
    assert kernels.packages(OFFERED[3]) == [
        "linux-image-6.12.117+deb12-rt-amd64",
        "linux-headers-6.12.117+deb12-rt-amd64",
        "linux-headers-6.12.117+deb12-common-rt",
    ]


def test_packages_without_headers_are_unavailable(monkeypatch):
    monkeypatch.setattr(kernels, "_run", lambda *_: "")
    with pytest.raises(Unavailable, match=r"no linux-headers-6\.1\.0-9-amd64"):
        kernels.packages(OFFERED[0])
