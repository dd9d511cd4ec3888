"""What every lesson begins with: its first cell says what it runs on, and errors that learners meet become sentences.

Kernels that `servinglab lab` starts load this as an extension: after a restart the first cell may not have been run yet.
"""

from __future__ import annotations

import platform
import re
import subprocess
import sys
import urllib.error
from types import TracebackType
from typing import Any

import httpx2
import openai
import psutil
from IPython.core.getipython import get_ipython
from IPython.display import display

from servinglab import curriculum, engines, plots, programs
from servinglab.errors import EngineNotFound, NothingListening, ServingLabError, StreamBroken, WrongKey, in_ci
from servinglab.exercises.core import Note

TOLD = (
    openai.APIConnectionError,
    openai.AuthenticationError,
    httpx2.TransportError,
    urllib.error.URLError,
    ConnectionError,
    subprocess.CalledProcessError,
    KeyboardInterrupt,
    NameError,
)
"""What a lesson's own calls raise when a server is gone, silent or locked, a cell was stopped, or an earlier one was not run."""


def begin(lesson: str) -> None:
    """Prepare the kernel for a lesson and say what it runs on. Raises SettingError for an unknown lesson."""
    entry = curriculum.find(lesson)
    plots.use_style()
    shell = get_ipython()
    if shell is not None:
        load_ipython_extension(shell)
    memory = psutil.virtual_memory().total / 2**30
    print(f"레슨 {entry.id} {entry.title}: 준비됐습니다.")
    print(f"이 컴퓨터: {platform.system()}, Python {platform.python_version()}, "
          f"코어 {psutil.cpu_count()}개, 메모리 {memory:.1f} GB")
    if not engines.shared_address():
        require_engine(entry)


def load_ipython_extension(shell: Any) -> None:
    """IPython's hook for extensions: explain errors from now on."""
    shell.set_custom_exc(TOLD, show_told)
    explain_syntax_errors(shell)


def explain_syntax_errors(shell: Any) -> None:
    """Add a Korean sentence under Python's own report: the first mistake of many is a forgotten quote or comma."""
    shown = shell.showsyntaxerror
    if getattr(shown, "explains", False):
        return  # begin() was run twice

    def explained(*arguments: Any, **options: Any) -> None:
        shown(*arguments, **options)
        display(Note("읽을 수 없는 셀", syntax_note(sys.exc_info()[1])))  # type: ignore[no-untyped-call]

    explained.explains = True  # type: ignore[attr-defined]
    shell.showsyntaxerror = explained


def syntax_note(error: BaseException | None) -> str:
    """What is likely wrong with a cell that Python cannot read."""
    line, message = str(getattr(error, "text", "")), str(getattr(error, "msg", ""))
    if re.search("[“”‘’]", line):
        return "둥근 따옴표(“ ”)는 쓸 수 없습니다. 키보드의 곧은 따옴표(\")로 바꾸어 주세요."
    if re.search(r"=\s*(#.*)?$", line.rstrip()):
        return "= 뒤가 비어 있습니다. 그 자리에 답을 적고 다시 실행하세요."
    if "decimal literal" in message or re.search(r"=\s*[\d.,_]+\s+[^\W\d_]", line):
        return "수 뒤에 글자가 붙어 있습니다. 수를 적는 답이라면 ‘개’, ms, MiB 같은 단위를 빼고 수만 적으세요."
    return "셀에 적은 글의 꼴이 Python과 맞지 않아 실행하지 못했습니다. 위의 ^ 표시 근처에서 따옴표, 괄호, 쉼표를 살펴보세요."


def require_engine(entry: curriculum.Lesson) -> None:
    """Where no engine is installed, say how to get one and show the recorded run instead. In CI raise EngineNotFound."""
    try:
        programs.find()
    except EngineNotFound as error:
        if in_ci():
            raise
        display(Note("[없음] " + error.what, f"{error.why}\n고치기: {error.todo}"))  # type: ignore[no-untyped-call]
        show_recording(entry)


def show_recording(entry: curriculum.Lesson) -> None:
    """What the lesson's cells printed when it was last built, labelled with date and machine. Raises in CI."""
    if in_ci():
        raise ServingLabError("기록된 실행을 보여 주었습니다.", "CI에서는 살아 있는 엔진만 인정합니다.")
    import nbformat  # here, because it takes seconds that every lesson's first cell would wait for

    notebook = nbformat.read(entry.path, as_version=4)  # type: ignore[no-untyped-call]
    recorded = notebook.metadata["recorded"]
    title = f"기록된 실행 ({recorded['date']}, {recorded['machine']}). 지금 이 컴퓨터에서 나온 값이 아닙니다."
    outputs = [
        output.get("text", "")
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if output.output_type == "stream"
    ]
    display(Note(title, "\n".join(outputs)))  # type: ignore[no-untyped-call]


def our_group(fact: str, sentence: str) -> None:
    """The box "우리 연구회에선": `sentence` with the fact of `data/group.yaml` in place of {}, or how to fill it in."""
    value = getattr(curriculum.group(), fact)
    text = (
        f"적어 둔 값이 없습니다. 그냥 넘어가도 됩니다. 서버 운영자가 저장소의 data/group.yaml 파일에서 {fact} 값을 채우면 여기에 나옵니다."
        if value is None
        else sentence.format(value)
    )
    display(Note("우리 연구회에선", text))  # type: ignore[no-untyped-call]


def unquoted(name: str, cell: str) -> str:
    """What a cell puts `name` into without quotes, "" where that is none of the learner's words.

    Those are answers and Korean words. Another name is rather one of the lesson's own, whose cell has not been run.
    """
    found = re.search(rf"^\s*(\w+)\s*=\s*{name}\s*(#|$)", cell, re.MULTILINE)
    return found.group(1) if found and (found.group(1) == "answer" or re.search("[가-힣]", name)) else ""


def explain(error: BaseException, cell: str = "") -> ServingLabError:
    """The Korean explanation of an error in `TOLD` that the code of `cell` raised."""
    if isinstance(error, KeyboardInterrupt):
        return ServingLabError("셀을 멈추었습니다.", "■ 단추를 눌렀습니다. 고장이 아닙니다.", "다시 하려면 셀에 커서를 두고 Shift+Enter를 누르세요.")
    if isinstance(error, subprocess.CalledProcessError):
        return ServingLabError(
            f"터미널 명령이 끝까지 되지 않았습니다 (끝낸 번호: {error.returncode}).",
            "명령이 잘못되었거나 서버가 꺼져 있습니다. 커널을 다시 시작했다면 $SERVER 같은 환경 변수도 비어 있습니다.",
            "위에 찍힌 명령의 출력을 읽어 보세요. 커널을 다시 시작했다면 맨 위부터 차례로 실행하세요.",
        )
    if isinstance(error, NameError) and (given := unquoted(str(error.name), cell)):
        return ServingLabError(
            f"따옴표 없이 적은 글자입니다: {error.name}",
            "따옴표가 없으면 Python은 글자가 아니라 이름으로 읽습니다.",
            f'글자로 답하는 곳이라면 {given} = "{error.name}" 처럼 따옴표로 감싸고, 수를 적는 곳이라면 수를 적으세요.',
        )
    if isinstance(error, NameError):
        return ServingLabError(
            f"아직 모르는 이름입니다: {error.name}",
            "이 이름을 만드는 위쪽 셀을 실행하지 않았거나, 커널을 다시 시작해서 잊었거나, 철자가 다릅니다. "
            "글자로 된 답이라면 따옴표를 빠뜨렸을 수 있습니다(예: \"a\").",
            "맨 위부터 차례로 실행하세요. 실행 메뉴의 ‘위의 모든 셀 실행’을 쓰면 한 번에 됩니다.",
        )
    if isinstance(error, openai.AuthenticationError) or getattr(error, "code", None) == 401:
        return WrongKey(
            "서버가 API 키를 받아 주지 않았습니다 (상태 코드 401).", "키가 없거나 틀렸습니다.", "키를 확인한 뒤 이 셀을 다시 실행하세요."
        )
    if isinstance(error, urllib.error.HTTPError):
        return ServingLabError(
            f"서버가 요청을 들어주지 않았습니다. 상태 코드: {error.code}", str(error.reason), "주소와 보낸 내용을 확인하세요."
        )
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, (httpx2.RemoteProtocolError, httpx2.ReadError, ConnectionResetError)):
            return StreamBroken(
                "서버의 답이 도중에 끊겼습니다.",
                f"서버 프로그램이 도중에 끝났거나 연결이 끊어졌습니다 ({type(cause).__name__}). 이미 화면에 나온 글은 그대로 남습니다.",
                "서버를 켜는 셀을 다시 실행한 뒤 이 셀을 다시 실행하세요.",
            )
        cause = cause.__cause__ or cause.__context__
    return NothingListening(
        "서버에 연결하지 못했습니다.",
        f"서버가 꺼져 있거나 주소가 다릅니다 ({type(error).__name__}).",
        "서버를 켜는 셀을 다시 실행한 뒤 이 셀을 다시 실행하세요.",
    )


def show_told(
    shell: Any, kind: type[BaseException], error: BaseException, trace: TracebackType | None, tb_offset: int | None = None
) -> list[str]:
    """IPython's hook for `TOLD`: the explanation in place of the stack. The cell still counts as failed."""
    told = explain(error, shell.user_ns.get("In", [""])[-1])
    lines = told._render_traceback_()
    shell._showtraceback(type(told), told, lines)
    return lines
