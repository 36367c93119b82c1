"""The root half and the user's half of what QRMI's SPANK plugin makes of a job: acquire, use ..., release."""

import sys

from common import flip, refusal, tell
from pulser import QPUBackend
from pulser.backend.remote import JobParams
from qrmi import Config, QuantumResource, ResourceType

QPU = "fresnel"


def plugin() -> QuantumResource:
    """The resource as root has it, from the site's configuration and the job's numbers."""
    config, uid, job = sys.argv[2:5]
    entries = dict(Config.load(config).resource_map[QPU].environment)
    return QuantumResource.from_config(
        QPU, ResourceType.PasqalLocal, {**entries, "QRMI_JOB_UID": uid, "QRMI_JOB_ID": job}
    )


def use() -> dict[str, object]:
    from qrmi.pulser import PulserQRMIConnection  # noqa: PLC0415 - it is not root's

    (result,) = QPUBackend(flip(), PulserQRMIConnection()).run([JobParams(runs=20)], wait=True).results
    return {"counts": dict(result.final_bitstrings)}


match sys.argv[1]:
    case "acquire":
        tell(token=plugin().acquire())
    case "release":
        plugin().release(sys.argv[5])
        tell(released=sys.argv[5])
    case "use":
        tell(**use())
    case "try":
        tell(refused=refusal(use))
