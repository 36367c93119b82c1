"""A circuit with a parameter, given to Qiskit's sampler twice."""

from math import pi

from common import DURATION, tell
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter
from qiskit_pasqal_provider.providers.gate import HamiltonianGate, InterpolatePoints
from qrmi import QRMIService
from qrmi.primitives.pasqal import SamplerV2

amplitude = Parameter("amplitude")
gate = HamiltonianGate(
    amplitude=InterpolatePoints([amplitude] * 2, DURATION),
    detuning=InterpolatePoints([0.0, 0.0], DURATION),
    phase=0.0,
    coords=[(-15.0, 0.0), (15.0, 0.0)],
)
circuit = QuantumCircuit(2)
circuit.append(gate, circuit.qubits)

(qpu,) = QRMIService().resources()
sampler = SamplerV2(qpu)
jobs = [sampler.run([(circuit, {amplitude: [value] * 2})], shots=20) for value in (0.0, pi / DURATION * 1000)]
counts = [job.result()[0].data.counts for job in jobs]
tell(counts=counts, status=[job.status().name for job in jobs])
