# Sourced by the scripts that serve a model: start an OpenAI-compatible server in this job, and write where it is.
# shellcheck shell=bash

START_SECONDS=1800 # 70B weights from a slow file system take that long

server_command() { # MODEL [OPTIONS]: SERVER_COMMAND, on a port from the job's number, on SERVER_GPUS (default: the job's) GPUs
  local model=$1 gpus=${SERVER_GPUS:-${SLURM_GPUS_ON_NODE:-1}}
  shift
  model=$(in_work_dir "$model")
  mount_folder_of "$model/config.json"
  [ -f "$model/config.json" ] || [ "$MODE" != run ] || fail "--model: $model has no config.json; expected a Hugging Face folder"
  MODEL_FOLDER=$model SERVED_MODEL=$(basename "${model%/hf}") SERVER_PORT=$((30000 + ${SLURM_JOB_ID:-0} % 2000))
  local address=(--port "$SERVER_PORT")
  case $SERVER in
    vllm) set -- vllm serve "$model" --served-model-name "$SERVED_MODEL" --host 0.0.0.0 "${address[@]}" \
      --tensor-parallel-size "$gpus" "$@" ;;
    tgi) set -- text-generation-launcher --model-id "$model" --hostname 0.0.0.0 "${address[@]}" --num-shard "$gpus" "$@" ;;
    transformers)
      SERVED_MODEL=$model # the only name it knows
      set -- "$PYTHON" -m transformers.cli.transformers serve "$model" --host 0.0.0.0 "${address[@]}" "$@"
      [ "$DEVICE" = cuda ] || set -- "$@" --device cpu
      ;;
  esac
  container_options "${SERVER_IMAGE:-${CONTAINER_IMAGE:-}}"
  [ "$CONTAINER_RUNTIME" != none ] || has_command "$1" || [ "$MODE" != run ] \
    || fail "$CLUSTER_ENV: SERVER=$SERVER, but $1 is not installed here; install it or set CONTAINER_RUNTIME and SERVER_IMAGE"
  SERVER_COMMAND=(env -u RENDEZVOUS srun --overlap --nodes=1 --ntasks=1 "${SRUN_CONTAINER[@]}"
    "${IN_CONTAINER[@]}" bash "$LAUNCH/rank.sh" "$@")
}

start_server() { # ENDPOINT: starts SERVER_COMMAND in the background (SERVER_ID) and writes ENDPOINT when it answers
  local endpoint=$1 deadline url
  endpoint=$(in_work_dir "$endpoint")
  command -v curl >/dev/null || fail "curl is needed on $(hostname) to see when the server answers"
  SERVER_KEY=$(od -An -N24 -tx1 /dev/urandom | tr -d ' \n')
  url=http://$(hostname):$SERVER_PORT
  rm -f "$endpoint"
  # Anyone on the cluster's network can reach the port: a key of this job's own (transformers serve knows none).
  VLLM_API_KEY=$SERVER_KEY API_KEY=$SERVER_KEY HF_HUB_OFFLINE=1 "${SERVER_COMMAND[@]}" &
  SERVER_ID=$!
  trap 'rm -f "'"$endpoint"'"; kill "$SERVER_ID" 2>/dev/null || true' EXIT
  deadline=$((SECONDS + START_SECONDS))
  until curl --silent --fail --max-time 5 --noproxy '*' --output /dev/null \
    --header @<(printf 'Authorization: Bearer %s' "$SERVER_KEY") "$url/health"; do # not in the arguments, which ps shows
    kill -0 "$SERVER_ID" 2>/dev/null || fail "the server ended before it answered (its messages are above)"
    [ "$SECONDS" -lt "$deadline" ] || fail "the server did not answer within $START_SECONDS s at $url/health"
    sleep 2
  done
  mkdir -p "$(dirname "$endpoint")"
  (umask 077 && printf '{"base_url": "%s/v1", "model": "%s", "api_key": "%s", "folder": "%s", "job_id": "%s"}\n' \
    "$url" "$SERVED_MODEL" "$SERVER_KEY" "$MODEL_FOLDER" "$SLURM_JOB_ID" >"$endpoint.tmp")
  mv "$endpoint.tmp" "$endpoint"
  say "serving $SERVED_MODEL at $url/v1; see $endpoint"
}

stop_server() { # ends what start_server began
  kill "$SERVER_ID" 2>/dev/null || true
  wait "$SERVER_ID" 2>/dev/null || true
}

wait_for_endpoint() { # ENDPOINT JOB: until JOB's server has written the file; an error when JOB ends before
  local endpoint
  endpoint=$(in_work_dir "$1")
  say "waiting for the server of job $2"
  until grep -q "\"job_id\": \"$2\"" "$endpoint" 2>/dev/null; do
    squeue --noheader --jobs="$2" 2>/dev/null | grep -q . || fail "job $2 ended before its server answered; see its log in $LOG_DIR"
    sleep 3
  done
}
