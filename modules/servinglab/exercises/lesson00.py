"""The exercises of lesson 00. The questions stand in the notebook; here is what is right and what to say otherwise."""

from __future__ import annotations

from typing import Any, ClassVar

from servinglab.bench import Record
from servinglab.exercises.core import Choice, Exercise, Mistake, Number, WrongType


class ChangeOneNumber(Number):
    """Set `people` to 7 and run the cell again. `box` is drawn anew at each run."""

    id = "00-1"
    title = "숫자 하나 바꾸기"
    unit = "개"
    live = True
    hints = (
        "people = 3 에서 3만 지우고 7을 적습니다. 다른 글자는 그대로 둡니다.",
        "고친 셀에 커서를 둔 채 Shift+Enter를 누르고, 새로 찍힌 마지막 줄의 수를 읽으세요.",
    )

    def __init__(self, box: int) -> None:
        super().__init__()
        self.box = box

    def right(self) -> int:
        return self.box * 7

    def mistakes(self) -> list[Mistake]:
        return [
            Mistake(self.box * 3, "people이 아직 3일 때의 값입니다. 7로 고친 뒤 그 셀을 다시 실행해야 새 값이 나옵니다."),
            Mistake(self.box, "한 상자에 든 개수입니다. 마지막 줄에 찍힌 전체 개수를 적어 주세요."),
            Mistake(7, "사람 수입니다. 마지막 줄에 찍힌 전체 개수를 적어 주세요."),
            Mistake(
                self.box + 7,
                "더한 값입니다. 셀은 한 상자의 개수에 사람 수를 곱합니다. "
                "직접 계산하지 않아도 됩니다. 셀이 찍은 값을 그대로 옮겨 적으세요.",
            ),
        ]

    def praise(self) -> str:
        return "값을 고치고, 다시 실행하고, 새 결과를 읽었습니다. 이 과정의 셀은 모두 이렇게 다룹니다."

    def how(self) -> str:
        return "people = 7 로 고쳐 Shift+Enter를 누르면 마지막 줄에 한 상자의 개수의 일곱 배가 찍힙니다."


class WhatStarMeans(Choice):
    """What `[*]` beside a cell says."""

    id = "00-2"
    title = "별표의 뜻"
    letter = "c"
    hints = ("별표가 있던 자리에 나중에 무엇이 나타나는지 떠올려 보세요.", "번호는 일이 끝났을 때 나타납니다.")
    options: ClassVar = {
        "a": "오류가 나면 셀 아래에 오류 메시지가 나오고 별표는 번호로 바뀝니다. 별표 자체는 오류 표시가 아닙니다.",
        "b": "저장하지 않은 변경은 파일 탭의 점으로 나타납니다. 셀 왼쪽의 별표와는 다른 표시입니다.",
        "c": "",
        "d": "아직 한 번도 실행하지 않은 셀은 [ ]처럼 비어 있습니다. 별표는 실행을 시킨 뒤에 나타납니다.",
    }

    def praise(self) -> str:
        return "별표는 그 셀의 일이 아직 끝나지 않았다는 뜻입니다. 너무 오래가면 ■ 단추로 멈출 수 있습니다."

    def how(self) -> str:
        return "실행을 시키면 [*]가 되고, 일이 끝나면 [3]처럼 번호로 바뀝니다."


class PortOfTheServer(Number):
    """Read the port off the live server's address."""

    id = "00-3"
    title = "포트 읽기"
    unit = "번"
    live = True
    hints = (
        "서버에 연결한 셀이 찍은 주소를 보세요.",
        "주소에서 쌍점(:) 뒤에 오는 수가 포트입니다. 옆 사람과 다를 수 있습니다.",
    )

    def __init__(self, server: Any) -> None:
        super().__init__()
        self.server = server

    def right(self) -> int:
        return int(self.server.port)

    def mistakes(self) -> list[Mistake]:
        return [
            Mistake(80, "80번은 웹(http)이 약속으로 쓰는 포트입니다. 지금 켠 서버는 주소에 다른 포트를 적어 두었습니다."),
            Mistake(8080, "8080번은 포트를 따로 정하지 않았을 때 llama-server가 쓰는 번호입니다. 지금 서버의 주소에는 다른 번호가 적혀 있습니다."),
            Mistake(127, "127.0.0.1은 컴퓨터를 가리키는 주소입니다. 포트는 그 뒤, 쌍점 다음에 옵니다."),
        ]

    def praise(self) -> str:
        return "주소는 컴퓨터를, 포트는 그 컴퓨터 안의 프로그램 하나를 가리킵니다. 이제 이 서버를 어디로 찾아가야 하는지 압니다."

    def how(self) -> str:
        return "주소의 쌍점(:) 뒤에 오는 수를 읽습니다."


class CodeOfTheMystery(Number):
    """Tell the status code from the body of a failed request."""

    id = "00-4"
    title = "상태 코드 알아맞히기"
    unit = "세 자리 상태 코드"
    live = True
    hints = (
        "본문의 message를 읽으세요. 찾는 것이 없다는 말인가요, 키 이야기인가요, 보낸 내용 이야기인가요?",
        "바로 위에서 세 가지 실패를 일부러 만들어 보았습니다. 같은 message가 찍힌 줄을 찾아 코드를 읽으세요.",
    )
    MEANINGS: ClassVar = {
        400: "400은 보낸 내용이 틀렸을 때(예: messages가 빠짐) 옵니다. 본문이 그런 말을 하고 있나요?",
        401: "401은 키가 없거나 틀렸을 때 옵니다. 본문에 키(API key) 이야기가 있나요?",
        404: "404는 그런 창구(주소의 경로)가 없을 때 옵니다. 본문이 무엇을 찾지 못했다고 하나요?",
        200: "200은 잘되었다는 뜻입니다. 그런데 본문에는 error가 들어 있습니다.",
        500: "500은 서버 안에서 탈이 났을 때 옵니다. 이번에는 서버가 아니라 요청이 문제였습니다.",
    }

    def __init__(self, code: int) -> None:
        super().__init__()
        self.code = code

    def right(self) -> int:
        return self.code

    def mistakes(self) -> list[Mistake]:
        return [Mistake(code, text) for code, text in self.MEANINGS.items() if code != self.code]

    def praise(self) -> str:
        return "본문과 상태 코드는 같은 사정을 말합니다. 실무에서는 코드로 갈래를 잡고 본문으로 까닭을 읽습니다."

    def how(self) -> str:
        return "본문의 message가 없는 경로를 말하면 404, 키를 말하면 401, 빠진 값을 말하면 400입니다."


class TokensOfTheAnswer(Number):
    """Read the number of generated tokens off `usage`."""

    id = "00-5"
    title = "토큰 세기"
    unit = "토큰"
    live = True
    hints = (
        "응답의 usage에는 수가 셋 있습니다. 보낸 것, 받은 것, 둘의 합입니다.",
        "completion은 이어서 써 넣은 것, 곧 답이라는 뜻입니다.",
    )

    def __init__(self, response: Any) -> None:
        super().__init__()
        self.response = response

    def right(self) -> int:
        return int(self.response.usage.completion_tokens)

    def mistakes(self) -> list[Mistake]:
        usage = self.response.usage
        letters = len(self.response.choices[0].message.content or "")
        return [
            Mistake(usage.prompt_tokens, "보낸 쪽(prompt)의 토큰 수입니다. 물은 것은 모델이 만들어 낸 답의 토큰 수입니다."),
            Mistake(usage.total_tokens, "보낸 것과 받은 것을 더한 수입니다. 답의 몫만 적어 주세요."),
            Mistake(letters, "글자 수입니다. 토큰은 글자가 아니라 모델이 글을 자르는 조각이라 수가 다릅니다."),
        ]

    def praise(self) -> str:
        return "답이 길수록 이 수가 커지고 시간도 더 걸립니다. 요금은 대개 보낸 토큰과 이 토큰을 함께 셈합니다."

    def how(self) -> str:
        return "response.usage.completion_tokens 를 읽습니다."


class FirstTokenTime(Number):
    """Compute the time to first token from recorded arrival times, in milliseconds."""

    id = "00-7"
    title = "첫 조각까지 걸린 시간"
    unit = "밀리초(ms)"
    live = True
    tolerance = 0.02
    hints = (
        "표의 첫 줄이 첫 조각입니다. 질문을 보낸 때부터 첫 조각이 올 때까지가 TTFT입니다.",
        "표에 적힌 단위가 이미 밀리초(ms)인지 확인하세요. 1초는 1000밀리초입니다.",
    )

    def __init__(self, record: Record) -> None:
        super().__init__()
        self.record = record.require()

    def right(self) -> float:
        assert self.record.ttft is not None
        return self.record.ttft * 1000

    def mistakes(self) -> list[Mistake]:
        assert self.record.ttft is not None and self.record.e2el is not None
        gaps = self.record.itl or [0.0]
        return [
            Mistake(self.record.e2el * 1000, "마지막 조각까지 걸린 시간입니다. 첫 조각이 온 때를 읽으세요."),
            Mistake(self.record.ttft, "초로 적은 값입니다. 밀리초로 적어 주세요. 1초는 1000밀리초입니다."),
            Mistake(sum(gaps) / len(gaps) * 1000, "조각과 조각 사이의 평균 간격(ITL)입니다. 첫 조각까지 기다린 시간을 적어 주세요."),
        ]

    def praise(self) -> str:
        return "이 값이 TTFT(첫 토큰까지 걸린 시간)입니다. 사람이 느끼는 답답함은 대개 여기에서 정해집니다."

    def how(self) -> str:
        return "표의 첫 줄, 곧 첫 조각이 도착한 시각(ms)을 읽습니다. 코드로는 record.ttft * 1000 입니다."


class Conversation(Exercise):
    """Write `messages` with a system prompt and a question; the live server must accept them."""

    id = "00-6"
    title = "대화 만들기"
    live = True
    hints = (
        "바깥은 대괄호 [ ], 그 안에 중괄호 { } 두 개를 쉼표로 나눕니다.",
        '첫 번째는 {"role": "system", "content": "…"}, 두 번째는 {"role": "user", "content": "…"} 입니다.',
    )

    def __init__(self, server: Any) -> None:
        super().__init__()
        self.server = server
        self.reply = ""

    def right(self) -> list[dict[str, str]]:
        return [
            {"role": "system", "content": "한 문장으로 답하세요."},
            {"role": "user", "content": "포트가 뭐예요?"},
        ]

    def attempted(self, answer: object) -> bool:
        """Three dots left anywhere in the list are a gap still to be filled."""
        return super().attempted(answer) and "Ellipsis" not in repr(answer)

    def read(self, answer: object) -> list[dict[str, str]]:
        if isinstance(answer, (str, dict)):
            raise WrongType("말 하나가 아니라 말의 목록이 필요합니다. 바깥을 대괄호 [ ]로 감싸 주세요.")
        if not isinstance(answer, list) or not answer:
            raise WrongType("대화는 비어 있지 않은 목록이어야 합니다. [ { … }, { … } ] 꼴로 적어 주세요.")
        for turn in answer:
            if not isinstance(turn, dict) or set(turn) != {"role", "content"}:
                raise WrongType(f"말 하나에는 role과 content 두 가지가 있어야 합니다. 지금 것: {turn!r}")
            if not all(isinstance(value, str) and value.strip() for value in turn.values()):
                raise WrongType("role과 content의 값은 모두 비어 있지 않은 글이어야 합니다.")
        return answer

    def otherwise(self, answer: object) -> str:
        assert isinstance(answer, list)
        wrong = next((turn["role"] for turn in answer if turn["role"] not in ("system", "user", "assistant")), None)
        if wrong is not None:
            return f"{wrong!r} 역할은 없습니다. 첫 번째 말의 role은 \"system\", 두 번째 말의 role은 \"user\"로 적으세요."
        roles = ", ".join(turn["role"] for turn in answer)
        if roles == "system, user":
            return "꼴은 맞습니다. 서버가 빈 답을 보냈으니 질문을 바꾸어 보세요."
        return f"말이 두 개여야 합니다. 첫 번째는 system, 두 번째는 user입니다. 지금 역할: {roles}"

    def same(self, answer: Any, other: Any) -> bool:
        """Any conversation of this form is right, if the live server answers it."""
        if [turn["role"] for turn in answer] != ["system", "user"]:
            return False
        reply = self.server.client.chat.completions.create(model=self.server.model, messages=answer, max_tokens=64)
        self.reply = reply.choices[0].message.content or ""
        return bool(self.reply)

    def mistakes(self) -> list[Mistake]:
        system, user = self.right()

        def roles(*names: str) -> Any:
            return lambda answer: [turn["role"] for turn in answer] == list(names)

        return [
            Mistake([user], "질문은 있는데 시스템 프롬프트가 없습니다. 맨 앞에 role이 system인 말을 넣어 주세요.", roles("user")),
            Mistake([system], "시스템 프롬프트만 있고 질문이 없습니다. role이 user인 말을 뒤에 넣어 주세요.", roles("system")),
            Mistake([user, system], "순서가 거꾸로입니다. 시스템 프롬프트는 대화의 맨 앞에 둡니다.", roles("user", "system")),
            Mistake(
                [{**system, "role": "assistant"}, user],
                "assistant는 모델이 한 말의 역할입니다. 모델에게 주는 지시의 역할은 system입니다.",
                roles("assistant", "user"),
            ),
        ]

    def praise(self) -> str:
        return f"서버의 답: {self.reply}\n살아 있는 서버가 이 대화에 답했습니다. system은 어떻게 답할지를, user는 무엇을 묻는지를 정합니다."

    def how(self) -> str:
        return "맨 앞에 system, 그다음에 user가 오는 목록을 적습니다."


ALL = (
    ChangeOneNumber,
    WhatStarMeans,
    PortOfTheServer,
    CodeOfTheMystery,
    TokensOfTheAnswer,
    Conversation,
    FirstTokenTime,
)
