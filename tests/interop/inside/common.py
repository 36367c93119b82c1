"""What the scripts share that run inside of jobs, with QRMI's packages alone."""

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from pulser import AnalogDevice, Pulse, Register, Sequence
from pulser.devices import Device

# A pulse of this area excites an atom that is alone.
FLIP = np.pi
DURATION = 252  # ns
# Of a device that takes 2000 runs: long enough to be caught.
LONG = 2000

# The first atom is alone; the other two are so close that at most one of them is excited. No alphabetical order.
LONELY = Register({"b": (-15.0, 0.0), "c": (15.0, 0.0), "a": (15.0, 5.0)}).with_automatic_layout(AnalogDevice)


def flip(device: Device = AnalogDevice) -> Sequence:
    built = Sequence(LONELY, device)
    built.declare_channel("global", "rydberg_global")
    built.add(Pulse.ConstantPulse(DURATION, FLIP / DURATION * 1000, 0, 0), "global")
    return built


def until(what: str, condition: Callable[[], Any], limit: float = 120) -> Any:
    end = time.monotonic() + limit
    while not (value := condition()):
        if time.monotonic() > end:
            sys.exit(f"waited {limit} s in vain for {what}")
        time.sleep(0.1)
    return value


def refusal(call: Callable[[], object]) -> str:
    """Why something was refused, with the name of the error; empty if it was not."""
    try:
        call()
    except Exception as error:  # noqa: BLE001 - which one it is, is what is asked
        return f"{type(error).__name__}: {error}"
    return ""


def tell(**facts: Any) -> None:
    """The last line of the output, for the test."""
    sys.stdout.write(json.dumps(facts) + "\n")
