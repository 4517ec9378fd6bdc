#!/usr/bin/env bash
# Builds the Dockerfile for real without a container engine or a registry, and checks what came out.
#
#   tests/image/build.sh            both stages (root, on Debian or Ubuntu, with the packages buildah and debootstrap)
#   tests/image/build.sh cpu        the CPU stage, then `make test-quick` inside
#   tests/image/build.sh gpu        the GPU stage's layers, over a stand-in
#
# buildah cannot pull a base here, so each is made from Debian packages and tagged with the base's name: the build that
# follows is the Dockerfile's own, unedited. The stand-in for NVIDIA's image has a torch and numpy of its own (CPU
# wheels) and NVIDIA's pip settings, but no Transformer Engine, flash-attention, apex or GPU: the doctor, asked for an
# image for GPUs, must refuse it, and passes when asked for the CPU.
#
# SCRATCH: folder for rootfs and layers (some 20 GB), removed at the end unless KEEP=1; default: a new one in TMPDIR.
# MIRROR: Debian mirror. pip's settings of this machine (pip config list) hold inside, local folders and all.
set -euo pipefail
cd "$(dirname "$0")/../.."
what="${1:-all}"
: "${MIRROR:=http://deb.debian.org/debian}"

fail() { echo "error: $*" >&2; exit 1; }
note() { printf '== %s (%d s)\n' "$*" "$SECONDS"; }

case "$what" in all | cpu | gpu) ;; *) fail "all, cpu or gpu expected, got $what" ;; esac
[ "$(id -u)" = 0 ] || fail "root expected (debootstrap, chroot), got uid $(id -u); run it with sudo"
for tool in buildah debootstrap; do
  command -v "$tool" >/dev/null || fail "no $tool here; run: apt-get install buildah debootstrap"
done

scratch="${SCRATCH:-$(mktemp -d)}"
mkdir -p "$scratch"
clean_up() {
  image_tool rm --all >/dev/null 2>&1 || true
  [ "${KEEP:-}" = 1 ] || rm -rf "$scratch"
}
trap clean_up EXIT

# Overlay where the kernel allows it, with every step kept as a layer; vfs would copy each layer whole.
driver=vfs layers=false
if buildah --storage-driver=overlay --root "$scratch/probe" --runroot "$scratch/probe-run" info >/dev/null 2>&1; then
  driver=overlay layers=true
fi
rm -rf "$scratch/probe" "$scratch/probe-run"
image_tool() { buildah --storage-driver="$driver" --root "$scratch/storage" --runroot "$scratch/run" "$@"; }
note "storage driver $driver in $scratch"

# ------------------------------------------------------------------------------------- pip's settings of this machine
settings="$scratch/settings"
mkdir -p "$settings"
volumes=(--volume "$settings/pip.conf:/etc/pip.conf:ro")
python3 - "$settings" >"$settings/folders" <<'PYTHON'
"""Write pip.conf with what `pip config list` says, environment and files together; print the paths it names."""
import ast
import re
import subprocess
import sys
from pathlib import Path

listed = subprocess.run([sys.executable, "-m", "pip", "config", "list"], check=True, capture_output=True, text=True)
options: dict[str, str] = {}
for line in sorted(listed.stdout.splitlines(), key=lambda text: text.startswith(":env:")):  # the environment goes last
    name, _, value = line.partition("=")
    options[name.rpartition(".")[2]] = ast.literal_eval(value)
if "cert" in options:  # the base's own package manages its folder: put the file beside it
    options["cert"] = "/etc/pip-certificates.crt"
Path(sys.argv[1], "pip.conf").write_text("[global]\n" + "".join(f"{k} = {v}\n" for k, v in options.items()))
words = [re.sub("^file://", "", word) for key, value in options.items() if key != "cert" for word in value.split()]
paths = [Path(word) for word in words if word.startswith("/") and Path(word).exists()]
paths = [path.parent if path.name == "simple" else path for path in paths]  # an index has its files beside it
print(*sorted({str(path) for path in paths}), sep="\n")
PYTHON
while read -r path; do [ -z "$path" ] || volumes+=(--volume "$path:$path:ro"); done <"$settings/folders"
certificates="$(python3 -m pip config get global.cert 2>/dev/null || echo "${PIP_CERT:-}")"
[ -z "$certificates" ] || volumes+=(--volume "$certificates:/etc/pip-certificates.crt:ro")

# --------------------------------------------------------------------------------------------------------------- bases
# argument_of NAME: the default of a build argument in the Dockerfile.
argument_of() { sed -n "s/^ARG $1=//p" Dockerfile | head -1; }

make_root() {
  [ -x "$scratch/root/usr/bin/python3" ] && return
  debootstrap --variant=minbase --include=ca-certificates,python3,python3-pip,python3-venv bookworm \
    "$scratch/root" "$MIRROR" >"$scratch/debootstrap.log" || { tail -5 "$scratch/debootstrap.log" >&2; return 1; }
  ln -s python3 "$scratch/root/usr/bin/python"
  cp "$scratch/root/etc/resolv.conf" "$scratch/resolv.conf"
  note "Debian bookworm with $("$scratch/root/usr/bin/python3" --version 2>/dev/null || echo Python)"
}

make_python_base() { # like Docker's python image: its interpreter is in /usr/local and pip may write there
  local container
  container="$(image_tool from scratch)"
  image_tool add --quiet "$container" "$scratch/root" / >/dev/null
  image_tool run --isolation=chroot "$container" -- bash -ec '
    rm /usr/lib/python3*/EXTERNALLY-MANAGED
    for name in python python3 pip; do ln -s "/usr/bin/$name" /usr/local/bin/; done'
  image_tool config --cmd python3 "$container"
  image_tool commit --quiet --rm "$container" "docker.io/library/python:$(argument_of PYTHON_TAG)" >/dev/null
}

make_nvidia_base() { # like NVIDIA's: Python of the system, torch in it, pip under a constraint, a user with uid 1000
  local container
  container="$(image_tool from "${volumes[@]}" scratch)"
  image_tool add --quiet "$container" "$scratch/root" / >/dev/null
  image_tool run --isolation=chroot "${volumes[@]}" "$container" -- bash -ec '
    useradd --uid 1000 --create-home ubuntu
    pip install --quiet --no-cache-dir --break-system-packages --root-user-action=ignore "torch==2.13.0" numpy
    install -d /etc/pip /opt/nvidia
    pip list --format=freeze > /etc/pip/constraint.txt
    printf "#!/bin/bash\nexec \"\$@\"\n" > /opt/nvidia/nvidia_entrypoint.sh
    chmod +x /opt/nvidia/nvidia_entrypoint.sh'
  image_tool config --env PIP_CONSTRAINT=/etc/pip/constraint.txt --workingdir /workspace \
    --entrypoint '["/opt/nvidia/nvidia_entrypoint.sh"]' "$container"
  image_tool commit --quiet --rm "$container" "nvcr.io/nvidia/pytorch:$(argument_of BASE_TAG)" >/dev/null
}

# -------------------------------------------------------------------------------------------------------------- checks
# A digest cannot be had for a base made here, hence the empty arguments. Docker's format keeps HEALTHCHECK.
build() { # build STAGE TAG [OPTION...]
  local stage="$1" tag="$2"
  shift 2
  image_tool bud --isolation=chroot --format=docker --pull-never --layers="$layers" "${volumes[@]}" --target "$stage" \
    --build-arg PYTHON_DIGEST= --build-arg BASE_DIGEST= --build-arg REVISION=test --tag "$tag" "$@"
}

# inside CONTAINER COMMAND...: what it prints, as the image's user, or as the one in `as`.
inside() { image_tool run --isolation=chroot --user "${as:-}" "${volumes[@]}" "$1" -- "${@:2}"; }

expect() { # expect WHAT WANTED GOT
  [ "$2" = "$3" ] || fail "$1: $2 expected, got $3"
  echo "   $1: $3"
}

check_common() { # check_common CONTAINER IMAGE
  expect "user" 1000 "$(inside "$1" id -u)"
  expect "health check" "megatron_agent.doctor" \
    "$(image_tool inspect --format '{{.Docker.Config.Healthcheck}}' "$2" | grep -o 'megatron_agent.doctor')"
  expect "revision label" test "$(image_tool inspect --format \
    '{{index .Docker.Config.Labels "org.opencontainers.image.revision"}}' "$2")"
  inside "$1" python -m megatron_agent.doctor --quiet || fail "the health check fails in $2"
  # As under Pyxis, Apptainer or docker run --user: a uid nobody in the image has.
  as=23456:23456 inside "$1" bash -ec 'touch home-can-be-written ~/so-can-this; python -c "
import getpass, os, megatron_agent.train
print(\"   training imports as uid\", os.getuid(), getpass.getuser())"'
}

check_cpu() {
  make_python_base
  build cpu agentlm-megatron:cpu
  note "CPU stage built"
  local container
  container="$(image_tool from agentlm-megatron:cpu)"
  check_common "$container" agentlm-megatron:cpu
  inside "$container" rm home-can-be-written
  expect "top folder" ".ci .dockerignore .gitignore .venv Dockerfile Makefile README.md agentlm_megatron.egg-info \
checkpoints_convert data_prep docs launch megatron_agent pyproject.toml setup.py tests" \
    "$(inside "$container" bash -c 'LC_ALL=C; export LC_ALL; echo .[!.]* *')"
  inside "$container" make test-quick
  note "make test-quick passed inside the CPU stage"
}

check_torch_is_kept() { # a project that wants another torch: pip must give up, not replace the image's
  mkdir -p "$scratch/context"
  cp -r Dockerfile .dockerignore pyproject.toml "$scratch/context"
  sed 's/"torch>=2.6"/"torch!=2.13.0"/' setup.py >"$scratch/context/setup.py"
  ! cmp -s setup.py "$scratch/context/setup.py" || fail "setup.py asks for torch in another way than this check expects"
  if build gpu agentlm-megatron:replaced "$scratch/context" >"$scratch/replaced.log" 2>&1; then
    fail "the build replaced the base image's torch"
  fi
  grep -m 1 "ResolutionImpossible" "$scratch/replaced.log" \
    || { tail -20 "$scratch/replaced.log" >&2; fail "the build ended for another reason than torch"; }
  note "pip refused to replace the base image's torch"
}

check_gpu() {
  make_nvidia_base
  note "stand-in for NVIDIA's image made"
  if build gpu agentlm-megatron:refused >"$scratch/refused.log" 2>&1; then
    fail "an image without Transformer Engine was built: the doctor should have refused it"
  fi
  grep "doctor: NOT usable: transformer-engine: not installed" "$scratch/refused.log" \
    || { tail -20 "$scratch/refused.log" >&2; fail "the build ended before the doctor's verdict"; }
  note "GPU stage without Transformer Engine refused by the doctor"
  build gpu agentlm-megatron:gpu --build-arg DOCTOR_EXPECT=cpu
  note "GPU stage built"
  local container
  container="$(image_tool from agentlm-megatron:gpu)"
  check_common "$container" agentlm-megatron:gpu
  expect "torch" 2.13.0+cpu "$(inside "$container" python -c 'import torch; print(torch.__version__)')"
  expect "compiled packages that changed" "" \
    "$(inside "$container" bash -c 'cd /opt/agentlm-megatron; grep -vxF -f packages.txt compiled.txt || true')"
  # A checkout mounted elsewhere: its code with the image's libraries.
  as=23456:23456 inside "$container" bash -ec 'mkdir -p /tmp/checkout/megatron_agent
    echo "print(\"   the checkout in PYTHONPATH comes first\")" > /tmp/checkout/megatron_agent/__init__.py
    PYTHONPATH=/tmp/checkout python -c "import megatron_agent"'
  check_torch_is_kept
}

make_root
[ "$what" = gpu ] || check_cpu
[ "$what" = cpu ] || check_gpu
note "all passed"
