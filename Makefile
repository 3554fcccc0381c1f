# make run    a daemon on http://127.0.0.1:8012 with the CPU engine and the bundled model; ARGS="…" goes to `rockfill serve`
# make test   everything that this machine can check; what it cannot ends as NOT RUN lines; ARGS="…" goes to pytest
# make check  the static part of it: formatting, lints, types, the layer rule, the shape of the tree
# make deb    the Debian packages for amd64 and arm64, in dist/; ARCH=arm64 makes only those
# make repo   a signed apt repository of them, in dist/apt/; KEY=… names the key that signs, URL=… where it will be
# make test-deb   all that can be found out about the packages: `make test` and piuparts, arm64 emulated; half an hour
# make test-deb-vm   the arm64 packages in an emulated arm64 machine with a kernel of its own; half an hour the first time
# make test-arm64   the RKLLM binding's tests on arm64, emulated; ten minutes
# make screenshots   every view at two widths, light and dark, into build/screenshots; three of them are the README's
# make vendor-web   bundles what the page uses of others into web/static/vendor; needs npm, and nobody else does
# make tiny-model TASKS=FILE   trains the bundled model anew (packaging/tiny-model); SMALL=1 tries that out, in minutes
# make format, make bench, make bench-typing, make lock, make clean
#
# PYTHON=python3.12 chooses the interpreter that .venv is made from; otherwise the first one on PATH that is new enough.
.NOTPARALLEL:
.PHONY: deb repo test-deb test-deb-vm help run test test-arm64 check lint debian-packages format bench bench-typing \
  vendor-web screenshots tiny-model tiny-model-install lock clean FORCE

PY := .venv/bin/python
# Empty where .venv is missing, or where an upgrade of the system took its interpreter away: then it is made (again).
REMAKE := $(if $(realpath $(PY)),,FORCE)
SETUP := packaging/bootstrap.py packaging/requirements-build.lock packaging/requirements.lock
STATIC_TESTS := tests/packaging/test_layers.py tests/packaging/test_tree.py

define bootstrap
@for python in $(or $(PYTHON),python3 python3.14 python3.13 python3.12 python3.11); do \
  if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; \
  then exec "$$python" packaging/bootstrap.py $(1); fi; \
done; \
echo "Rockfill needs Python 3.11 or newer; $(or $(PYTHON),python3) is $$($(or $(PYTHON),python3) --version 2>&1)." >&2; exit 1
endef

help:
	@sed -n '/^#/!q; s/^# \{0,1\}//p' Makefile

run: .venv/ready-to-run
	@exec $(PY) -m rockfill serve $(ARGS)

test: .venv/ready-to-test debian-packages lint
	@$(PY) -m pytest --not-run-file=build/not-run $(ARGS)

repo: deb
	@$(PY) packaging/apt_repository.py

deb: .venv/ready-to-run
	@$(PY) packaging/debian_build.py build $(ARCH)

test-deb: .venv/ready-to-test debian-packages
	@$(PY) -m pytest tests/packaging/test_packages.py tests/packaging/test_installed.py tests/packaging/on_noble.py \
	  tests/packaging/with_piuparts.py tests/packaging/under_qemu.py $(ARGS)

test-deb-vm: .venv/ready-to-test debian-packages
	@$(PY) -m pytest tests/packaging/in_a_vm.py $(ARGS)

test-arm64: .venv/ready-to-test
	@$(PY) -m pytest --capture=no tests/arm64/under_qemu.py $(ARGS)

check: lint
	@$(PY) -m pytest --quiet $(STATIC_TESTS)

lint: .venv/ready-to-test
	@$(PY) -m ruff check
	@$(PY) -m ruff format --check
	@$(PY) -m mypy

debian-packages: .venv/ready-to-test
	@$(PY) packaging/bootstrap.py debian-packages

format: .venv/ready-to-test
	@$(PY) -m ruff check --fix
	@$(PY) -m ruff format

bench: .venv/ready-to-test
	@$(PY) -m tests.bench $(ARGS)

bench-typing: .venv/ready-to-test
	@$(PY) -m tests.bench.typing $(ARGS)

screenshots: .venv/ready-to-test debian-packages
	@$(PY) -m tests.browser.screenshots

vendor-web:
	@mkdir -p build/vendor && cp packaging/vendor/package.json packaging/vendor/package-lock.json build/vendor/
	@cd build/vendor && npm ci --silent --ignore-scripts --no-audit --no-fund
	@cd build/vendor && node "$(CURDIR)/packaging/vendor/vendor.mjs" "$(CURDIR)/packaging/vendor" "$(CURDIR)/web/static/vendor"

tiny-model tiny-model-install: .venv/ready-to-run
	@$(MAKE) --directory packaging/tiny-model $(if $(TASKS),TASKS="$(abspath $(TASKS))") $(if $(findstring install,$@),install,all)

.venv/ready-to-run: $(SETUP) $(REMAKE)
	$(call bootstrap,run)

.venv/ready-to-test: $(SETUP) packaging/requirements-dev.lock $(REMAKE)
	$(call bootstrap,test)

# uv does not read pip's configuration; UV_DEFAULT_INDEX and its like name another index. No address gets into the locks.
COMPILE = build/uv/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
  --no-emit-index-url --no-emit-find-links $(if $(UPGRADE),--upgrade) --output-file
lock: build/uv/bin/uv
	@$(COMPILE) packaging/requirements-build.lock --group build
	@$(COMPILE) packaging/requirements.lock --extra cpu pyproject.toml
	@$(COMPILE) packaging/requirements-dev.lock --group dev --constraint packaging/requirements.lock \
	  $$(sed -n 's/^\([a-z0-9.-]*\)==.*/--no-emit-package \1/p' packaging/requirements.lock)

build/uv/bin/uv:
	@$(or $(PYTHON),python3) -m venv build/uv
	@build/uv/bin/pip install --quiet uv

clean:
	rm -rf .venv .cache build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
