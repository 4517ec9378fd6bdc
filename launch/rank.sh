#!/usr/bin/env bash
# rank.sh COMMAND...: one task of a job step, inside the container if there is one. The site's set-up, torch.distributed's
# variables from SLURM's, then COMMAND in this process's place, so that SLURM's signals reach it.
set -euo pipefail

site_setup() { # a function: its file must not see, or set, the words of COMMAND
  set +eu # module systems use variables that are not set
  # shellcheck source=/dev/null
  source "$SITE_SETUP"
  set -eu
}
[ -z "${SITE_SETUP:-}" ] || site_setup
cd "$WORK_DIR"
ulimit -n "$(ulimit -Hn)" || true # rank 0 holds connections of all ranks; many shells allow 1,024, some sites no more
export PYTHONPATH="$ROOT${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
export PYTHONNOUSERSITE=1 # packages in ~/.local would shadow those of the environment or image
export MPLCONFIGDIR="${MPLCONFIGDIR:-/tmp/matplotlib-$(id -u)}" # in a container there may be no home to write to
# Ranks of several nodes that compile into one home folder find each other's half-written files.
export TRITON_CACHE_DIR="${TRITON_CACHE_DIR:-/tmp/triton-$(id -u)-${SLURM_JOB_ID:-0}}"
# Pyxis and a hook of Enroot set some of these by their own rules where the image has PyTorch.
unset MASTER_ADDR MASTER_PORT WORLD_SIZE RANK LOCAL_RANK
if [ -n "${RENDEZVOUS:-}" ]; then # a rank of train.sh
  export MASTER_ADDR=${RENDEZVOUS%:*} MASTER_PORT=${RENDEZVOUS##*:}
  export WORLD_SIZE=$SLURM_STEP_NUM_TASKS RANK=$SLURM_PROCID LOCAL_RANK=$SLURM_LOCALID
fi
exec "$@"
