"""The memory calculator as widgets: what a model needs on a machine, whether that is there, and the smallest change if not.

The arithmetic is `models.memory`'s; keys, labels and looks are those of the quiz. Handlers never print: JupyterLab would drop it.
"""

from __future__ import annotations

import base64
import html
import io
from typing import Any

import ipywidgets as widgets  # type: ignore[import-untyped]
from IPython.display import HTML, Javascript, display
from matplotlib.figure import Figure

from servinglab import plots
from servinglab.models import memory
from servinglab.models.memory import GIB, Need, Verdict, bits_per_weight, gib
from servinglab.models.mixes import MIXES
from servinglab.models.shapes import known, shapes
from servinglab.quiz.form import DEAD, HERE, alert

STYLE = """
.servinglab-quiz.servinglab-calculator { padding-top: 6px; }
.servinglab-quiz.servinglab-calculator input { border: 1px solid currentColor; flex: 1 1 14em; height: auto; min-width: 0; padding-block: 3px; }
.servinglab-calculator .widget-text { flex-wrap: wrap; }
.servinglab-calculator .widget-text .widget-label { flex: 1 1 14em; }
.servinglab-calculator img { background: white; max-width: 100%; }
"""
"""Beside the quiz's own, which knows no number fields. The picture has a white ground in the dark theme too."""


class Calculator:
    """A form that answers at once to every change; the last line of a cell shows it. Where widgets do not run it is plain text.

    Args:
        model: id of a model in `data/models.yaml`.
        kind: a file's type as `llama-quantize` names it, as "Q4_K_M".
        machine: id of a machine in `data/hardware.yaml`.
        context: tokens for each user.
        users: how many at once.

    Raises SettingError for what is unknown or out of range.
    """

    def __init__(
        self, model: str = "qwen3-4b", kind: str = "Q4_K_M", machine: str = "office-8", context: int = 4096, users: int = 1
    ) -> None:
        known("kind", kind, MIXES)
        known("model", model, shapes())
        self.verdict = memory.judge(machine, model, "llama.cpp", kind, context, users)
        self.model = dropdown("모델", {shape.name: shape.id for shape in shapes().values()}, model)
        self.kind = dropdown("타입", {name: name for name in MIXES}, kind)
        self.machine = dropdown("장비", {place.name: place.id for place in memory.machines().values()}, machine)
        self.context = number("한 사람의 컨텍스트 (1토큰 이상)", context, memory.CELLS)
        self.users = number("함께 쓰는 사람 (1명 이상)", users, 1)
        self.said, self.picture = widgets.HTML(), widgets.HTML()
        self.fields = [self.model, self.kind, self.machine, self.context, self.users]
        for field in self.fields:
            field.observe(self._changed, names="value")
        self.box = widgets.VBox([*self.fields, self.said, self.picture])
        self.box.add_class("servinglab-quiz").add_class("servinglab-calculator")
        self.refresh()

    def _changed(self, change: object) -> None:
        values = (self.machine.value, self.model.value, "llama.cpp", self.kind.value, self.context.value, self.users.value)
        self.verdict = memory.judge(*values)
        self.refresh()

    def refresh(self) -> None:
        title, *rest = told(self.verdict)
        self.said.value = alert(title, "\n".join(rest))
        self.picture.value = image(bars(self.verdict), "\n".join(rest))

    def __repr__(self) -> str:
        return "\n".join(told(self.verdict))

    def _ipython_display_(self) -> None:
        css = (HERE / "form.css").read_text(encoding="utf-8") + STYLE
        display(HTML(f"<style>{css}</style><p>{DEAD}</p>"))  # type: ignore[no-untyped-call]
        display(Javascript((HERE / "form.js").read_text(encoding="utf-8")))  # type: ignore[no-untyped-call]
        bundle = self.box._repr_mimebundle_()
        display({**bundle, "text/plain": repr(self)}, raw=True)  # type: ignore[no-untyped-call]


def dropdown(label: str, options: dict[str, str], value: str) -> Any:
    return widgets.Dropdown(options=options, value=value, description=label, style={"description_width": "auto"})


def number(label: str, value: int, step: int) -> Any:
    return widgets.BoundedIntText(
        value=value, min=1, max=memory.MOST, step=step, description=label, continuous_update=False,
        style={"description_width": "auto"},
    )


def told(verdict: Verdict) -> list[str]:
    """The answer in words: the verdict, the parts, what stands against it, what would have to change."""
    setup, need = verdict.setup, verdict.setup.need
    bits = bits_per_weight(setup.shape, setup.bits)
    lines = [
        f"{'됩니다' if verdict.ok else '안 됩니다'}: {setup.machine.name}에서 {setup.shape.name} {setup.bits}, {setup.users:,}명",
        f"가중치 {gib(need.weights)} (가중치 하나에 평균 {bits:.2f}비트)",
        f"KV 캐시 {gib(need.kv)} (한 사람에 {setup.context:,}토큰, {setup.users:,}명)",
        f"버퍼 {gib(need.buffers)} (어림)",
        f"모두 {gib(need.total)}, 쓸 수 있는 메모리 {gib(setup.machine.usable)}",
    ]
    if verdict.ok:
        return [*lines, f"한 사람이 받는 속도는 빨라야 초당 {memory.per_second(setup.tokens_per_second)}토큰"]
    change = verdict.change or "목록에 있는 것으로는 되지 않습니다."
    return [*lines, *(f"막는 것: {limit}" for limit in verdict.limits), f"가장 적게 고쳐서 되게 하려면: {change}"]


def bars(verdict: Verdict) -> Figure:
    """The setup's parts, and those of the change that is advised where the machine stays the same."""
    plots.use_style()
    setup, better = verdict.setup, verdict.better
    needs = {"이 설정": setup.need}
    if better is not None and better.machine == setup.machine:
        needs["바꾸면"] = better.need
    return plots.memory_bars({name: in_gib(need) for name, need in needs.items()}, setup.machine.usable / GIB)


def in_gib(need: Need) -> tuple[float, float, float]:
    return need.weights / GIB, need.kv / GIB, need.buffers / GIB


def image(figure: Figure, description: str) -> str:
    """A figure as HTML, with words for those who do not see it."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=100)
    data = base64.b64encode(file.getvalue()).decode()
    return f'<img src="data:image/png;base64,{data}" alt="{html.escape(description)}">'
