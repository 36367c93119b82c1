"""A job in Python: build a Pulser sequence for the device that the QPU is, run it on the QPU that the job was granted, look at the counts.

Submit it with a Python that has the kit and Pulser (on the lab: qpu-python):

    qsub -l qpu=1 -cwd -b y python afm_job.py
"""

from afm_ring import sequence
from pulser.json.abstract_repr.deserializer import deserialize_device

from warden.client import QuantumResource

with QuantumResource() as qpu:
    print("the QPU is", qpu.metadata()["name"])
    device = deserialize_device(qpu.target())
    task = qpu.task_start(sequence(device), shots=200)
    counts = qpu.wait(task)
    print(qpu.task_logs(task))

for state, count in sorted(counts.items(), key=lambda item: -item[1])[:4]:
    print(state, count)
alternating = counts.get("01010101", 0) + counts.get("10101010", 0)
print(f"antiferromagnetic: {alternating} of {sum(counts.values())} shots")
