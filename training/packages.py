"""Which packages of Debian 12 (bookworm) the training text is taken from, and getting them with apt.

Nothing is installed: package lists and packages are downloaded into a folder and unpacked there. Other releases
have some of the packages under other names, for example those with Python's version in it, or not at all.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

DICTIONARIES: Final = ("wordnet-base", "dict-gcide", "dict-foldoc")
PYTHON_DOCUMENTATION: Final = ("python3.11-doc",)
PYTHON: Final = tuple(
    """
    libpython3.11-stdlib python3-numpy python3-pandas python3-scipy python3-sympy python3-networkx
    python3-sqlalchemy python3-twisted python3-matplotlib python3-sklearn python3-django python3-pil
    python3-nltk python3-requests python3-flask python3-astropy python3-statsmodels
    python3-dask python3-xarray python3-tornado python3-aiohttp python3-cryptography
    python3-paramiko python3-scrapy python3-sphinx python3-docutils python3-jinja2 python3-lxml
    python3-biopython python3-click python3-werkzeug python3-pygments python3-urllib3 python3-boto3
    python3-celery python3-kombu python3-gensim python3-mechanize python3-bs4
    python3-html5lib python3-markdown python3-yaml python3-attr python3-pydantic python3-rich
    python3-prompt-toolkit python3-pytest python3-hypothesis python3-setuptools python3-pip
    python3-zmq python3-pymongo python3-redis python3-psycopg2 python3-docker python3-libcloud
    python3-keystoneauth1 python3-oslo.utils python3-babel python3-dateutil python3-arrow
    python3-more-itertools python3-toolz python3-traitlets python3-ipython python3-notebook
    python3-mpmath python3-shapely python3-geopandas python3-cartopy python3-sunpy
    python3-mne python3-nibabel python3-nipype python3-dipy python3-skbio python3-ase
    python3-pyqtgraph python3-pygame python3-scapy
    """.split()  # noqa: SIM905
)
MANUALS: Final = tuple(
    """
    manpages manpages-dev git-man perl-doc coreutils util-linux systemd openssh-client iproute2 libssl-doc
    libcurl4-doc tcl8.6-doc tk8.6-doc ncurses-doc postgresql-client-15 zsh-common bash
    imagemagick-6-common ffmpeg nmap samba-common-bin lvm2 btrfs-progs e2fsprogs cups-client podman mdadm
    cryptsetup-bin gnupg rsync tmux vim-common nftables iptables procps findutils grep tar sed gawk
    binutils-common strace make curl wget apt dpkg dpkg-dev debhelper mercurial-common subversion
    cmake-data qemu-utils libvirt-clients xserver-xorg-core x11-utils libx11-doc libbsd-dev netpbm graphviz
    ghostscript poppler-utils sox lynx mutt postfix exim4-base dovecot-core bind9-utils bind9-dnsutils
    squid apache2-bin apache2-utils mariadb-client sqlite3 redis-tools erlang-manpages
    """.split()  # noqa: SIM905
)
ALL: Final = (*MANUALS, *PYTHON, *PYTHON_DOCUMENTATION, *DICTIONARIES)

_LIBRARY: Final = re.compile(r"python3-\S+(?<!-doc)(?<!-dbg)(?<!-dev)(?<!-data)(?<!-tests)|lib\S+-perl")
_LIBRARY_BYTES: Final = {"python3-": range(150_000, 2_000_000), "lib": range(40_000, 2_000_000)}
"""Size of an archive: smaller ones say little, larger ones hold data or one text many times."""

_AT_ONCE: Final = 50
"""Packages of one download: apt reads its lists at each."""


def fetch_package_lists(folder: Path) -> list[str]:
    """Update package lists of our own below `folder` and return the options that make apt use them."""
    folder = folder.resolve()  # apt looks for a relative one below /var/lib/apt
    (folder / "lists" / "partial").mkdir(parents=True, exist_ok=True)
    options = ["-o", "Acquire::Languages=en", "-o", f"Dir::State::lists={folder / 'lists'}"]
    if not any((folder / "lists").glob("*Translation-en*")):
        _run(["apt-get", "update", "-qq", *options])
    return options


def libraries(lists: str) -> tuple[str, ...]:
    """Return the Python and Perl libraries of middling size that are not among `ALL`.

    Args:
        lists: text of a `Packages` list.
    """
    sizes: dict[str, int] = {}
    for record in lists.split("\n\n"):
        name = re.search(r"^Package: (\S+)$", record, re.MULTILINE)
        size = re.search(r"^Size: (\d+)$", record, re.MULTILINE)
        if name and size and _LIBRARY.fullmatch(name[1]):
            sizes[name[1]] = int(size[1])
    return tuple(
        name
        for name, size in sorted(sizes.items())
        if name not in ALL and size in _LIBRARY_BYTES["python3-" if name.startswith("python3-") else "lib"]
    )


def fetch_packages(folder: Path, names: Sequence[str], options: list[str]) -> dict[str, Path]:
    """Download and unpack packages below `folder`, those already there excepted.

    Returns:
        Package name -> folder of its files. Packages that the archive does not have are left out; `missing`
        tells which.
    """
    unpacked = folder / "unpacked"
    archives = folder / "archives"
    archives.mkdir(parents=True, exist_ok=True)
    wanted = missing(folder, names)
    for start in range(0, len(wanted), _AT_ONCE):
        some = wanted[start : start + _AT_ONCE]
        errors = _download(archives, some, options)
        for name in some:
            archive = next(archives.glob(f"{name}_*.deb"), None)
            if archive is None:
                print(f"no package {name}; left out. apt: {errors.get(name, '')}")
                continue
            part = unpacked / f"{name}.part"
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir(parents=True)
            _run(["dpkg-deb", "-x", str(archive), str(part)])
            archive.unlink()
            part.rename(unpacked / name)
    return {name: unpacked / name for name in names if (unpacked / name).is_dir()}


def _download(archives: Path, names: Sequence[str], options: list[str]) -> Mapping[str, str]:
    """Download together or, as apt gets none if it does not know one, each alone.

    Returns:
        What apt said of those that could not be had.
    """
    command = ["apt-get", *options, "download", "-qq"]
    if subprocess.run([*command, *names], cwd=archives, capture_output=True).returncode == 0:
        return {}
    errors = {}
    for name in names:
        if next(archives.glob(f"{name}_*.deb"), None) is None:
            done = subprocess.run([*command, name], cwd=archives, capture_output=True)
            errors[name] = done.stderr.decode("utf-8", "replace").strip()
    return errors


def missing(folder: Path, names: Sequence[str] = ALL) -> list[str]:
    """Return those packages that are not unpacked below `folder`."""
    return [name for name in names if not (folder / "unpacked" / name).is_dir()]


def read_package_lists(folder: Path) -> dict[str, str]:
    """Return the text of the newest release's `Packages` and `Translation-en` lists, by that name."""
    texts = {}
    for name in ("Packages", "Translation-en"):
        lists = sorted((folder / "lists").glob(f"*_main_*{name}*"), key=lambda path: path.stat().st_size)
        if not lists:
            raise FileNotFoundError(f"apt got no list {name}; is a Debian archive among its sources?")
        texts[name] = _run(["/usr/lib/apt/apt-helper", "cat-file", str(lists[-1])])
    return texts


def _run(command: list[str]) -> str:
    return subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout.decode("utf-8", "replace")
