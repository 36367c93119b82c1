"""A week of an emulated QPU in less than a minute: its noise wanders, tasks run, windows open, calibrations set it back.

The real core and its store with a simulated clock, a worker that takes as long as `Timing` says, and real calibrations: scans
and fits. Prints how long the week took, and exits with 1 if that is a minute or more; draws docs/week.svg.

    python benchmarks/week.py [--out docs/week.svg]
"""
