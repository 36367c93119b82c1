"""QRMI's task_runner: as it is, and with the line that it lacks for local QPUs."""

import json
import signal
import subprocess
import sys
from pathlib import Path

from common import LONG, flip, tell, until
from qrmi import QRMIService, TaskStatus

sequence = flip()
sequence.measure("ground-rydberg")
for name, shots in (("short", 20), ("long", LONG)):
    Path(f"{name}.json").write_text(
        json.dumps({"sequence": json.loads(sequence.to_abstract_repr()), "job_runs": shots}), encoding="utf-8"
    )
Path("bad.json").write_text('{"sequence": {}, "job_runs": 1}', encoding="utf-8")


def run(*command: str) -> dict[str, object]:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    return {"exit": done.returncode, "output": done.stdout}


runner = [sys.executable, "qrmi_task_runner.py", "fresnel"]
facts = {
    "bare": run("task_runner", "fresnel", "short.json"),
    "file": run(*runner, "short.json", "counts.json"),
    "counts": json.loads(Path("counts.json").read_text(encoding="utf-8")),
    "printed": run(*runner, "short.json"),
    "bad": run(*runner, "bad.json"),
    "missing": run(*runner, "missing.json"),
    "nowhere": run(*runner, "short.json", "nowhere/counts.json"),
}

(qpu,) = QRMIService().resources()
log = Path("long.log")
with log.open("w") as output:
    process = subprocess.Popen([*runner, "long.json"], stdout=output, stderr=output)
    until("its task", lambda: "Task ID" in log.read_text(encoding="utf-8"))
    task = log.read_text(encoding="utf-8").split("Task ID: ")[1].split()[0]
    until("the task to run", lambda: qpu.task_status(task) == TaskStatus.Running)
    process.send_signal(signal.SIGTERM)
    exit_status = process.wait(timeout=120)
until("the task to stop", lambda: qpu.task_status(task) != TaskStatus.Running)
tell(**facts, ended={"exit": exit_status, "status": str(qpu.task_status(task)), "output": log.read_text()})
