"""`servinglab doctor`: what is here, what is missing, and how to get it."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
from packaging.requirements import Requirement
from packaging.version import Version

from servinglab import programs
from servinglab.engines import llama_server
from servinglab.errors import ServingLabError
from servinglab.paths import ROOT, cache_dir

LOOK_LIMIT = 20.0
"""Seconds that one program may take to say what it is."""


@dataclass(frozen=True)
class Finding:
    """One line of the report. `needed` says whether the course works without it."""

    name: str
    ok: bool
    detail: str
    fix: str = ""
    needed: bool = True

    def line(self) -> str:
        mark = "[OK]  " if self.ok else "[없음]"
        mark += "" if self.needed or self.ok else " (없어도 됨)"
        text = f"{mark} {self.name}: {self.detail}"
        return text if self.ok or not self.fix else f"{text}\n       고치기: {self.fix}"


def python() -> Finding:
    version = platform.python_version()
    return Finding("Python", sys.version_info >= (3, 11), version, "Python 3.11 이상을 설치하고 make lab 을 다시 실행하세요.")


def memory() -> Finding:
    have = psutil.virtual_memory()
    text = f"전체 {have.total / 2**30:.1f} GB, 지금 쓸 수 있는 것 {have.available / 2**30:.1f} GB"
    return Finding("메모리", have.available > 2 * 2**30, text, "2 GB는 남아 있어야 합니다. 다른 프로그램을 닫으세요.")


def cores() -> Finding:
    text = f"논리 {psutil.cpu_count()}개, 물리 {psutil.cpu_count(logical=False) or '모름'}개"
    return Finding("코어", (psutil.cpu_count() or 1) >= 2, text, "코어가 하나뿐이면 여러 요청을 견주는 실험이 느립니다.", needed=False)


def cpu_flags() -> set[str]:
    """Instruction sets of this processor as the kernel names them; empty where it cannot be asked."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return set()
    found = re.search(r"^(?:flags|Features)\s*:\s*(.*)$", text, re.MULTILINE)
    return set(found.group(1).split()) if found else set()


INSTRUCTIONS = {
    **{name: name.lower() for name in ("SSSE3", "AVX", "AVX2", "F16C", "FMA", "BMI2", "SVE", "SME")},
    **{name: name.lower() for name in ("AVX_VNNI", "AVX512_VNNI", "AVX512_BF16", "AMX_INT8")},
    **{"SSE3": "pni", "AVX512": "avx512f", "AVX512_VBMI": "avx512vbmi"},
    **{"NEON": "asimd", "FP16_VA": "asimdhp", "DOTPROD": "asimddp", "MATMUL_INT8": "i8mm"},
}
"""Instruction sets in llama.cpp's names, and in those of /proc/cpuinfo."""


def built_for(system_info: str) -> set[str]:
    """Instruction sets that llama.cpp was compiled for, from its own "AVX2 = 1 | FMA = 1" line, in /proc/cpuinfo's names."""
    return {INSTRUCTIONS[name] for name in re.findall(r"(\w+) = 1", system_info) if name in INSTRUCTIONS}


def instructions() -> Finding:
    """Ask llama.cpp in a process of its own: on the wrong machine already loading it ends in SIGILL."""
    name = "CPU 명령어"
    code = "import llama_cpp; print(llama_cpp.llama_print_system_info().decode())"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=LOOK_LIMIT, encoding="utf-8"
    )
    fix = "저장소 폴더에서 rm -rf .build .venv 뒤 make lab 을 실행해 이 컴퓨터에 맞게 다시 컴파일하세요."
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["아무 말 없이 끝났습니다"])[-1]
        return Finding(name, False, f"llama.cpp를 불러오지 못했습니다 (종료 코드 {done.returncode}: {last}).", fix)
    wanted, have = built_for(done.stdout), cpu_flags()
    if not have:
        return Finding(name, True, f"llama.cpp는 {', '.join(sorted(wanted))} 용입니다. 이 운영체제에서는 CPU와 견주지 못했습니다.")
    lacking = wanted - have
    if lacking:
        return Finding(name, False, f"llama.cpp가 쓰는 {', '.join(sorted(lacking))} 명령어가 이 CPU에 없습니다.", fix)
    return Finding(name, True, f"llama.cpp가 쓰는 {', '.join(sorted(wanted))} 모두 있습니다.")


def disk() -> Finding:
    folder = cache_dir()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free / 1e9
    return Finding("디스크", free > 2, f"캐시 폴더 쪽에 {free:.1f} GB 남음", "servinglab clean 으로 캐시를 비우세요.")


def gpu() -> Finding:
    program = shutil.which("nvidia-smi")
    if program is None:
        text = "NVIDIA GPU가 없습니다. 이 과정은 GPU 없이 모두 할 수 있습니다."
        return Finding("GPU", False, text, "GPU가 꽂혀 있다면 NVIDIA 드라이버를 설치하세요. 없어도 괜찮습니다.", needed=False)
    query = [program, "--query-gpu=name,compute_cap,memory.total", "--format=csv,noheader"]
    done = subprocess.run(query, capture_output=True, text=True, timeout=LOOK_LIMIT, encoding="utf-8")
    text = "; ".join(done.stdout.strip().splitlines())
    return Finding("GPU", done.returncode == 0, text or "nvidia-smi가 답하지 않습니다.", "드라이버를 확인하세요.", needed=False)


def llama_programs() -> Finding:
    name = "llama.cpp"
    try:
        program = programs.find()
        return Finding(name, True, f"{program} ({llama_server.version(program)})")
    except ServingLabError as error:
        return Finding(name, False, error.what, error.todo)


def ollama() -> Finding:
    return optional_program("Ollama", "ollama", "https://ollama.com/download 에서 받습니다. 레슨 03부터 씁니다.")


def vllm() -> Finding:
    found = [p for p in (ROOT / ".venv-vllm").glob("lib/python*/site-packages/vllm")] if (ROOT / ".venv-vllm").exists() else []
    text = str(found[0].parent) if found else "설치하지 않았습니다."
    return Finding("vLLM", bool(found), text, "레슨 05에서 설치 방법을 다룹니다.", needed=False)


def optional_program(name: str, program: str, fix: str) -> Finding:
    path = shutil.which(program)
    if path is None:
        return Finding(name, False, "설치하지 않았습니다.", fix, needed=False)
    done = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=LOOK_LIMIT, encoding="utf-8")
    lines = (done.stdout + done.stderr).strip().splitlines()
    return Finding(name, done.returncode == 0, f"{path} ({lines[-1] if lines else '판 모름'})", fix, needed=False)


def korean_font() -> Finding:
    from matplotlib import font_manager  # here, because loading it takes a second that other commands need not wait for

    from servinglab.plots import FONT

    name, fix = "한글 글꼴", "git checkout data/fonts 로 되살리세요."
    if not FONT.is_file():
        return Finding(name, False, f"{FONT.name} 파일이 없습니다.", fix)
    try:
        charmap = font_manager.get_font(str(FONT)).get_charmap()
    except RuntimeError as error:
        return Finding(name, False, f"{FONT.name} 파일이 손상됐습니다 ({error}).", fix)
    return Finding(name, all(ord(letter) in charmap for letter in "가힣글꼴"), FONT.name, fix)


MANAGER_OF_IPYWIDGETS_8 = 5
"""Major version of @jupyter-widgets/jupyterlab-manager that speaks ipywidgets 8's protocol."""


def widgets() -> Finding:
    """The front end must be one that the kernel's package asks for, and its extension must be installed."""
    name, fix = "위젯", ".venv/bin/pip install -c constraints.txt --force-reinstall ipywidgets jupyterlab_widgets 를 실행하세요."
    try:
        kernel = importlib.metadata.version("ipywidgets")
        front = importlib.metadata.version("jupyterlab_widgets")
        wanted = [Requirement(text) for text in importlib.metadata.requires("ipywidgets") or []]
    except importlib.metadata.PackageNotFoundError as error:
        return Finding(name, False, f"없는 꾸러미: {error.name}", fix)
    extension = Path(sys.prefix) / "share/jupyter/labextensions/@jupyter-widgets/jupyterlab-manager/package.json"
    if not extension.is_file():
        return Finding(name, False, "화면 쪽 확장이 깔려 있지 않습니다.", fix)
    installed = json.loads(extension.read_text(encoding="utf-8"))["version"]
    asked = all(front in want.specifier for want in wanted if want.name == "jupyterlab_widgets")
    fits = asked and Version(kernel).major == 8 and Version(installed).major == MANAGER_OF_IPYWIDGETS_8
    text = f"커널 ipywidgets {kernel}, 화면 jupyterlab_widgets {front} (jupyterlab-manager {installed})"
    return Finding(name, fits, text, fix)


CHECKS: tuple[Callable[[], Finding], ...] = (
    python, memory, cores, instructions, disk, gpu, llama_programs, ollama, vllm, korean_font, widgets,
)


def examine() -> list[Finding]:
    """All findings. A check that itself fails is a finding, not a traceback."""
    findings = []
    for check in CHECKS:
        try:
            findings.append(check())
        except Exception as error:
            text = f"살펴보지 못했습니다: {type(error).__name__}: {error}"
            findings.append(Finding(check.__name__, False, text, "servinglab doctor --json 의 출력을 붙여 문의하세요."))
    return findings


def as_json(findings: list[Finding]) -> str:
    """For a bug report. Names settings but never their values: one of them may be a key."""
    settings = sorted(name for name in os.environ if re.match(r"(SERVINGLAB|LLAMA|OLLAMA|OPENAI|VLLM)_", name))
    report = {
        "servinglab": importlib.metadata.version("servinglab"),
        "system": platform.platform(),
        "machine": platform.machine(),
        "settings": settings,
        "findings": [asdict(finding) for finding in findings],
    }
    return json.dumps(report, ensure_ascii=False, indent=2)
