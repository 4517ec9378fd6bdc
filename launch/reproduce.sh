#!/usr/bin/env bash
# One size of AgentTuning from raw data to scores: submits data, convert, train, export, serve, evaluate and report as jobs that
# wait for one another.
#   launch/reproduce.sh SIZE [--task "held-in"] [--tasks "PATH ..."] [--evaluate-options "..."] [--baseline]
#                            [--config C.yaml] [--dry-run] [--SECTION.FIELD VALUE ...]
# SIZE: 7b, 13b, 70b; llama31-8b, a newer model; mini, 135M for tests of a cluster. --task: what is played (default: held-in,
# the paper's six). --tasks: where the tasks are, as of launch/evaluate.sbatch (default: the sets shipped with the
# environments); --evaluate-options: further arguments of megatron_agent.evaluate. --baseline plays with the untuned model too.
# Everything that is there already is kept, and training and evaluation resume: after a failure, give the same command again.
set -euo pipefail

LAUNCH=$(dirname "$(realpath "${BASH_SOURCE[0]}")")
# shellcheck source=launch/common.sh
source "$LAUNCH/common.sh"

usage() { sed -n '2,/^set /{s/^# \{0,1\}//;/^set /d;p}' "${BASH_SOURCE[0]}"; }

case ${1:-} in
  7b) CONFIG=agentlm_7b SCRIPT=train_7b HF=Llama-2-7b-chat-hf TEMPLATE=llama-2 ;;
  13b) CONFIG=agentlm_13b SCRIPT=train_13b HF=Llama-2-13b-chat-hf TEMPLATE=llama-2 ;;
  70b) CONFIG=agentlm_70b SCRIPT=train_70b HF=Llama-2-70b-chat-hf TEMPLATE=llama-2 ;;
  llama31-8b) CONFIG=llama31_8b SCRIPT=train_7b HF=Llama-3.1-8B-Instruct TEMPLATE=llama-3 ;;
  mini) CONFIG=mini SCRIPT=train_7b HF=SmolLM2-135M-Instruct TEMPLATE=chatml ;;
  -h | --help) usage && exit ;;
  *) usage >&2 && fail "expected a size (7b, 13b, 70b, llama31-8b, mini) first, got '${1:-}'" ;;
esac
size=$1
shift
read_cluster_env
take_mode "$@"
[ "$MODE" != check ] || fail "--check is submit.sh's own"
CONFIG=$LAUNCH/configs/$CONFIG.yaml TASK=held-in TASKS='' EVALUATE_OPTIONS=''
take_options config task tasks evaluate-options
read -ra task <<<"$TASK"
[ ${#task[@]} -gt 0 ] || fail "--task: expected held-in or names of tasks, got none"
baseline=0 training=()
for word in "${ARGUMENTS[@]}"; do
  case $word in
    --baseline) baseline=1 ;;
    --training.output_dir* | --model.* | --data.agent* | --data.general*)
      fail "${word%%=*}: the steps before and after training need it as well: copy $CONFIG, change it there, and give --config"
      ;;
    *) training+=("$word") ;;
  esac
done
config=$(find_file "$CONFIG") || fail "--config: $CONFIG is not a file"
evaluation_options "${task[@]}" # looks for the files before anything is submitted
model=$MODELS_DIR/$HF
[ -f "$model/config.json" ] || [ "$MODE" = dry-run ] \
  || fail "$model is not a Hugging Face folder: put $HF there, or set MODELS_DIR in $CLUSTER_ENV"

field() { # NAME of a field inside a section of the configuration: its first value
  sed -n "/^#/d; s/^.*[ {]$1: *[\"']\{0,1\}\([^] ,}\"']\{1,\}\).*/\1/p" "$config" | head -n 1
}
checkpoint=$(field checkpoint) run=$(field output_dir) data=$(dirname "$(field prefix)")
[ -n "$checkpoint" ] && [ -n "$run" ] && [ "$data" != . ] \
  || fail "--config: $config: expected model.checkpoint, training.output_dir and the prefix of each data source"
shape=() server=()
[ "$size" != mini ] || shape=(--nodes=1 --ntasks-per-node=1 --gpus-per-node=1)
[ "$size" != 70b ] || server=(--gpus-per-node=4)

submitted=()
cancel_submitted() { # a chain that was refused half-way must not begin
  [ ${#submitted[@]} = 0 ] || { scancel "${submitted[@]}" && say "cancelled what this call had submitted: ${submitted[*]}" >&2; }
}
trap cancel_submitted EXIT

submit() { # NAME AFTER [OPTIONS of sbatch] SCRIPT [ARGUMENTS]: sets JOB; AFTER is a dependency such as afterok:1:2, or nothing
  local name=$1 after=$2 options=(--parsable --job-name="$size-$1")
  shift 2
  # A job whose dependency failed can never start: SLURM then removes it instead of keeping it for ever.
  [ -z "$after" ] || options+=(--dependency="$after" --kill-on-invalid-dep=yes)
  if [ "$MODE" = dry-run ]; then
    JOB=${name^^}
    show_command "$LAUNCH/submit.sh" "${options[@]}" "$@"
  else
    JOB=$("$LAUNCH/submit.sh" "${options[@]}" "$@")
    submitted+=("$JOB")
    printf '  %-10s job %-8s %s\n' "$name" "$JOB" "${after:+after ${after#*:}}"
  fi
}

evaluate() { # NAME MODEL AFTER OUTPUT: serve + evaluate; sets JOB to the evaluation
  local endpoint=$4/endpoint.json serve
  submit "serve-$1" "$3" "${server[@]}" "$LAUNCH/serve.sbatch" --model "$2" --endpoint "$endpoint"
  serve=$JOB
  # shellcheck disable=SC2086 # a list of options
  submit "eval-$1" "after:$serve" "$LAUNCH/evaluate.sbatch" --serve-job "$serve" --endpoint "$endpoint" \
    --task "${task[@]}" ${TASKS:+--tasks "$TASKS"} --output "$(evaluation_folder "$4" "${task[@]}")" $EVALUATE_OPTIONS
}

if [ "$MODE" = run ] && queued=$(squeue --me --noheader --name="$size-train" --format=%A 2>/dev/null) && [ -n "$queued" ]; then
  fail "a chain for $size is queued or running (job $(xargs <<<"$queued")): wait for it, or scancel it first"
fi
printf '%s from %s into %s (site: %s)\n' "$size" "$model" "$(in_work_dir "$run")" "$CLUSTER_ENV"
submit data "" "$LAUNCH/prepare_data.sbatch" --tokenizer "$model" --template "$TEMPLATE" --output-dir "$data"
before_training=afterok:$JOB
if [ -e "$(in_work_dir "$checkpoint")/.verified" ]; then
  printf '  convert    %s is there already\n' "$checkpoint"
else
  submit convert "" "$LAUNCH/convert.sbatch" hf_to_megatron --hf "$model" --output "$checkpoint" --keep yes
  before_training+=:$JOB
fi
submit train "$before_training" "${shape[@]}" "$LAUNCH/$SCRIPT.sbatch" --config "$config" "${training[@]}"
if [ -e "$(in_work_dir "$run")/hf/.verified" ]; then
  printf '  export     %s is there already; remove it to export a run that went on\n' "$run/hf"
else
  submit export "afterok:$JOB" "$LAUNCH/convert.sbatch" megatron_to_hf --megatron "$run/checkpoints" --output "$run/hf" --keep yes
fi
evaluate tuned "$run/hf" "afterok:$JOB" "$run"
evaluations=$JOB folders=("$run")
if [ "$baseline" = 1 ]; then
  evaluate base "$model" "" "$run-base"
  evaluations+=:$JOB folders+=("$run-base")
fi
submit report "afterany:$evaluations" "$LAUNCH/report.sbatch" "${folders[@]}" --output "$run/report"
trap - EXIT
[ "$MODE" = dry-run ] || printf 'logs: %s; progress: squeue --me; at the end: %s\n' "$LOG_DIR" "$(in_work_dir "$run")/report"
