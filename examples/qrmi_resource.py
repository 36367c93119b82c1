"""QRMI's QuantumResource, step by step: qsub qrmi_job.sh qrmi_resource.py"""

import json
import time

from afm_ring import sequence
from qrmi import Payload, QRMIService, TaskStatus

(qpu,) = QRMIService().resources()
print("the QPU is", qpu.resource_id())

task = qpu.task_start(Payload.PasqalCloud(sequence=sequence().to_abstract_repr(), job_runs=200))
while qpu.task_status(task) in {TaskStatus.Queued, TaskStatus.Running}:
    time.sleep(0.5)
print(qpu.task_logs(task))

counts = json.loads(qpu.task_result(task).value)["counter"]
for state, count in sorted(counts.items(), key=lambda item: -item[1])[:4]:
    print(state, count)
