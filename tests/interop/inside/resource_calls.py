"""Everything that QRMI's QuantumResource offers, once."""

import json

from common import LONG, flip, refusal, tell, until
from qrmi import Payload, QRMIService, QuantumResource, ResourceType, TaskStatus

qpu = QuantumResource("fresnel", ResourceType.PasqalLocal)
over = {TaskStatus.Completed, TaskStatus.Failed, TaskStatus.Cancelled}
about = {
    "found": [found.resource_id() for found in QRMIService().resources()],
    "id": qpu.resource_id(),
    "type": str(qpu.resource_type()),
    "metadata": qpu.metadata(),
    "accessible": qpu.is_accessible(),
    "status": qpu.status().to_dict()["status"],
    "target": json.loads(qpu.target().value),
    "session": qpu.acquire(),
}

sequence = flip()
sequence.measure("ground-rydberg")
text = sequence.to_abstract_repr()

task = qpu.task_start(Payload.PasqalCloud(sequence=text, job_runs=20))
until("the task to end", lambda: qpu.task_status(task) in over)
done = {
    "task": task,
    "result": json.loads(qpu.task_result(task).value),
    "logs": qpu.task_logs(task),
    "stop": refusal(lambda: qpu.task_stop(task)),
    "status": str(qpu.task_status(task)),
}

long = qpu.task_start(Payload.PasqalCloud(sequence=text, job_runs=LONG))
until("the task to run", lambda: qpu.task_status(long) == TaskStatus.Running)
early = refusal(lambda: qpu.task_result(long))
qpu.task_stop(long)
until("the task to stop", lambda: qpu.task_status(long) in over)
stopped = {
    "early": early,
    "status": str(qpu.task_status(long)),
    "result": refusal(lambda: qpu.task_result(long)),
}

refused = {
    "sequence": refusal(lambda: qpu.task_start(Payload.PasqalCloud(sequence="{}", job_runs=1))),
    "shots": refusal(lambda: qpu.task_start(Payload.PasqalCloud(sequence=text, job_runs=0))),
    "unknown": refusal(lambda: qpu.task_status("2000000000")),
    "no number": refusal(lambda: qpu.task_status("mine")),
}
# Without a name: the job's own.
qpu.release("")
refused["released"] = refusal(lambda: qpu.task_start(Payload.PasqalCloud(sequence=text, job_runs=1)))
tell(about=about, done=done, stopped=stopped, refused=refused)
