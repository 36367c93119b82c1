"""The files that a cluster's hosts see in the place of the machine's."""

import os
import shutil
import subprocess
from pathlib import Path

from labcluster.enter import CELL_ENVIRONMENT
from labcluster.errors import StepError
from labcluster.layout import MASTER, Layout, address

# People: name, uid = gid. Accounts of the machine with these names or numbers are hidden from the hosts.
PEOPLE = {"alice": 2001, "bob": 2002}
BROKER_USER = "warden"
_BROKER_UID = 990
_FIRST_PERSON = 1000
_NOBODY = 65534
# In Grid Engine's root: links to the packages' programs, beside the machine's own cell.
_PROGRAMS = ("bin", "lib", "utilbin", "util")


def write_files(layout: Layout, lock: int) -> None:
    """Fill a new cluster's folder; `hosts/*` must exist, and `lock` is the cluster's, held."""
    # Copies of the machine's: what runs on the hosts is the machine's software, with its settings.
    _copy("/etc", layout.etc, lock)
    _write_etc(layout)
    _write_homes(layout)
    layout.cell.mkdir()
    for name in _PROGRAMS:
        _copy(f"{CELL_ENVIRONMENT['SGE_ROOT']}/{name}", layout.cell / name, lock)
    _write_cell(layout)
    layout.commands.mkdir()
    for host in layout.hosts:
        (layout.host_folder(host) / "hostname").write_text(f"{host}\n")
        _write_var(layout, host)


def _copy(source: str, target: Path, lock: int) -> None:
    # The copy holds the lock too: should this process be killed, `down` waits for it to end.
    command = ["cp", "-a", source, str(target)]
    copied = subprocess.run(command, capture_output=True, text=True, check=False, pass_fds=[lock])
    if copied.returncode:
        raise StepError(f"could not copy {source} for the cluster's hosts: {copied.stderr.strip()}")


def _write_etc(layout: Layout) -> None:
    _write_accounts(layout.etc)
    hosts = "".join(f"{address(host)}\t{host}\n" for host in layout.hosts)
    _replace(layout.etc / "hosts", f"127.0.0.1\tlocalhost\n::1\tlocalhost\n{hosts}")
    _replace(layout.etc / "hostname", "")
    _replace(layout.etc / "resolv.conf", "")
    _replace(
        layout.etc / "nsswitch.conf", "".join(f"{name}: files\n" for name in ("passwd", "group", "shadow", "hosts"))
    )
    settings = "".join(f"export {key}={value}\n" for key, value in CELL_ENVIRONMENT.items())
    _replace(layout.etc / "default" / "gridengine", f'{settings}SGE_ARCH=`"$SGE_ROOT/util/arch"`\n')
    key = layout.etc / "munge" / "munge.key"
    _replace(key, os.urandom(128), mode=0o400)
    shutil.chown(key, "munge", "munge")
    broker = layout.etc / BROKER_USER
    shutil.rmtree(broker, ignore_errors=True)
    # The hooks, as root, trust what lies in it; only the keys are the broker's.
    (broker / "keys").mkdir(parents=True)
    _chown_as(layout, broker / "keys", BROKER_USER)


def _write_accounts(etc: Path) -> None:
    """The machine's system accounts and ours; people of the machine have no business on the hosts."""
    passwd = [line.split(":") for line in (etc / "passwd").read_text().splitlines()]
    taken = {int(fields[2]) for fields in passwd if fields[0] != BROKER_USER}
    broker_uid = next(uid for uid in range(_BROKER_UID, 100, -1) if uid not in taken)
    ours = {**PEOPLE, BROKER_USER: broker_uid}

    def kept(name: str) -> list[list[str]]:
        rows = [line.split(":") for line in (etc / name).read_text().splitlines() if line.strip()]
        return [row for row in rows if row[0] not in ours and (int(row[2]) < _FIRST_PERSON or int(row[2]) == _NOBODY)]

    passwd = kept("passwd")
    for row in passwd:
        if row[0] == "root":
            # In root's own home on the machine a shell would leave its history.
            row[5], row[6] = "/home/root", "/bin/bash"
    passwd += [[name, "x", f"{uid}", f"{uid}", "", f"/home/{name}", "/bin/bash"] for name, uid in PEOPLE.items()]
    passwd += [[BROKER_USER, "x", f"{broker_uid}", f"{broker_uid}", "", "/var/lib/warden", "/bin/bash"]]
    group = kept("group") + [[name, "x", f"{number}", ""] for name, number in ours.items()]
    for name, rows in (("passwd", passwd), ("group", group)):
        _replace(etc / name, "".join(":".join(row) + "\n" for row in rows))
    _replace(etc / "shadow", "".join(f"{row[0]}:*:19000:0:99999:7:::\n" for row in passwd), mode=0o640)
    for name in ("gshadow", "passwd-", "group-", "shadow-", "gshadow-", "subuid", "subgid"):
        (etc / name).unlink(missing_ok=True)


def _write_homes(layout: Layout) -> None:
    layout.users.mkdir()
    for name, uid in {"root": 0, **PEOPLE}.items():
        home = layout.users / name
        shutil.copytree("/etc/skel", home, symlinks=True)
        for path in (home, *home.rglob("*")):
            os.chown(path, uid, uid, follow_symlinks=False)
        home.chmod(0o700 if uid == 0 else 0o755)


def _write_cell(layout: Layout) -> None:
    common = layout.cell / "default" / "common"
    common.mkdir(parents=True)
    shutil.copy("/usr/share/gridengine/default-bootstrap", common / "bootstrap")
    (common / "act_qmaster").write_text(f"{MASTER}\n")
    for path in (layout.cell, layout.cell / "default", common, *common.iterdir()):
        shutil.chown(path, "sgeadmin", "sgeadmin")


def _write_var(layout: Layout, host: str) -> None:
    # Of the machine's /var nothing is needed, and nothing may be changed.
    var = layout.var(host)
    for name in ("cache", "lib/gridengine", "mail"):
        (var / name).mkdir(parents=True)
    (var / "tmp").mkdir()
    (var / "tmp").chmod(0o1777)
    (var / "run").symlink_to("/run")
    (var / "lock").symlink_to("/run/lock")
    spool = var / "spool" / "gridengine"
    for path in (spool / "qmaster" / "job_scripts", spool / "spooldb", spool / "execd"):
        path.mkdir(parents=True)
    for path in (spool, *spool.rglob("*")):
        shutil.chown(path, "sgeadmin", "sgeadmin")
    for name in ("lib/munge", "log/munge"):
        (var / name).mkdir(parents=True)
        (var / name).chmod(0o700)
        shutil.chown(var / name, "munge", "munge")
    if host == MASTER:
        (var / "lib/warden").mkdir()
        _chown_as(layout, var / "lib/warden", BROKER_USER)


def _chown_as(layout: Layout, path: Path, user: str) -> None:
    """Give a path to a user that only the hosts know."""
    row = next(
        line.split(":") for line in (layout.etc / "passwd").read_text().splitlines() if line.startswith(f"{user}:")
    )
    os.chown(path, int(row[2]), int(row[3]))


def _replace(path: Path, content: str | bytes, mode: int = 0o644) -> None:
    # Removed first: on the machine it may be a link that points out of the copy.
    path.unlink(missing_ok=True)
    path.touch(mode=mode)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
