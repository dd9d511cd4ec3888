"""Matplotlib as the lessons use it: the bundled Korean font, colours that everybody can tell apart, shared charts."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
from cycler import cycler
from matplotlib import font_manager
from matplotlib.figure import Figure

from servinglab.paths import DATA

FONT = DATA / "fonts" / "NanumGothic.ttf"

# Okabe and Ito's palette (2008), which colour-blind readers can tell apart.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")


def use_style() -> None:
    """Korean text, a white ground in the dark theme too, letters large enough for a projector."""
    font_manager.fontManager.addfont(FONT)
    plt.rcParams.update({
        "font.family": ["NanumGothic", "DejaVu Sans"],
        "axes.unicode_minus": False,
        "font.size": 13,
        "figure.facecolor": "white",
        "figure.figsize": (8, 3.2),
        "figure.constrained_layout.use": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.prop_cycle": cycler(color=COLOURS),
    })


def arrivals(times_ms: Sequence[float], texts: Sequence[str], label_every: int = 4) -> Figure:
    """When the pieces of a streamed answer arrived, in ms after the question: one mark a piece, some with their text.

    The wait before the first piece (TTFT) is shaded.
    """
    figure, axes = plt.subplots()
    axes.axvspan(0, times_ms[0], color=COLOURS[1], alpha=0.25)
    axes.text(times_ms[0] / 2, len(texts) * 0.98, "기다림\n(TTFT)", ha="center", va="top")
    axes.plot(times_ms, range(1, len(times_ms) + 1), marker="o", markersize=5, linewidth=1)
    for i in range(0, len(texts), label_every):
        axes.annotate(texts[i].strip(), (times_ms[i], i + 1), xytext=(7, -4), textcoords="offset points", fontsize=11)
    axes.set(xlabel="질문을 보낸 뒤 지난 시간 (ms)", ylabel="도착한 조각 수", xlim=(0, times_ms[-1] * 1.12))
    plt.close(figure)  # the cell shows the returned figure; pyplot would show it a second time
    return figure
