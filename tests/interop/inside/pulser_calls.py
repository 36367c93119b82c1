"""What Pulser's QPUBackend does with QRMI's connection."""

from common import DURATION, FLIP, LONELY, LONG, flip, refusal, tell, until
from pulser import AnalogDevice, DigitalAnalogDevice, Pulse, QPUBackend, Sequence
from pulser.backend.remote import BatchStatus, JobParams
from qrmi.pulser import PulserQRMIConnection

connection = PulserQRMIConnection()
devices = connection.fetch_available_devices()


def run(sequence: Sequence, *jobs: JobParams) -> list[tuple[tuple[str, ...], dict[str, int]]]:
    results = QPUBackend(sequence, connection).run(list(jobs), wait=True).results
    return [(tuple(result.atom_order), dict(result.final_bitstrings)) for result in results]


asymmetric = run(flip(), JobParams(runs=100))
logs = connection.get_batch_logs()

parametrized = Sequence(LONELY, AnalogDevice)
amplitude = parametrized.declare_variable("amplitude", dtype=float)
parametrized.declare_channel("global", "rydberg_global")
parametrized.add(Pulse.ConstantPulse(DURATION, amplitude, 0, 0), "global")
batch = run(
    parametrized,
    JobParams(runs=20, variables={"amplitude": 0.0}),
    JobParams(runs=20, variables={"amplitude": FLIP / DURATION * 1000}),
)

layout = AnalogDevice.pre_calibrated_layouts[0]
mappable = Sequence(layout.make_mappable_register(3), AnalogDevice)
mappable.declare_channel("global", "rydberg_global")
mappable.add(Pulse.ConstantPulse(DURATION, FLIP / DURATION * 1000, 0, 0), "global")
# Two traps at the two ends of the layout.
traps = {"q0": 0, "q1": layout.number_of_traps - 1}
mapped = run(mappable, JobParams(runs=20, variables={"qubits": traps}))

flying = QPUBackend(flip(), connection).run([JobParams(runs=LONG)])
until("the batch to run", lambda: flying.get_batch_status() == BatchStatus.RUNNING)
connection.cancel_batch_jobs()
until("the batch to be cancelled", lambda: flying.get_batch_status() == BatchStatus.CANCELED)

tell(
    devices=list(devices),
    same=devices["AnalogDevice"] == AnalogDevice,
    wrong=refusal(lambda: run(flip(DigitalAnalogDevice), JobParams(runs=1))),
    many=refusal(lambda: run(flip(), JobParams(runs=LONG + 1))),
    asymmetric=asymmetric,
    logs=logs,
    batch=batch,
    mapped=mapped,
    cancelled=refusal(lambda: flying.results),
)
