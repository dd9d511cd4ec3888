"""A quiz with one question of each kind, for the tests of the quiz and of its widgets in the browser."""

SAMPLE = """\
lesson: "00"
questions:
  - id: job
    kind: single
    text: 서빙 엔진이 맡는 일은 무엇입니까?
    reread: "03"
    options:
      - text: 소스 코드를 기계어로 옮긴다
        why: 컴파일러가 빌드할 때 하는 일입니다.
      - text: 모델 파일을 메모리에 올리고 요청마다 답을 만들어 돌려준다
        right: true  # job
        why: 파일을 올려 두고 요청을 기다렸다가 답하는 프로그램이 서빙 엔진입니다.
      - text: 모델의 수를 더 적은 비트로 줄인다
        why: 양자화 도구가 하는 일입니다.
      - text: 질문을 보고 알맞은 모델로 보낸다
        why: 여러 모델 앞에 선 라우터가 하는 일입니다.
  - id: kept
    kind: multiple
    text: 서버를 껐다 켜면 사라지는 것을 모두 고르세요.
    reread: "03"
    options:
      - text: KV 캐시
        right: true
        why: 메모리에 있어서 함께 사라집니다.
      - text: 모델 파일 # kept
        why: 디스크에 있어서 그대로 남습니다.
      - text: 줄을 선 요청
        right: true
        why: 기다리던 요청도 함께 끝납니다.
  - id: bytes
    kind: number
    text: 층이 6개, KV 머리가 2개, 머리 크기가 64이고 값 하나가 2바이트이면 토큰 하나의 `KV 캐시`는 몇 바이트입니까?
    reread: "05"
    unit: 바이트
    value: 3072
    tolerance: 0.01
    why: 키와 값이 따로 있으므로 2 × 6 × 2 × 64 × 2를 셈합니다.
    wrong:
      - value: 1536
        why: 키만 세고 값을 빠뜨린 수입니다.
  - id: life
    kind: ordering
    text: 요청 하나가 거치는 차례를 맞추세요.
    reread: "06"
    items:
      - 요청이 서버에 닿는다
      - 질문을 읽는다
      - 첫 토큰을 만든다
      - 나머지 토큰을 만든다
    why: 질문을 다 읽어야 첫 토큰이 나옵니다.
    wrong:
      - order: [1, 0, 2, 3]
        why: 닿지 않은 질문은 읽을 수 없습니다.
  - id: who
    kind: matching
    text: 하는 일끼리 짝지으세요.
    reread: "06"
    pairs:
      - left: 컴파일러
        right: 코드를 기계어로 옮긴다
        why: 컴파일러는 사람이 쓴 코드를 옮깁니다.
      - left: 양자화 도구
        right: 파일을 작게 만든다
        why: 양자화 도구는 수를 적은 비트로 줄입니다.
      - left: 라우터
        right: 알맞은 모델로 보낸다
        why: 라우터는 질문이 갈 길을 고릅니다.
"""
