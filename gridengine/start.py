"""Where the commands `qpu` and `qpu-admin` begin."""

from __future__ import annotations

from warden.start import command


def qpu() -> None:
    command("gridengine.cli", "qpu")


def qpu_admin() -> None:
    command("gridengine.admin_cli", "main")
