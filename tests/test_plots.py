"""The charts that lessons share: nothing cut off, every letter in the font, and told apart without colour."""

from __future__ import annotations

import itertools

import pytest
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.text import Text

from servinglab import plots

ONE = [(0.5 + i, [1.0 + i + 0.05 * token for token in range(9)]) for i in range(4)]
FOUR = [(0.0, [0.8 + 0.1 * token for token in range(9)]) for _ in range(4)]
WHERE = {"머리말과 메타데이터": 168_128, "임베딩": 2_097_152, "정규화": 9_216, "어텐션": 1_572_864, "피드포워드": 4_718_592}
FIGURES = {
    "arrivals": lambda: plots.arrivals([20.0, 25.0, 31.0, 36.0], ["가", "나", "다", "라"]),
    "repeats": lambda: plots.repeats(
        ({38: [0.5, 0.6, 0.5], 390: [5.0, 5.5, 5.1]}, "프롬프트 길이 (토큰)", "첫 토큰까지 (초)"),
        ({8: [0.06, 0.07, 0.06], 32: [0.06, 0.06, 0.07]}, "답의 길이 (토큰)", "토큰 하나에 (초)"),
    ),
    "growth": lambda: plots.growth({"매번 다시 계산": [1.0, 4.0, 9.0], "KV 캐시": [1.0, 2.0, 3.0]}, "만든 토큰 수", "시간 (초)"),
    "pareto": lambda: plots.pareto({"Q8_0": (4.7, 0.0002, 40.0), "Q4_0": (2.9, 0.06, 70.0), "Q2_K": (3.0, 0.5, 30.0)}),
    "where_bytes": lambda: plots.where_bytes(WHERE),
    "memory_bars": lambda: plots.memory_bars({"이 설정": (7.5, 9.0, 0.1), "바꾸면": (2.7, 1.1, 0.1)}, 4.0),
    "memory_bars of little": lambda: plots.memory_bars({"이 설정": (0.008, 0.002, 0.007)}, 138.0),
    "gantt": lambda: plots.gantt({"슬롯 1개": ONE, "슬롯 4개": FOUR}),
}


@pytest.fixture(params=FIGURES)
def figure(request):
    plots.use_style()
    drawn = FIGURES[request.param]()
    drawn.draw_without_rendering()
    return drawn


def texts(figure):
    return [text for text in figure.findobj(lambda part: hasattr(part, "get_text") and part.get_visible()) if text.get_text().strip()]


def test_nothing_is_cut_off(figure):
    """What is drawn, in inches, lies on the page."""
    drawn, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    assert min(drawn.x0, drawn.y0) >= 0 and drawn.x1 <= width and drawn.y1 <= height


def test_every_letter_is_in_the_bundled_font(figure):
    known = get_font(findfont(FontProperties(family="NanumGothic"), fallback_to_default=False)).get_charmap()
    shown = {letter for text in texts(figure) for letter in text.get_text() if not letter.isspace()}
    assert {letter for letter in shown if ord(letter) not in known} <= {"−"}


def test_gantt_has_a_row_for_every_request_and_a_bar_for_every_token():
    axes = plots.gantt({"슬롯 1개": ONE, "슬롯 4개": FOUR}).axes[0]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == [f"요청 {n}" for n in (1, 2, 3, 4)] * 2
    assert [text.get_text() for text in axes.texts] == ["슬롯 1개: 4.4초에 모두 끝남", "슬롯 4개: 1.6초에 모두 끝남"]
    assert sum(len(bars.get_paths()) for bars in axes.collections) == 8 * (1 + 1 + 8)
    assert any(bars.get_hatch() for bars in axes.collections)


def test_curves_differ_in_pattern_and_carry_their_names():
    axes = plots.growth({"하나": [1.0, 2.0], "둘": [1.0, 3.0]}, "x", "y").axes[0]
    assert len({line.get_linestyle() for line in axes.lines}) == 2
    assert [text.get_text() for text in axes.texts] == ["하나", "둘"]


def test_repeats_show_every_measurement_beside_the_middle():
    axes = plots.repeats(({1: [3.0, 1.0, 2.0], 2: [5.0, 9.0, 6.0]}, "x", "y")).axes[0]
    every, middle = axes.lines
    assert list(every.get_ydata()) == [3.0, 1.0, 2.0, 5.0, 9.0, 6.0]
    assert list(middle.get_ydata()) == [2.0, 6.0]
    assert every.get_marker() != middle.get_marker()


def test_pareto_front_is_what_nothing_smaller_betters():
    axes = plots.pareto({"Q8_0": (4.7, 0.0002, 40.0), "Q4_0": (2.9, 0.06, 70.0), "Q2_K": (3.0, 0.5, 30.0)}).axes[0]
    assert axes.lines[0].get_xydata().tolist() == [[2.9, 0.06], [4.7, 0.0002]]
    names = [text.get_text() for text in axes.texts[::2]]
    areas = dict(zip(names, [bubble.get_sizes()[0] for bubble in axes.collections], strict=True))
    assert areas["Q4_0"] > areas["Q8_0"] > areas["Q2_K"], "the area is the speed"


def test_names_of_the_pareto_plot_do_not_meet():
    """With the sizes and divergences of the tutor's files, which lie close together."""
    figure = plots.pareto({
        "Q8_0": (4.63, 0.0006, 22), "Q6_K": (3.62, 0.0041, 27), "Q5_K_M": (3.26, 0.008, 20), "Q4_K_M": (2.93, 0.025, 36),
        "Q4_0": (2.81, 0.0613, 28), "IQ4_XS": (2.71, 0.039, 21), "Q3_K_M": (2.55, 0.0434, 29), "Q2_K": (2.19, 0.2121, 45),
    })  # fmt: skip
    figure.draw_without_rendering()
    assert all(text.arrow_patch is not None for text in figure.axes[0].texts[::2]), "a line leads from each name to its bubble"
    names = [Text.get_window_extent(text) for text in figure.axes[0].texts[::2]]  # of the words, without the lines to the bubbles
    assert len(names) == 8 and not any(one.overlaps(other) for one, other in itertools.combinations(names, 2))


def test_where_bytes_has_a_bar_for_every_part_with_its_share():
    axes = plots.where_bytes(WHERE).axes[0]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == list(WHERE)
    assert [bar.get_width() * 1e6 for bar in axes.patches] == pytest.approx(list(WHERE.values()))
    assert [text.get_text() for text in axes.texts][3:] == ["1.57 MB (18.4%)", "4.72 MB (55.1%)"]
    assert axes.get_ylim()[0] > axes.get_ylim()[1], "the first part stands on top"


def test_memory_bars_stack_the_parts_against_the_machine():
    figure = plots.memory_bars({"이 설정": (7.5, 9.0, 0.1), "바꾸면": (2.7, 1.1, 0.1)}, 4.0)
    axes = figure.axes[0]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["이 설정", "바꾸면"]
    assert [bar.get_x() for bar in axes.patches[:3]] == [0, 7.5, 16.5]
    assert [bar.get_width() for bar in axes.patches[:3]] == pytest.approx([7.5, 9.0, 0.1])
    assert [text.get_text() for text in axes.texts] == ["16.6", "3.9"], "the sum at the end of each bar"
    assert list(axes.lines[0].get_xdata()) == [4.0, 4.0] and axes.get_xlim()[1] > 16.6
    assert len({bar.get_hatch() for bar in axes.patches[:3]}) == 3, "told apart without colour"
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["쓸 수 있는 메모리 4.0 GiB", "가중치", "KV 캐시", "버퍼"]
