"""The `servinglab` command: thin wrappers over the other rooms."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn
from urllib.parse import quote

from servinglab import curriculum, doctor, progress
from servinglab.errors import ModelFileError, ServingLabError, SettingError
from servinglab.models import check, hub
from servinglab.paths import DATA, INDEX, ROOT, WORK, cache_dir, log_dir


def lab(arguments: argparse.Namespace) -> int:
    """Prepare `work/` and open JupyterLab there; returns when it is closed."""
    from servinglab import workspace  # not above: nbformat would take half the time in which every other command starts

    for message in workspace.prepare():
        print(message)
    if shutil.which("jupyter-lab", path=program_path()) is None:
        raise SettingError(
            "JupyterLab이 설치되어 있지 않습니다.", "설치가 끝나지 않았거나 다른 Python을 쓰고 있습니다.", "저장소 폴더에서 make lab 을 실행하세요."
        )
    command = [sys.executable, "-m", "jupyterlab", *lab_options()]
    if arguments.no_browser:
        command.append("--no-browser")
    if arguments.port is not None:
        command += ["--ServerApp.port", str(arguments.port)]
    if os.name != "nt" and os.geteuid() == 0:
        command.append("--allow-root")  # in a container there is often nobody else
    print("JupyterLab을 엽니다. 브라우저가 열리지 않으면 아래에 나오는 http://127.0.0.1 주소를 브라우저에 붙여 넣으세요.")
    print("끝내려면 이 터미널에서 Ctrl+C를 두 번 누르세요.", flush=True)
    kernels = os.pathsep.join(filter(None, [str(DATA / "jupyter"), os.environ.get("JUPYTER_PATH")]))
    environment = {**os.environ, "PATH": program_path(), "JUPYTER_PATH": kernels}
    os.chdir(WORK)  # where JupyterLab's terminals open
    if os.name != "nt":
        os.execve(sys.executable, command, environment)  # JupyterLab takes our place: Ctrl+C reaches it alone
    return subprocess.call(command, env=environment)


def program_path() -> str:
    """PATH with this environment's Python first and the programs compiled with it last: a `llama-server` of the machine's
    own goes before ours."""
    own = [str(Path(sys.executable).parent), str(Path(sysconfig.get_path("purelib")) / "bin")]
    rest = [part for part in os.environ.get("PATH", "").split(os.pathsep) if part and part not in own]
    return os.pathsep.join([own[0], *rest, own[1]])


def lab_options() -> list[str]:
    """JupyterLab as the course wants it: Korean, on this machine alone, at the table of lessons, without news."""
    return [
        f"--LabApp.app_settings_dir={DATA / 'jupyterlab'}",
        f"--ServerApp.root_dir={WORK}",
        "--ServerApp.ip=127.0.0.1",
        f"--LabApp.default_url=/lab/tree/{quote(INDEX)}",
        "--LabApp.news_url=",
        "--LabApp.extension_manager=readonly",
        # No login shell: /etc/profile would set PATH anew, and `servinglab` would not be found in the terminal.
        f"--ServerApp.terminado_settings={{'shell_command': ['{os.environ.get('SHELL') or '/bin/bash'}']}}",
    ]


def reset(arguments: argparse.Namespace) -> int:
    from servinglab import workspace

    fresh, old = workspace.reset(curriculum.find(arguments.lesson))
    if old is not None:
        print(f"쓰던 파일은 {old.name} 로 남겨 두었습니다.")
    print(f"새 파일: {fresh}")
    print("노트북이 열려 있다면 저장하지 말고 탭을 닫은 뒤 차례에서 다시 여세요.")
    return 0


def examine(arguments: argparse.Namespace) -> int:
    findings = doctor.examine()
    lacking = [finding for finding in findings if finding.needed and not finding.ok]
    if arguments.json:
        print(doctor.as_json(findings))
    else:
        print("\n".join(finding.line() for finding in findings))
        print(f"고칠 것이 {len(lacking)}개 있습니다." if lacking else "이 과정에 필요한 것은 모두 있습니다.")
    return 1 if lacking else 0


def clean(arguments: argparse.Namespace) -> int:
    """Show what the caches take; remove them after a yes. The learner's own work is no cache."""
    folders = [(cache_dir(), "모델 파일 (다시 만들어집니다)"), (log_dir(), "엔진의 기록")]
    total = 0
    for folder, what in folders:
        size = sum(path.stat().st_size for path in own_files(folder))
        total += size
        print(f"{size / 1e6:8.1f} MB  {folder}  {what}")
    if hub.kept():
        size = sum(path.stat().st_size for path in hub.kept())
        print(f"{size / 1e6:8.1f} MB  {hub.folder()}  내려받은 모델 (이 명령으로는 지우지 않습니다. 지우려면 파일을 직접 지우세요)")
    if total == 0:
        print("지울 것이 없습니다.")
        return 0
    if not arguments.yes and not agreed("모두 지울까요? 지우려면 y, 그만두려면 그냥 Enter: "):
        print("아무것도 지우지 않았습니다.")
        return 0
    for folder, _ in folders:
        remove(own_files(folder))
    print(f"{total / 1e6:.1f} MB를 비웠습니다.")
    return 0


def pull(arguments: argparse.Namespace) -> int:
    """Fetch a model from the hub after a yes; without a name list what can be had."""
    if arguments.model is None:
        return list_models()
    path = hub.path_of(arguments.model)
    if path.is_file():
        try:
            check(path)
        except ModelFileError as error:
            print(f"{error}\n새로 받습니다.")
        else:
            print(f"이미 받아 둔 모델입니다: {path} ({hub.megabytes(path.stat().st_size)})")
            print(how_to_use(arguments.model))
            return 0
    print("모델 허브에 물어보고 있습니다 …", flush=True)
    offer = hub.look_up(arguments.model)
    print(offer)
    hub.require_disk(offer)
    if not arguments.yes and not agreed("받을까요? 받으려면 y, 그만두려면 그냥 Enter: "):
        print("받지 않았습니다.")
        return 0
    print("받고 있습니다. 멈추려면 Ctrl+C를 누르세요. 다시 실행하면 이어서 받습니다.", flush=True)
    try:
        hub.fetch(offer)
    except KeyboardInterrupt:
        print(f"\n{hub.AGAIN}", file=sys.stderr)
        raise
    print(f"받았습니다. 체크섬과 파일의 꼴이 모두 맞습니다: {path}")
    print(how_to_use(arguments.model))
    return 0


def list_models() -> int:
    """What can be pulled, and what of it is here."""
    print("받을 수 있는 모델:")
    for name, shape in hub.offered().items():
        assert shape.gguf is not None
        path, begun = hub.path_of(name), hub.parts(name)
        state = f", 받다 만 것 {hub.megabytes(begun[0].stat().st_size)}" if begun else ""
        state = f", 받아 둠 ({hub.megabytes(path.stat().st_size)})" if path.is_file() else state
        print(f"  {name}: {shape.name}, {shape.gguf.file}, {shape.gguf.licence}{state}")
    print("받으려면 servinglab pull 이름 을 실행하세요. 크기와 필요한 메모리를 먼저 보여 주고 물어봅니다.")
    print(f"받은 모델은 {hub.folder()} 폴더에 있습니다. 지우려면 그 파일을 지우면 됩니다.")
    return 0


def how_to_use(name: str) -> str:
    return (
        f"모든 레슨에서 튜터 대신 쓰려면 {ROOT / '.env'} 파일에 SERVINGLAB_MODEL={name} 이라고 적고 커널을 다시 시작하세요. "
        "튜터로 돌아가려면 그 줄을 지우면 됩니다."
    )


def show_progress(arguments: argparse.Namespace) -> int:
    """Print the learner's progress, export it, or remove it after a yes."""
    if arguments.reset is not None:
        return forget(None if arguments.reset == "all" else arguments.reset, arguments.yes)
    if arguments.csv is not None:
        return export(arguments.csv)
    if progress.attempts():
        print(progress.table())
        print("\n2/3은 답해 본 문제 셋 가운데 둘을 첫 답에 맞혔다는 뜻입니다.")
    else:
        print("아직 기록이 없습니다. 연습이나 퀴즈에 답하면 여기에 쌓입니다.")
    print(f"기록 파일: {progress.file()}")
    return 0


def export(target: str) -> int:
    """Write all attempts as CSV to a file that is not there yet, or ("-") to the terminal."""
    text = progress.as_csv()
    if target == "-":
        print(text, end="")
        return 0
    path = Path(target)
    try:
        with path.open("x", encoding="utf-8-sig", newline="") as file:  # Excel knows UTF-8 by its mark only
            file.write(text)
    except FileExistsError as error:
        raise SettingError(f"{path} 파일이 이미 있습니다.", "있는 파일은 덮어쓰지 않습니다.", "다른 이름을 적어 주세요.") from error
    except OSError as error:
        if path.is_file():
            path.unlink()  # begun by us, cut short by a full disk
        raise SettingError(f"{path} 파일에 쓰지 못했습니다.", str(error.strerror), "쓸 수 있는 폴더인지, 자리가 남았는지 살펴보세요.") from error
    print(f"{path} 파일에 적었습니다. 엑셀에서 바로 열 수 있습니다.")
    return 0


def forget(lesson: str | None, sure: bool) -> int:
    """Remove one lesson's attempts, or all, after a yes."""
    count, whose = len(progress.attempts(lesson)), f"레슨 {lesson}의 기록" if lesson else "모든 레슨의 기록"
    if count == 0:
        print(f"{whose}이 없습니다. 지울 것이 없습니다.")
        return 0
    print(f"{whose}: 답 {count}개. 지우면 되살릴 수 없습니다.")
    if not sure and not agreed("지울까요? 지우려면 y, 그만두려면 그냥 Enter: "):
        print("아무것도 지우지 않았습니다.")
        return 0
    print(f"답 {progress.reset(lesson)}개를 지웠습니다.")
    return 0


def agreed(question: str) -> bool:
    try:
        return input(question).strip().lower() in ("y", "yes", "네", "예")
    except (EOFError, KeyboardInterrupt):  # no keyboard, or Ctrl+C: nobody said yes
        print()
        return False


OWN = ("tutor-*.gguf", "tutor-*.gguf.*.part", "speed-random-*.gguf", "speed-random-*.gguf.*.part", "llama-server-*.log", "key-*")


def own_files(folder: Path) -> list[Path]:
    """What the package itself wrote into a cache folder, which may be a shared one that holds others' models too."""
    return [path for pattern in OWN for path in folder.glob(pattern)]


def remove(files: list[Path]) -> None:
    for path in files:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise SettingError(f"{path} 파일을 지우지 못했습니다.", str(error), "함께 쓰는 캐시라면 운영자만 지울 수 있습니다.") from error


class Parser(argparse.ArgumentParser):
    """Says in Korean what was not understood."""

    def error(self, message: str) -> NoReturn:
        raise SettingError(
            f"명령을 알아듣지 못했습니다: {' '.join([self.prog.split()[0], *sys.argv[1:]])}", message,
            "servinglab --help 를 실행하면 쓸 수 있는 명령이 나옵니다. 예: servinglab doctor",
        )


def parser() -> argparse.ArgumentParser:
    result = Parser(prog="servinglab", description="LLM 서빙 과정의 도우미 명령")
    commands = result.add_subparsers(title="명령", required=True, metavar="명령")
    command = commands.add_parser("lab", help="JupyterLab을 과정의 설정으로 엽니다")
    command.add_argument("--no-browser", action="store_true", help="브라우저를 열지 않고 주소만 보여 줍니다")
    command.add_argument("--port", type=int, help="JupyterLab의 포트")
    command.set_defaults(run=lab)
    command = commands.add_parser("reset", help="레슨을 처음 상태로 다시 받습니다 (쓰던 파일은 남깁니다)")
    command.add_argument("lesson", help="레슨 번호, 예: 00")
    command.set_defaults(run=reset)
    command = commands.add_parser("doctor", help="무엇이 있고 무엇이 없는지 살펴봅니다")
    command.add_argument("--json", action="store_true", help="문의할 때 붙일 수 있는 형태로 찍습니다")
    command.set_defaults(run=examine)
    command = commands.add_parser("clean", help="캐시의 크기를 보여 주고, 물어본 뒤 비웁니다")
    command.add_argument("--yes", action="store_true", help="묻지 않고 비웁니다")
    command.set_defaults(run=clean)
    command = commands.add_parser("pull", help="작은 실제 모델을 모델 허브에서 받습니다 (이름을 빼면 받을 수 있는 모델을 보여 줍니다)")
    command.add_argument("model", nargs="?", metavar="모델", help="모델의 이름, 예: qwen3-0.6b")
    command.add_argument("--yes", action="store_true", help="묻지 않고 받습니다")
    command.set_defaults(run=pull)
    command = commands.add_parser("progress", help="연습과 퀴즈를 얼마나 풀었는지 보여 줍니다")
    choice = command.add_mutually_exclusive_group()
    choice.add_argument("--csv", metavar="파일", help="모든 답을 CSV 파일로 내보냅니다 (- 를 적으면 화면에 찍습니다)")
    choice.add_argument("--reset", metavar="레슨", help="물어본 뒤 그 레슨의 기록을 지웁니다 (all 을 적으면 모두 지웁니다)")
    command.add_argument("--yes", action="store_true", help="묻지 않고 지웁니다")
    command.set_defaults(run=show_progress)
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    try:
        chosen = parser().parse_args(arguments)
        return int(chosen.run(chosen))
    except ServingLabError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\n멈췄습니다.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
