"""Draws what week.py lived through: quality, what tasks got, and how the figures wandered, with windows and calibrations."""

from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np

mpl.use("svg")

import matplotlib.pyplot as plt
import week

from warden.model import State
from warden.qpu.drift import DAY

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes

BLUE, ORANGE, GREEN, RED, GREY = "#2b5c8a", "#d1742b", "#4c8c4a", "#b3423a", "#8a8f98"
STYLE = {
    "svg.hashsalt": "week",
    "path.simplify_threshold": 0.4,
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.edgecolor": "#b8bcc4",
    "axes.labelcolor": "#333a45",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": "#555c66",
    "ytick.color": "#555c66",
    "grid.color": "#e6e8ec",
    "axes.grid": True,
    "axes.axisbelow": True,
}


def days(time: int) -> float:
    return (time - week.START) / DAY


def draw(lived: week.Week, out: Path) -> None:
    """Five panels over one axis of days."""
    with mpl.rc_context(STYLE):
        figure, panels = plt.subplots(
            5, 1, sharex=True, figsize=(9, 9.2), height_ratios=(3, 2, 1.6, 1.6, 1.6), layout="constrained"
        )
        for panel in panels:
            shade(panel, lived)
        quality(panels[0], lived)
        results(panels[1], lived)
        wandering(panels[2], lived, "rabi_error", "Rabi frequency\noff by, %", 100, BLUE)
        wandering(panels[3], lived, "detuning_error", "detuning\noff by, rad/µs", 1, ORANGE)
        worse(panels[4], lived)
        names = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
        panels[-1].set_xlim(0, 7)
        panels[-1].set_xticks(np.arange(7) + 0.5, names)
        panels[-1].tick_params(axis="x", length=0)
        for panel in panels:
            panel.xaxis.grid(visible=False)
            for day in range(1, 7):
                panel.axvline(day, color="#e6e8ec", linewidth=0.8, zorder=0)
        figure.align_ylabels(panels)
        figure.savefig(out, metadata={"Date": None}, dpi=200)
        plt.close(figure)


def shade(panel: Axes, lived: week.Week) -> None:
    """The windows, as wide as they were."""
    for one in lived.past:
        window = one.window
        if window.end is not None:
            colour = GREY if window.kind is State.MAINTENANCE else BLUE
            panel.axvspan(days(window.start), days(window.end), color=colour, alpha=0.22, linewidth=0, zorder=1)


def quality(panel: Axes, lived: week.Week) -> None:
    at = [days(time) for time, _, _ in lived.curve]
    panel.plot(at, [value for _, value, _ in lived.curve], color="#1d232c", linewidth=1.1)
    panel.axhline(week.BELOW, color=RED, linewidth=0.9, linestyle=(0, (5, 3)))
    panel.text(6.99, 0.948, f"below {week.BELOW:g}: calibrate early", color=RED, ha="right", va="center", fontsize=8)
    for early, colour, label in ((False, BLUE, "calibration, planned"), (True, RED, "calibration, asked for early")):
        marks = [days(one.time) for one in lived.calibrations if (one.reason == "quality low") == early]
        panel.plot(marks, [1.006] * len(marks), "v", color=colour, markersize=6, label=label, clip_on=False)
    panel.axvspan(0, 0, color=BLUE, alpha=0.22, label="its window")
    panel.axvspan(0, 0, color=GREY, alpha=0.3, label="maintenance")
    panel.set_ylabel("quality")
    panel.set_ylim(0.945, 1.004)
    panel.legend(ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1.06), frameon=False, fontsize=8.5)


def results(panel: Axes, lived: week.Week) -> None:
    """Every task is the same pulse: what its user got of it."""
    at = [days(task.started or 0) for task in lived.tasks]
    share = [task.counts.get("1", 0) / week.SHOTS for task in lived.tasks]
    panel.plot(at, share, ".", color=GREEN, markersize=2.6, alpha=0.65, rasterized=True)
    few = 40
    panel.plot(
        np.convolve(at[::-1], np.full(few, 1 / few), "valid"),
        np.convolve(share[::-1], np.full(few, 1 / few), "valid"),
        color="#234a22",
        linewidth=1.2,
        label=f"mean of {few} tasks",
    )
    panel.legend(loc="lower right", frameon=False, fontsize=8, borderpad=0)
    panel.set_ylabel(f"share of 1 in the\n{week.SHOTS} shots of a task")


def wandering(panel: Axes, lived: week.Week, name: str, label: str, factor: float, colour: str) -> None:
    """What it was, and what the calibrations measured of it."""
    at = [days(time) for time, _, _ in lived.curve]
    true = [factor * getattr(noise, name) for _, _, noise in lived.curve]
    panel.plot(at, true, color=colour, linewidth=1.1)
    found = [factor * one.measured[name] for one in lived.calibrations]
    panel.plot(
        [days(one.time) for one in lived.calibrations], found, "x", color="#1d232c", markersize=4.5, label="measured"
    )
    panel.axhline(0, color=GREY, linewidth=0.6)
    panel.set_ylabel(label)
    panel.legend(loc="upper right", frameon=False, fontsize=8, handletextpad=0.2, borderpad=0)


def worse(panel: Axes, lived: week.Week) -> None:
    """What only an alignment restores, as multiples of what it restores to."""
    at = [days(time) for time, _, _ in lived.curve]
    shown = (
        ("p_false_neg", "1 read as 0", RED),
        ("temperature", "temperature", ORANGE),
        ("dephasing_rate", "dephasing", BLUE),
    )
    for name, label, colour in shown:
        base = getattr(week.DRIFT.base, name)
        values = [getattr(noise, name) / base for _, _, noise in lived.curve]
        panel.plot(at, values, color=colour, linewidth=1, label=label)
    panel.set_ylabel("times what\nit is at best")
    panel.set_ylim(0.9, 2.95)
    panel.legend(ncols=3, loc="upper right", frameon=False, fontsize=8, borderpad=0)
