"""Warden: the broker between a scheduler and a QPU.

It knows nothing of Grid Engine, so any scheduler can stand in front of it. `warden.client` is the one door for
everybody else; nothing here is imported eagerly, because hooks pay for every import as root on every job.
"""
