# make lab · make test · make lessons · make bench · make clean · make help
VENV   := .venv
# Once .venv is there, its own Python goes on with it, whatever python3 is on this machine.
PYTHON ?= $(if $(wildcard $(VENV)/bin/python),$(VENV)/bin/python,python3)
RUN    := $(VENV)/bin/python
EXTRAS ?=

.DEFAULT_GOAL := help
.PHONY: help lab test lessons bench clean

help: ## 이 도움말을 보여 줍니다
	@echo "쓸 수 있는 명령:"
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 18
	@echo "  하나만 만들기:  make lessons LESSON=00"

lab: ## 모두 설치하고(처음 한 번, 2코어에서 7~10분) JupyterLab을 엽니다
	@$(PYTHON) tools/bootstrap.py --extras "lab"
	@exec $(RUN) -m servinglab.cli lab $(LAB)

test: ## 모두 설치하고 시험을 모두 돌립니다
	@$(PYTHON) tools/bootstrap.py --extras "lab,test,$(EXTRAS)"
	@$(RUN) tools/check.py

lessons: ## notebooks/text/의 글에서 notebooks/의 레슨을 만들고 실행합니다
	@$(PYTHON) tools/bootstrap.py --extras "lab,test"
	@$(RUN) tools/build_lessons.py $(LESSON)

bench: ## 속도와 튜터의 성적을 잽니다
	@$(PYTHON) tools/bootstrap.py --extras "lab,test"
	@$(RUN) -m pytest -o addopts="" tests/benchmarks -s -q -p no:cacheprovider

clean: ## 설치한 것과 캐시를 지웁니다(work/의 내 파일은 남습니다)
	@if [ -x $(RUN) ]; then $(RUN) -m servinglab.cli clean; fi
	@if [ -d $(VENV) ] || [ -d .build ]; then du -sh $(VENV) .build 2>/dev/null; fi
	@rm -rf $(VENV) .build
	@echo "지웠습니다. make lab 으로 다시 설치합니다. work/ 의 파일은 그대로 있습니다."
