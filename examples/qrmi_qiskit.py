"""An analog circuit of Qiskit, through QRMI: qsub qrmi_job.sh qrmi_qiskit.py

The same physics as in afm_ring.py: a sweep through the resonance leaves every other atom of a square excited.
"""

from math import pi

from qiskit import QuantumCircuit
from qiskit_pasqal_provider.providers.gate import HamiltonianGate, InterpolatePoints
from qrmi import QRMIService
from qrmi.primitives.pasqal import SamplerV2

SQUARE = [(0.0, 0.0), (6.0, 0.0), (6.0, 6.0), (0.0, 6.0)]  # um
DURATION = 4000  # ns

sweep = HamiltonianGate(
    amplitude=InterpolatePoints([0.0, 2 * pi, 2 * pi, 0.0], DURATION, times=[0.0, 0.15, 0.85, 1.0]),
    detuning=InterpolatePoints([-6 * pi, -6 * pi, 6 * pi, 6 * pi], DURATION, times=[0.0, 0.15, 0.85, 1.0]),
    phase=0.0,
    coords=SQUARE,
)
circuit = QuantumCircuit(len(SQUARE))
circuit.append(sweep, circuit.qubits)

(qpu,) = QRMIService().resources()
(result,) = SamplerV2(qpu).run([circuit], shots=200).result()

for state, count in sorted(result.data.counts.items(), key=lambda item: -item[1])[:4]:
    print(state, count)
