"""A job's spool, and what hooks know of a job."""

from __future__ import annotations

import pwd
from pathlib import Path

from gridengine import qstat_xml
from gridengine.hooks.job import HookJob

OWNER = pwd.getpwnam("nobody")
# Nothing may take longer than this here, also on a busy machine.
LIMIT = 30

CONFIG = "add_grp_id=20000\njob_id=7\njob_owner={owner}\nhost=node1\nja_task_id=0\njob_name=x\n"
ENVIRONMENT = "HOME=/home/alice\nPATH=/bin\n"


class Spool:
    """A job's spool as Grid Engine makes it, but for its owner: the tests may run as anybody."""

    def __init__(self, folder: Path, name: str = "7.1") -> None:
        self.folder = folder / name
        self.folder.mkdir()
        self.config = self.folder / "config"
        self.environment = self.folder / "environment"
        self.error = self.folder / "error"
        self.config.write_text(CONFIG.format(owner=OWNER.pw_name))
        self.environment.write_text(ENVIRONMENT)
        self.error.write_text("")

    def job(self, *, number: str = "7", task: str = "0", owner: str = OWNER.pw_name) -> HookJob:
        environment = {
            "SGE_JOB_SPOOL_DIR": str(self.folder),
            "SGE_ROOT": "/sge",
            "PATH": "/evil",
            "SGE_CELL": "default",
            "QUEUE": "all.q",
        }
        return HookJob.read((number, task, owner, "node1"), environment)


def hook_job(
    number: str = "7", start: str = "first", host: str = "node1", queue: str = "all.q", spool: Path | None = None
) -> HookJob:
    return HookJob(
        number=number,
        task="",
        owner=OWNER.pw_name,
        uid=OWNER.pw_uid,
        host=host,
        queue=queue,
        spool=spool or Path("/nonexistent"),
        start=start,
        cell={},
    )


def in_qmaster(
    *,
    project: str = "",
    requests: dict[str, str] | None = None,
    context: dict[str, str] | None = None,
    not_before: int = 0,
    granted: dict[str, tuple[str, ...]] | None = None,
) -> qstat_xml.Job:
    """A job in the words of the qmaster."""
    return qstat_xml.Job(
        id=7,
        owner=OWNER.pw_name,
        name="x",
        state="",
        requests={"qpu": "1"} if requests is None else requests,
        reasons=(),
        project=project,
        context=context or {},
        not_before=not_before,
        granted=granted or {},
    )
