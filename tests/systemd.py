"""A real systemd as process 1 of namespaces of its own, with units of deploy/systemd. It needs root.

/etc, /var and /opt are overlays: the machine's own files stay as they are. All its processes end with it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from uuid import uuid4

import pytest

from tests.conftest import IN_CI, wait_for
from tests.deployed import DEPLOY, ROOT
from tests.nginx import program

__all__ = ["Systemd"]

_SYSTEMD = Path("/lib/systemd/systemd")
_CGROUPS = Path("/sys/fs/cgroup")
_BOOT = """
set -e
mount --make-rprivate /
mount -t proc proc /proc
mkdir -p $FOLDER/keep
for path in $KEPT; do mkdir -p $FOLDER/keep$path; mount --bind $path $FOLDER/keep$path; done
mount -t tmpfs tmpfs /run
mkdir -p /run/lock /run/keep
mount --rbind $FOLDER/keep /run/keep
for name in etc var opt; do
    mkdir -p /run/overlay/$name/upper /run/overlay/$name/work
    mount -t overlay -o lowerdir=/$name,upperdir=/run/overlay/$name/upper,workdir=/run/overlay/$name/work overlay /$name
done
mount -t tmpfs -o mode=755 tmpfs /root
for path in $KEPT; do mkdir -p $path; mount --bind /run/keep$path $path; done
echo 'dream:x:4242:4242::/var/lib/dream:/usr/sbin/nologin' >> /etc/passwd
echo 'dream:x:4242:' >> /etc/group
rm -rf /etc/systemd/system
cp -r $FOLDER/units /etc/systemd/system
cp -r $FOLDER/etc-dream /etc/dream
chmod 0700 /etc/dream/credentials
ln -s $CLONE /opt/dream
cd /lib/systemd/system
for unit in *.service *.mount *.automount *.timer *.socket; do
    [ $unit = dbus.socket ] || [ -e /etc/systemd/system/$unit ] || ln -s /dev/null /etc/systemd/system/$unit
done
umount -R /sys/fs/cgroup
if [ $HYBRID = 1 ]; then
    mount -t tmpfs tmpfs /sys/fs/cgroup
    mkdir /sys/fs/cgroup/systemd /sys/fs/cgroup/unified
    mount -t cgroup -o none,name=systemd cgroup /sys/fs/cgroup/systemd
    mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified
else
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
fi
mount --make-rshared /
export container=lxc
exec /lib/systemd/systemd --system --log-target=console --show-status=no --unit=basic.target
"""
#: Python and this clone may be under /root; ProtectHome=yes would hide them. A real installation has neither there.
_DROP_IN = "[Service]\nProtectHome=no\nStandardOutput=append:{log}\nStandardError=append:{log}\n"


class Systemd:
    """See the module.

    Parameters:
      folder: for its files and the log of all units.
      settings: the contents of /etc/dream/dream.env.
      secrets: file names and contents in /etc/dream/credentials.
      files: more files of /etc/dream.
      drop_in: more lines for every service.
    """

    def __init__(
        self,
        folder: Path,
        settings: Mapping[str, str],
        *,
        secrets: Mapping[str, str],
        files: Mapping[str, str] | None = None,
        drop_in: str = "",
    ) -> None:
        if os.geteuid() != 0 or not _SYSTEMD.exists():
            (pytest.fail if IN_CI else pytest.skip)("a systemd of the test's own needs root and the package systemd")
        self.log = folder / "units.log"
        shutil.copytree(DEPLOY / "systemd", folder / "units")
        for path in (folder / "units").glob("*.service"):
            path.write_text(path.read_text().replace("/opt/dream/.venv/bin/", f"{Path(sys.executable).parent}/"))
        (folder / "units" / "dream-.service.d").mkdir()
        (folder / "units" / "dream-.service.d" / "test.conf").write_text(_DROP_IN.format(log=self.log) + drop_in)
        written = {"dream.env": "".join(f"{name}='{value}'\n" for name, value in settings.items()), **(files or {})}
        written |= {f"credentials/{name}": value for name, value in secrets.items()}
        for name, text in written.items():
            path = folder / "etc-dream" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        self._cgroups = self._make_cgroups()
        self._outer = self._start(folder)
        self._pid = wait_for(self._child, what="the first process")
        wait_for(lambda: self.run("systemctl", "is-active", "basic.target") == "active", 60, "systemd's start")

    def _make_cgroups(self) -> list[Path]:
        """A control group of its own in each hierarchy that systemd needs."""
        parents = [path for path in (_CGROUPS / "systemd", _CGROUPS / "unified") if path.exists()] or [_CGROUPS]
        cgroups = [parent / f"dream-test-{uuid4().hex}" for parent in parents]
        for each in cgroups:
            each.mkdir()
        return cgroups

    def _start(self, folder: Path) -> subprocess.Popen[bytes]:
        kept = {str(ROOT), sys.prefix, sys.base_prefix}
        environment = {
            "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin",
            "FOLDER": str(folder),
            "CLONE": str(ROOT),
            "KEPT": " ".join(sorted(path for path in kept if path.startswith("/root/"))),
            "HYBRID": str(int(len(self._cgroups) == 2)),
        }
        join = "".join(f"echo $$ > {cgroup}/cgroup.procs; " for cgroup in self._cgroups)
        namespaces = "--mount --pid --uts --ipc --cgroup --fork --kill-child"
        command = f'{join} exec {program("unshare")} {namespaces} sh -c "$BOOT"'
        with (folder / "systemd.log").open("wb") as log:
            return subprocess.Popen(
                ["sh", "-c", command], env={**environment, "BOOT": _BOOT}, stdout=log, stderr=log, cwd="/"
            )

    def _child(self) -> int:
        children = Path(f"/proc/{self._outer.pid}/task/{self._outer.pid}/children").read_text().split()
        return int(children[0]) if children else 0

    def run(self, *command: str, timeout_s: float = 100) -> str:
        """Run a command beside systemd; returns what it prints."""
        entered = ["nsenter", "-t", str(self._pid), "-m", "-p", "-u", "-i", "-C", *command]
        done = subprocess.run(entered, capture_output=True, text=True, timeout=timeout_s, check=False)
        return done.stdout.strip() or done.stderr.strip()

    def shows(self, unit: str, name: str) -> str:
        """A property of a unit, such as ActiveState."""
        return self.run("systemctl", "show", "--value", "-p", name, unit)

    def end(self) -> None:
        """Kill systemd and with it all its processes."""
        self._outer.kill()
        self._outer.wait()
        for cgroup in self._cgroups:
            for folder, _, _ in os.walk(cgroup, topdown=False):
                wait_for(lambda folder=folder: _is_removed(folder), what=f"the end of {folder}")  # type: ignore[misc]


def _is_removed(folder: str) -> bool:
    try:
        Path(folder).rmdir()
    except OSError:  # a process still ends in it
        return False
    return True
