#!/usr/bin/env bash
# sbatch with the options of launch/cluster.env, after the checks that need no allocation:
#   launch/submit.sh [options of sbatch] launch/NAME.sbatch [arguments of the script]
#   launch/submit.sh launch/train_7b.sbatch --dry-run          shows commands, configuration and plan; submits nothing
#   launch/submit.sh --nodes=8 launch/train_70b.sbatch --training.train_iters 500
# Refused here: what cluster.env says wrongly, a partition, account or number of GPUs that the cluster does not have, and for
# training a configuration that does not fit the layout or a run folder that cannot be written. With --parsable only the
# job's number goes to the standard output, as with sbatch.
set -euo pipefail

LAUNCH=$(dirname "$(realpath "${BASH_SOURCE[0]}")")
# shellcheck source=launch/common.sh
source "$LAUNCH/common.sh"

usage() {
  sed -n '2,/^set /{s/^# \{0,1\}//;/^set /d;p}' "${BASH_SOURCE[0]}"
  printf '\nscripts:\n'
  local script
  for script in "$LAUNCH"/*.sbatch; do printf '  launch/%-22s %s\n' "$(basename "$script")" "$(sed -n '2s/^# //p' "$script")"; done
}

options=() arguments=() SCRIPT=
while [ $# -gt 0 ]; do
  case $1 in
    -h | --help) usage && exit ;;
    *.sbatch)
      SCRIPT=$1
      shift
      arguments=("$@")
      break
      ;;
    *) options+=("$1") ;;
  esac
  shift
done
[ -n "$SCRIPT" ] || { usage >&2 && fail "which script? expected one of $(cd "$LAUNCH" && echo *.sbatch) among the arguments"; }
[ -f "$SCRIPT" ] || fail "$SCRIPT is not there; the scripts are in $LAUNCH"
SCRIPT=$(realpath "$SCRIPT")
read_cluster_env
export CLUSTER_ENV AGENTLM_LAUNCH=$LAUNCH

if [ -n "${SLURM_JOB_ID:-}" ]; then # from inside a job: what that one was given would be taken for this one's
  for name in ${!SLURM_@}; do
    case $name in SLURM_CONF | SLURM_CONF_SERVER | SLURM_JWT | SLURM_CLUSTERS) ;; *) unset "$name" ;; esac
  done
fi

option_value() { # NAME [LETTER]: the value of an option given to this command, or nothing
  local i word value=
  for ((i = 0; i < ${#options[@]}; i++)); do
    word=${options[i]}
    case $word in
      "--$1="*) value=${word#*=} ;;
      "--$1" | "-${2:-none}") value=${options[i + 1]:-} ;;
      "-${2:-none}"*) value=${word#-?} ;;
    esac
  done
  printf '%s' "$value"
}

# Ranks are counted as nodes x tasks per node.
for word in "${options[@]}"; do
  case $word in
    --ntasks | --ntasks=* | -n | -n[0-9]*) fail "$word: say --ntasks-per-node=N, the ranks on each node" ;;
    --gpus | --gpus=* | -G | -G[0-9]*) fail "$word: say --gpus-per-node=N" ;;
  esac
done
[[ $(option_value nodes N) != *-* ]] || fail "--nodes=$(option_value nodes N): expected one number, not a range"
export_list=$(option_value export)
[[ ,${export_list:-ALL}, == *,ALL,* ]] || fail "--export=$export_list: the job needs your variables, CLUSTER_ENV among them: say --export=ALL,..."

# A job that only needs a CPU, or a cluster without GPUs, asks for none.
gpus=$(option_value gpus-per-node)
gpus=${gpus:-$(directive gpus-per-node)}
site=()
[ -z "$ACCOUNT" ] || site+=(--account="$ACCOUNT")
[ -n "$gpus" ] || PARTITION=${CPU_PARTITION:-$PARTITION}
[ -z "$PARTITION" ] || site+=(--partition="$PARTITION")
[ -z "$QOS" ] || site+=(--qos="$QOS")
if [ -n "$GPU_TYPE" ] && [ -n "$gpus" ] && [ "$DEVICE" = cuda ]; then
  options+=(--gpus-per-node="$GPU_TYPE:${gpus#*:}")
elif [ "$DEVICE" = cpu ] && [ -n "$gpus" ]; then
  options+=(--gpus-per-node=0)
  gpus=0
fi
[ -n "$export_list" ] || site+=(--export=ALL) # some sites' default is NONE
site+=(--output="$LOG_DIR/$(directive output)")
# shellcheck disable=SC2206 # a list of options
[ -z "$SBATCH_OPTIONS" ] || site+=($SBATCH_OPTIONS)

check_with_slurm() { # asks SLURM whether the job could ever start, and says what to change when it could not
  local answer hint word shape=()
  for word in "${options[@]}"; do # a job that waits for others is not refused for that
    [[ $word == --dependency=* || $word == --kill-on-invalid-dep=* ]] || shape+=("$word")
  done
  command -v sbatch >/dev/null || fail "sbatch is not on this machine: submit from a login node of the cluster"
  answer=$(sbatch --test-only "${site[@]}" "${shape[@]}" "$SCRIPT" "${arguments[@]}" 2>&1) && return
  case $answer in
    *"nvalid partition"*) hint="PARTITION is '$PARTITION'; this cluster has: $(sinfo --noheader --format=%P | tr -d '*' | xargs || true)" ;;
    *"nvalid account"* | *"account/partition"*) hint="ACCOUNT is '$ACCOUNT'; yours: $(sacctmgr --noheader --parsable2 show associations user="$(id -un)" format=account 2>/dev/null | sort -u | xargs || true)" ;;
    *"nvalid qos"*) hint="QOS is '$QOS'" ;;
    *"configuration is not available"* | *"Node count specification invalid"* | *"nvalid generic resource"*)
      hint="$(directive_or_option nodes N) nodes with ${gpus:-no} GPUs and $(directive_or_option ntasks-per-node) tasks each were asked for; the cluster has (nodes x GPUs): $(sinfo --noheader --format='%P %D x %G' | xargs || true); --nodes, --ntasks-per-node, --gpus-per-node and GPU_TYPE change it"
      ;;
    *) hint="see SBATCH_OPTIONS and the options of this command" ;;
  esac
  fail "SLURM refuses the job: $(tail -n 1 <<<"${answer#*error: }"). In $CLUSTER_ENV: $hint"
}

directive_or_option() { # NAME [LETTER]
  local value
  value=$(option_value "$@")
  printf '%s' "${value:-$(directive "$1")}"
}

NODES=$(directive_or_option nodes N) TASKS_PER_NODE=$(directive_or_option ntasks-per-node)
ARRAY=$(option_value array a)
export NODES TASKS_PER_NODE ARRAY
for word in "${arguments[@]}"; do
  if [ "$word" = --dry-run ]; then
    printf 'submission:\n'
    show_command sbatch "${site[@]}" "${options[@]}" "$SCRIPT" "${arguments[@]}" | sed 's/ --dry-run//'
    printf '\n'
    check_with_slurm
    bash "$SCRIPT" "${arguments[@]}"
    exit
  fi
done
check_with_slurm
# What waits for other jobs finds its inputs when they are done: preflight looks then.
[ -n "$(option_value dependency d)" ] || bash "$SCRIPT" "${arguments[@]}" --check >&2
env -u NODES -u TASKS_PER_NODE -u ARRAY sbatch "${site[@]}" "${options[@]}" "$SCRIPT" "${arguments[@]}"
