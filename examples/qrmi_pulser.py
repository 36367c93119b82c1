"""Pulser's own QPUBackend, through QRMI: qsub qrmi_job.sh qrmi_pulser.py"""

from afm_ring import sequence
from pulser import QPUBackend
from pulser.backend.remote import JobParams
from qrmi.pulser import PulserQRMIConnection

qpu = QPUBackend(sequence(), PulserQRMIConnection())
(result,) = qpu.run([JobParams(runs=200)], wait=True).results

for state, count in result.final_bitstrings.most_common(4):
    print(state, count)
