"""Debian's stock kernels as apt offers them: asked for, downloaded, unpacked under .cache/vm, never installed.

    python -m vm.kernels [oldest | all | NAME...]     NAME: 6.12 (the newest of that series), 6.12-rt, or a release

One directory a kernel, named after its release (what `uname -r` says):

    vmlinuz        the kernel
    modules        those that the guest needs (see initramfs.py), in the order of loading
    lib/modules    only the links to the headers
    usr/src        the headers, which BCC compiles against
    version        of the package

apt checks what it downloads against the signed lists of the distribution; no other integrity is claimed.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from vm.errors import Unavailable
from vm.modules import keep_modules

CHECKOUT = Path(__file__).parents[2]
CACHE = CHECKOUT / ".cache/vm"
STOCK = ""
_APT_TIMEOUT_S = 600
_PACKAGE = re.compile(r"linux-image-((\d+\.\d+)\.\d\S*?)(?:-(cloud|rt))?-amd64$")
_COMMON = re.compile(r"Depends: (linux-headers-\S+-common(?:-\w+)?)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Kernel:
    """One release: `series` is 6.12, `flavour` is empty for the stock kernel, else rt or cloud."""

    release: str
    series: str
    flavour: str = STOCK

    @classmethod
    def of(cls, release: str) -> Kernel:
        """The kernel of a release, as `uname -r` says it.

        Raises:
            Unavailable: not the form of Debian's releases.
        """
        match = _PACKAGE.match(f"linux-image-{release}")
        if match is None:
            raise Unavailable(f"{release!r} is not a kernel release of Debian, like 6.1.0-56-amd64")
        return cls(release, match[2], match[3] or STOCK)

    @property
    def name(self) -> str:
        return f"{self.series}-{self.flavour}" if self.flavour else self.series

    @property
    def age(self) -> tuple[int, ...]:
        return age_of(self.release)

    @property
    def directory(self) -> Path:
        return CACHE / self.release

    @property
    def version(self) -> str:
        """Of the package that was fetched."""
        return (self.directory / "version").read_text("ascii").strip()

    @property
    def fetched(self) -> bool:
        return self.directory.is_dir()


def age_of(release: str) -> tuple[int, ...]:
    """Sorts releases from old to new, any distribution's."""
    return tuple(int(number) for number in re.findall(r"\d+", release.partition("-amd64")[0]))


def choose(kernels: Iterable[Kernel], names: Iterable[str]) -> list[Kernel]:
    """The kernels that are meant, old to new: `oldest`, `all`, names or releases.

    Raises:
        Unavailable: nothing has such a name.
    """
    ordered = sorted(kernels, key=lambda kernel: kernel.age)
    newest = {kernel.name: kernel for kernel in ordered}  # the last of each name stays
    stock = [kernel for kernel in newest.values() if kernel.flavour == STOCK]
    known = {"oldest": stock[:1], "all": stock}
    known |= {name: [kernel] for name, kernel in newest.items()}
    known |= {kernel.release: [kernel] for kernel in ordered}
    chosen: set[Kernel] = set()
    for name in names:
        if not known.get(name):
            raise Unavailable(f"there is no kernel {name!r}; known: {', '.join(newest) or 'none'}")
        chosen.update(known[name])
    return sorted(chosen, key=lambda kernel: (kernel.age, kernel.flavour))


def offered() -> list[Kernel]:
    """What apt could download now."""
    listed = _run("apt-cache", "search", "--names-only", r"^linux-image-[0-9]+\.[0-9]+\.[0-9].*-amd64$")
    packages = (line.split(" ", 1)[0] for line in listed.splitlines())
    return [Kernel.of(name.removeprefix("linux-image-")) for name in packages if _PACKAGE.match(name)]


def known() -> list[Kernel]:
    """What apt offers; where it knows nothing, even after having asked, what is here already."""
    if found := offered():
        return found
    try:
        _run("apt-get", "-q", "update")
    except Unavailable as error:
        sys.stderr.write(f"note: {error}\n")
    return offered() or fetched()


def fetched() -> list[Kernel]:
    """What can be booted without asking apt."""
    return [Kernel.of(path.parent.name) for path in CACHE.glob("*-amd64/version")]


def fetch(kernel: Kernel) -> None:
    """Download and unpack; complete or not at all."""
    work = CACHE / f"{kernel.release}.new"
    shutil.rmtree(work, ignore_errors=True)
    tree = work / "tree"
    tree.mkdir(parents=True)
    _download(packages(kernel), work)
    image = next(work.glob("linux-image-*.deb"))
    (work / "version").write_text(_run("dpkg-deb", "--field", str(image), "Version"), "ascii")
    for package in work.glob("*.deb"):
        _run("dpkg-deb", "--extract", str(package), str(tree))
        package.unlink()
    _run("depmod", "--basedir", str(tree), kernel.release)
    (tree / f"boot/vmlinuz-{kernel.release}").rename(work / "vmlinuz")
    keep_modules(tree, kernel.release, work / "modules")
    _keep_headers(tree, work, kernel.release)
    shutil.rmtree(kernel.directory, ignore_errors=True)
    work.rename(kernel.directory)


def packages(kernel: Kernel) -> list[str]:
    """The image, and the two packages of headers that BCC compiles against."""
    headers = f"linux-headers-{kernel.release}"
    common = _COMMON.search(_run("apt-cache", "depends", headers))
    if common is None:
        raise Unavailable(f"apt has no {headers} to compile BPF programs with")
    return [f"linux-image-{kernel.release}", headers, common[1]]


def _download(names: list[str], directory: Path) -> None:
    command = ("apt-get", "-q", "-o", "APT::Sandbox::User=root", "download", *names)
    try:
        _run(*command, directory=directory)
    except Unavailable:  # lists that have aged name packages that are gone
        _run("apt-get", "-q", "update")
        _run(*command, directory=directory)


def _keep_headers(tree: Path, work: Path, release: str) -> None:
    """All other modules would take half a gigabyte."""
    links = work / "lib/modules" / release
    links.mkdir(parents=True)
    for name in ("build", "source"):
        (tree / "lib/modules" / release / name).rename(links / name)
    (work / "usr").mkdir()
    (tree / "usr/src").rename(work / "usr/src")
    shutil.rmtree(tree)


def _run(*command: str, directory: Path = CHECKOUT) -> str:
    done = subprocess.run(
        command, cwd=directory, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_APT_TIMEOUT_S,
        check=False,
    )  # fmt: skip
    if done.returncode:
        raise Unavailable(f"{' '.join(command[:2])}: {(done.stderr or done.stdout).strip()}")
    return done.stdout


def main(*names: str) -> int:
    try:
        for kernel in choose(known(), names or ("all",)):
            if not kernel.fetched:
                sys.stdout.write(f"fetching Debian's kernel {kernel.release}\n")
                fetch(kernel)
    except Unavailable as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
