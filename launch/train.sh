# Sourced by the training scripts: preflight, training, and what follows from its exit status.
# shellcheck shell=bash

EXIT_REQUEUE=85 # megatron_agent/training/signals.py: told to stop, a checkpoint is written, steps are left
EXIT_HANG=86    # megatron_agent/training/watchdog.py

train() { # DEFAULT_CONFIG, after take_mode: one whole job. ARGUMENTS: [--config C.yaml] [--SECTION.FIELD VALUE ...]
  local config=$1
  CONFIG=''
  take_options config
  config=${CONFIG:-$config}
  CONFIG=$(find_file "$config") || fail "--config: $config is not a file, seen from ${SLURM_SUBMIT_DIR:-$PWD}, $ROOT or $WORK_DIR"
  TRAINING=(--config "$CONFIG" "${ARGUMENTS[@]}")
  mount_folder_of "$CONFIG"
  job_shape
  rendezvous
  communication_settings
  [ "$MODE" != run ] || RANK_LOGS=$LOG_DIR/${SLURM_JOB_NAME:-}-$(job_number)/attempt_${SLURM_RESTART_COUNT:-0}
  task_commands
  case $MODE in
    check) check_layout || exit ;;
    dry-run) show_plan || exit ;;
  esac
  [ "$MODE" = run ] || return 0
  [ -n "${SLURM_JOB_ID:-}" ] || fail "this is a batch script: submit it with launch/submit.sh $SCRIPT, or with sbatch;" \
    "--dry-run shows what it would do"
  mkdir -p "$RANK_LOGS"
  [ "${SLURM_RESTART_COUNT:-0}" = 0 ] || remove_left_containers
  say "job $(job_number), start $((${SLURM_RESTART_COUNT:-0} + 1)): $NODES nodes, $WORLD_SIZE ranks, rendezvous" \
    "$RENDEZVOUS, logs of ranks in $RANK_LOGS"
  run_preflight && run_ranks
}

job_shape() { # NODES, TASKS_PER_NODE, WORLD_SIZE: of the allocation, else as this script asks for
  if [ -n "${SLURM_JOB_ID:-}" ]; then
    NODES=$SLURM_JOB_NUM_NODES
    TASKS_PER_NODE=${SLURM_NTASKS_PER_NODE:-$((${SLURM_NTASKS:-0} / NODES))}
    [ "$TASKS_PER_NODE" -gt 0 ] || fail "--ntasks-per-node: expected the number of ranks on each node, got no number of tasks"
  fi
  NODES=${NODES:-$(directive nodes)} TASKS_PER_NODE=${TASKS_PER_NODE:-$(directive ntasks-per-node)}
  WORLD_SIZE=$((NODES * TASKS_PER_NODE))
}

rendezvous() { # RENDEZVOUS=ADDRESS:PORT: the first node, as SLURM names it; from the job's number, below the ephemeral ports
  RENDEZVOUS='first-node:10000'
  if [ -n "${SLURM_JOB_ID:-}" ]; then
    local hosts
    hosts=$(scontrol show hostnames "$SLURM_JOB_NODELIST") || fail "scontrol cannot name the nodes of $SLURM_JOB_NODELIST"
    RENDEZVOUS=${hosts%%$'\n'*}${MASTER_ADDR_SUFFIX:-}:$((10000 + SLURM_JOB_ID % 20000))
  fi
  export RENDEZVOUS
}

communication_settings() { # what NCCL, gloo and CUDA need; a variable that is set already stays
  export NCCL_DEBUG=${NCCL_DEBUG:-WARN} # says which peer and which network failed; silent otherwise
  # Tensor parallelism: kernels start in the order they were issued, so communication begins before the matrix product
  # that it should overlap with.
  export CUDA_DEVICE_MAX_CONNECTIONS=${CUDA_DEVICE_MAX_CONNECTIONS:-1}
  if [ "$NODES" -gt 1 ]; then
    # Pipeline stages send whole activations between nodes: larger pieces keep the network busy (NCCL's default: 128 KiB).
    export NCCL_P2P_NET_CHUNKSIZE=${NCCL_P2P_NET_CHUNKSIZE:-2097152}
  fi
  if [ -n "${NETWORK_INTERFACE:-}" ]; then
    export NCCL_SOCKET_IFNAME=$NETWORK_INTERFACE GLOO_SOCKET_IFNAME=$NETWORK_INTERFACE
  fi
}

task_commands() { # PREFLIGHT_COMMAND and TRAIN_COMMAND: one task a rank, all CPUs of a node divided between its tasks
  local cpus=$((${SLURM_CPUS_ON_NODE:-$TASKS_PER_NODE} / TASKS_PER_NODE)) step preflight
  cpus=$((cpus > 0 ? cpus : 1))
  export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$((cpus > 8 ? 8 : cpus))}
  container_options "${CONTAINER_IMAGE:-}"
  # A node's GPUs stay visible to all its tasks (NCCL's direct transfers need that); LOCAL_RANK picks one.
  step=(srun --nodes="$NODES" --ntasks="$WORLD_SIZE" --ntasks-per-node="$TASKS_PER_NODE" --cpus-per-task="$cpus")
  [ "$DEVICE" = cpu ] || step+=(--gpu-bind=none)
  step+=("${SRUN_CONTAINER[@]}")
  preflight=(-m megatron_agent.preflight "${TRAINING[@]}" --device "$DEVICE" --timeout "$PREFLIGHT_TIMEOUT")
  [ -z "${MIN_FREE_GB:-}" ] || preflight+=(--min-free-gb "$MIN_FREE_GB")
  # No --kill-on-bad-exit: each rank of a failed preflight ends by itself, and SLURM would end them before they had spoken.
  PREFLIGHT_COMMAND=("${step[@]}" --wait=60 "${IN_CONTAINER[@]}" bash "$LAUNCH/rank.sh" "$PYTHON" "${preflight[@]}")
  TRAIN_COMMAND=("${step[@]}" --kill-on-bad-exit=1 --output="${RANK_LOGS:-$LOG_DIR/JOB/attempt_0}/rank_%t.log"
    "${IN_CONTAINER[@]}" bash "$LAUNCH/rank.sh" "$PYTHON" -m megatron_agent.train "${TRAINING[@]}")
}

remove_left_containers() { # unpacked images of this job's ended steps: SLURM kills a step even while Pyxis removes its container
  # They fill the nodes' disks; and a requeued job counts its steps from 0 again, so that Pyxis, which names containers by
  # job and step, would find "File already exists". It heeds the site's ENROOT_ variables, not the user's.
  [ "$CONTAINER_RUNTIME" = pyxis ] || return 0
  # shellcheck disable=SC2016 # expanded on the nodes
  srun --nodes="$NODES" --ntasks="$NODES" --ntasks-per-node=1 \
    env -u ENROOT_DATA_PATH -u ENROOT_CACHE_PATH -u ENROOT_TEMP_PATH -u ENROOT_RUNTIME_PATH bash -euo pipefail -c '
      for name in $(enroot list); do
        [[ $name != pyxis_"$SLURM_JOB_ID"[._]* ]] || enroot remove --force "$name"
      done' </dev/null || say "containers that an earlier start left may be in the way (message above)"
}

run_preflight() { # checks the nodes; a signal meanwhile is treated as in training
  local status=0 messages=$RANK_LOGS/preflight.log
  "${PREFLIGHT_COMMAND[@]}" 2>"$messages" || status=$?
  cat "$messages" # after the verdict, which ranks that were cut off may lack
  [ "$status" != 0 ] || return 0
  if told_to_stop "$messages"; then
    requeue || return 1
  fi
  say "preflight failed (lines above): training was not started"
  return 1
}

run_ranks() { # trains; rank 0's log and srun's messages are shown here; returns the exit status of the job
  local status=0 messages=$RANK_LOGS/srun.log
  : >"$RANK_LOGS/rank_0.log"
  "${TRAIN_COMMAND[@]}" 2>"$messages" &
  local srun_id=$!
  tail -q -n +1 -F --pid="$srun_id" "$RANK_LOGS/rank_0.log" "$messages" 2>/dev/null &
  local tail_id=$!
  wait "$srun_id" || status=$?
  wait "$tail_id" || true
  if [ "$status" = 0 ] && grep -q -E 'Node failure|Job step aborted' "$messages"; then
    status=1 # srun of some versions returns 0 when a node is lost
  fi
  if [ "$status" = 0 ]; then
    say "training is complete"
  elif told_to_stop "$messages"; then
    requeue || return 1
  else
    remove_left_containers
    explain_failure "$status" "$messages"
  fi
  return "$status"
}

failures() { # SRUN_MESSAGES: a line for each failure of tasks, in order, up to where SLURM itself began to end the step
  sed '/Terminating \(StepId\|job step\)/q' "$1" | grep -E '^srun: error: [^ ]+: tasks? [0-9,-]+: ' || true
}

told_to_stop() { # SRUN_MESSAGES: whether the ranks ended as a run that should be started again
  # After the first rank has left, SLURM ends the others, which are then "Terminated", or "Killed" when they are slow: what
  # counts is who left before. A signal that came before the ranks had joined leaves them "Terminated" without that.
  failures "$1" | grep -q . || return 1
  ! failures "$1" | grep -q -v -E ": (Exited with exit code $EXIT_REQUEUE|Terminated)$"
}

requeue() { # puts this job back into the queue, at most MAX_REQUEUES times; it then resumes from its checkpoint
  local restarts=${SLURM_RESTART_COUNT:-0}
  if [ "$restarts" -ge "$MAX_REQUEUES" ]; then
    say "told to stop, and requeued $restarts times before: MAX_REQUEUES in $CLUSTER_ENV is reached;" \
      "the same command resumes from the checkpoint"
    return 1
  fi
  say "told to stop: requeue $((restarts + 1)) of at most $MAX_REQUEUES"
  if ! scontrol requeue "$(job_number)"; then
    say "SLURM did not requeue this job (message above): submit the same command again, it resumes from the checkpoint"
    return 1
  fi
  sleep 60 # SLURM ends this script now
}

explain_failure() { # STATUS SRUN_MESSAGES: says last which rank of which node failed first, and how its log ends
  local status=$1 messages=$2 node tasks reason rank first container
  # Ranks that lose a peer end with status 1 soon after it: another ending is likelier to be the cause.
  first=$(failures "$messages" | grep -m 1 -v -E ': (Exited with exit code 1|Terminated)$' || failures "$messages" | head -n 1)
  if [[ $first =~ ^srun:\ error:\ ([^ ]+):\ tasks?\ ([0-9,-]+):\ (.*)$ ]]; then
    node=${BASH_REMATCH[1]} tasks=${BASH_REMATCH[2]} reason=${BASH_REMATCH[3]}
    rank=${tasks%%[,-]*}
    # One task of a node starts Pyxis's container; the others only say that it did not.
    container=$(grep -l -s "^slurmstepd-$node: error: pyxis: printing enroot log file" "$RANK_LOGS"/rank_*.log | head -n 1) || true
    if [[ $container =~ rank_([0-9]+)\.log$ ]]; then
      rank=${BASH_REMATCH[1]} reason="the container did not start"
    fi
    say "the end of rank $rank's log, $RANK_LOGS/rank_$rank.log:"
    tail -n 15 "$RANK_LOGS/rank_$rank.log" 2>/dev/null | sed 's/^/  | /' || true
    say "training failed with status $status: first failure on $node, rank $tasks: $reason"
  else
    say "training failed with status $status; srun's messages are above, logs of ranks in $RANK_LOGS"
  fi
  [ "$status" != "$EXIT_HANG" ] || say "a hang: stacks of all ranks are in stacks/ of the run's folder; not requeued, since it may come back"
}

show_plan() { # --dry-run: commands, resolved configuration, plan
  printf 'site: %s (container: %s, device: %s, folder: %s)\n' "$CLUSTER_ENV" "$CONTAINER_RUNTIME" "$DEVICE" "$WORK_DIR"
  printf '%s nodes x %s tasks = %s ranks\n\npreflight:\n' "$NODES" "$TASKS_PER_NODE" "$WORLD_SIZE"
  show_command "${PREFLIGHT_COMMAND[@]}"
  printf '\ntraining:\n'
  show_command "${TRAIN_COMMAND[@]}"
  printf '\nconfiguration:\n'
  if ! has_login_python; then
    printf '(not here: %s does not run on this machine; preflight checks configuration and layout in the job)\n' "$CONTAINER_RUNTIME"
    return
  fi
  login_python -m megatron_agent.train "${TRAINING[@]}" --print_config || return
  printf '\n'
  login_python -m megatron_agent.plan "${TRAINING[@]}" --world-size "$WORLD_SIZE"
}

check_layout() { # before an allocation: refuses a configuration that does not fit the ranks that are asked for
  has_login_python || return 0 # preflight does it in the job
  login_python -m megatron_agent.preflight "${TRAINING[@]}" --device "$DEVICE" --world-size "$WORLD_SIZE"
}
