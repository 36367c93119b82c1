"""A job in Python: build a Pulser sequence, run it on the QPU that the job was granted, look at the counts.

Submit it with a Python that has the kit and Pulser (on the lab: qpu-python):

    qsub -l qpu=1 -cwd -b y python afm_job.py
"""

from afm_ring import sequence

from warden.client import QuantumResource

with QuantumResource() as qpu:
    print("the QPU is", qpu.metadata()["name"])
    task = qpu.task_start(sequence(), shots=200)
    counts = qpu.wait(task)
    print(qpu.task_logs(task))

for state, count in sorted(counts.items(), key=lambda item: -item[1])[:4]:
    print(state, count)
alternating = counts.get("01010101", 0) + counts.get("10101010", 0)
print(f"antiferromagnetic: {alternating} of {sum(counts.values())} shots")
