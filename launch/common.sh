# Sourced by every script of this folder: cluster.env, containers, steps. LAUNCH is this folder.
# shellcheck shell=bash

unset SLURM_EXPORT_ENV # of sbatch --export: srun would keep this script's variables from the tasks
ROOT=$(dirname "$LAUNCH")
SITE_VARIABLES="ACCOUNT PARTITION CPU_PARTITION QOS GPU_TYPE SBATCH_OPTIONS MAX_REQUEUES CONTAINER_RUNTIME CONTAINER_IMAGE CONTAINER_MOUNTS
PYTHON SITE_SETUP DEVICE WORK_DIR LOG_DIR MODELS_DIR MIN_FREE_GB AGENTINSTRUCT SHAREGPT NETWORK_INTERFACE
MASTER_ADDR_SUFFIX PREFLIGHT_TIMEOUT SERVER SERVER_IMAGE"

fail() { # MESSAGE: what was expected, what came, what to change
  printf 'error: %s\n' "$*" >&2
  exit 2
}

job_number() { # as scontrol wants it: for an element of an array never the bare number, which may mean the whole array
  printf %s "${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}}"
  [ -n "${SLURM_ARRAY_JOB_ID:-}" ] || printf %s "${SLURM_JOB_ID:-}"
}

say() { printf '[%(%F %T)T] %s\n' -1 "$*"; }

read_cluster_env() { # sets all SITE_VARIABLES, checked; refuses unknown names and impossible values
  CLUSTER_ENV=$(realpath -m "${CLUSTER_ENV:-$LAUNCH/cluster.env}")
  [ -f "$CLUSTER_ENV" ] || fail "CLUSTER_ENV: $CLUSTER_ENV is not a file; copy launch/cluster.env and edit the copy"
  local name line text
  for name in $SITE_VARIABLES; do printf -v "$name" ''; done # the file decides, not the environment
  line=0
  while IFS= read -r text || [ -n "$text" ]; do
    line=$((line + 1))
    [[ $text =~ ^([A-Za-z_][A-Za-z_0-9]*)= ]] || continue
    name=${BASH_REMATCH[1]}
    [[ " ${SITE_VARIABLES//$'\n'/ } " == *" $name "* ]] \
      || fail "$CLUSTER_ENV line $line: unknown variable $name (write 'export $name=...' to hand it to the tasks); known: ${SITE_VARIABLES//$'\n'/ }"
  done <"$CLUSTER_ENV"
  # shellcheck source=launch/cluster.env
  source "$CLUSTER_ENV" || fail "$CLUSTER_ENV: bash cannot read it (message above)"

  CONTAINER_RUNTIME=${CONTAINER_RUNTIME:-none} DEVICE=${DEVICE:-cuda} SERVER=${SERVER:-vllm}
  MAX_REQUEUES=${MAX_REQUEUES:-10} PREFLIGHT_TIMEOUT=${PREFLIGHT_TIMEOUT:-300}
  WORK_DIR=$(realpath -m "${WORK_DIR:-$ROOT}")
  LOG_DIR=$(realpath -m "${LOG_DIR:-$WORK_DIR/logs}")
  MODELS_DIR=$(realpath -m "${MODELS_DIR:-$WORK_DIR/models}")
  AGENTINSTRUCT=${AGENTINSTRUCT:-hf:THUDM/AgentInstruct}
  check_one_of CONTAINER_RUNTIME none pyxis apptainer
  check_one_of DEVICE cuda cpu
  check_one_of SERVER vllm tgi transformers
  for name in MAX_REQUEUES PREFLIGHT_TIMEOUT MIN_FREE_GB; do
    [[ ${!name:-0} =~ ^[0-9]+$ ]] || fail "$CLUSTER_ENV: $name must be a whole number, got '${!name}'"
  done
  [[ $NETWORK_INTERFACE != *[\^=]* ]] || fail "$CLUSTER_ENV: NETWORK_INTERFACE: expected plain names such as ib0, got" \
    "'$NETWORK_INTERFACE' (gloo does not know NCCL's ^ and =; for NCCL alone: export NCCL_SOCKET_IFNAME='$NETWORK_INTERFACE')"
  [ -z "${SITE_SETUP:-}" ] || [ -f "$SITE_SETUP" ] || fail "$CLUSTER_ENV: SITE_SETUP: $SITE_SETUP is not a file"
  [ -d "$WORK_DIR" ] || fail "$CLUSTER_ENV: WORK_DIR: $WORK_DIR is not a folder; make it on a file system all nodes share"
  [ -w "$WORK_DIR" ] || fail "$CLUSTER_ENV: WORK_DIR: $WORK_DIR cannot be written by $(id -un); choose another folder"
  mkdir -p "$LOG_DIR" 2>/dev/null || fail "$CLUSTER_ENV: LOG_DIR: $LOG_DIR cannot be made or written by $(id -un)"
  check_software
  export ROOT WORK_DIR SITE_SETUP PYTHON DEVICE
}

check_one_of() { # NAME VALUE...
  local name=$1 value
  shift
  for value in "$@"; do [ "${!name}" != "$value" ] || return 0; done
  fail "$CLUSTER_ENV: $name must be one of $*, got '${!name}'"
}

check_software() { # the interpreter or the container, as far as this machine can tell
  case $CONTAINER_RUNTIME in
    none)
      PYTHON=${PYTHON:-$ROOT/.venv/bin/python}
      has_command "$PYTHON" || fail "$CLUSTER_ENV: PYTHON: $PYTHON is not there; make the environment" \
        "(make quickstart, or pip install in your own) or set CONTAINER_RUNTIME and CONTAINER_IMAGE"
      ;;
    *)
      PYTHON=${PYTHON:-python}
      [ -n "${CONTAINER_IMAGE:-}" ] || fail "$CLUSTER_ENV: CONTAINER_RUNTIME=$CONTAINER_RUNTIME needs CONTAINER_IMAGE;" \
        "launch/image.sh makes one"
      check_image CONTAINER_IMAGE
      ;;
  esac
  [ -z "${SERVER_IMAGE:-}" ] || check_image SERVER_IMAGE
}

has_command() ( # NAME, found as a task finds it: after the site's set-up
  if [ -n "$SITE_SETUP" ]; then
    set +eu
    # shellcheck source=/dev/null
    source_file() { source "$SITE_SETUP"; }
    source_file >/dev/null 2>&1
  fi
  command -v "$1" >/dev/null
)

check_image() { # NAME of the variable; registry names are checked by the runtime
  local image=${!1}
  [[ $image != /* && $image != ./* && $image != *.sqsh && $image != *.sif ]] || [ -r "$image" ] \
    || fail "$CLUSTER_ENV: $1: $image is not a file that $(id -un) can read; launch/image.sh makes one"
}

# ---- arguments

take_mode() { # "$@" of a script: MODE is run, dry-run (show the commands) or check (submit.sh asks); ARGUMENTS are the others
  local word
  MODE=run ARGUMENTS=()
  for word in "$@"; do
    case $word in
      --dry-run | --check) MODE=${word#--} ;;
      *) ARGUMENTS+=("$word") ;;
    esac
  done
}

take_options() { # NAME...: takes `--name VALUE` out of ARGUMENTS into variables (--hf-model into HF_MODEL); the rest stays
  local name rest=()
  while [ ${#ARGUMENTS[@]} -gt 0 ]; do
    for name in "$@"; do
      case ${ARGUMENTS[0]} in
        "--$name")
          [ ${#ARGUMENTS[@]} -ge 2 ] || fail "--$name: expected a value after it"
          ARGUMENTS=("--$name=${ARGUMENTS[1]}" "${ARGUMENTS[@]:2}")
          ;;
      esac
      case ${ARGUMENTS[0]} in
        "--$name="*)
          local variable=${name//-/_}
          printf -v "${variable^^}" '%s' "${ARGUMENTS[0]#*=}"
          ARGUMENTS=("${ARGUMENTS[@]:1}")
          continue 2
          ;;
      esac
    done
    rest+=("${ARGUMENTS[0]}")
    ARGUMENTS=("${ARGUMENTS[@]:1}")
  done
  ARGUMENTS=("${rest[@]}")
}

find_file() { # PATH, seen from where the job was submitted, from the repository or from WORK_DIR: printed as an absolute path
  local folder
  [ -n "$1" ] || return 1
  [[ $1 != /* ]] || { [ -e "$1" ] && realpath "$1" && return; }
  for folder in "${SLURM_SUBMIT_DIR:-$PWD}" "$ROOT" "$WORK_DIR"; do
    [ ! -e "$folder/$1" ] || { realpath "$folder/$1" && return; }
  done
  return 1
}

evaluation_options() { # TASK...: turns TASKS (a file, a folder, or NAME=PATH with blanks between) into TASK_OPTIONS of these tasks
  local words=("$TASKS") word name path
  TASK_OPTIONS=()
  find_file "$TASKS" >/dev/null || read -ra words <<<"$TASKS" # one path may have blanks in it
  for word in "${words[@]}"; do
    name='' path=$word
    [[ ! $word =~ ^[a-z_]+= ]] || { name=${word%%=*}= && path=${word#*=}; }
    if path=$(find_file "$path"); then
      [ -n "$name" ] || [ -d "$path" ] || { [ "$*" != held-in ] && [ $# -le 1 ]; } \
        || fail "--tasks: $path is a file, of one task: name it with --task, or give NAME=PATH for each of: $*"
      mount_folder_of "$path"
    elif [ "$MODE" = dry-run ]; then
      path=${word#"$name"}
    else
      fail "--tasks: expected a file of tasks or AgentBench's data folder below $PWD, $ROOT or $WORK_DIR, got '$word'"
    fi
    TASK_OPTIONS+=(--tasks "$name$path")
  done
}

evaluation_folder() { # RUN TASK...: where evaluate writes: a folder for each task below RUN/evaluation
  local run=$1
  shift
  if [ $# = 1 ] && [ "$1" != held-in ]; then printf '%s/evaluation/%s' "$run" "$1"; else printf '%s/evaluation' "$run"; fi
}

directive() { # NAME of an #SBATCH option of this script: its value, or nothing
  sed -n "s/^#SBATCH --$1=\([^ ]*\).*/\1/p" "$SCRIPT" | tail -n 1
}

# ---- steps

MOUNTED=() # folders of files that a job names, beside those of cluster.env

mount_folder_of() { # FILE: its folder is mounted into containers, unless it lies below one that is
  local folder mounted
  folder=$(dirname "$1")
  for mounted in "$ROOT" "$WORK_DIR" "$MODELS_DIR" "${MOUNTED[@]}"; do
    [[ $folder/ != "$mounted"/* ]] || return 0
  done
  MOUNTED+=("$folder")
}

in_work_dir() { # PATH of a configuration or argument: printed as tasks see it, absolute
  case $1 in
    /*) printf '%s' "$1" ;;
    *) printf '%s' "$WORK_DIR/$1" ;;
  esac
}

container_options() { # IMAGE: fills SRUN_CONTAINER (options of srun) and IN_CONTAINER (words before the command)
  local image=${1:-} mounts="$ROOT:$ROOT" folder
  for folder in "$WORK_DIR" "$LOG_DIR" "$MODELS_DIR" "${MOUNTED[@]}"; do
    [[ $folder/ == "$ROOT"/* ]] || [ ! -d "$folder" ] || mounts+=",$folder:$folder"
  done
  [ -z "${SITE_SETUP:-}" ] || mounts+=",$SITE_SETUP:$SITE_SETUP"
  mounts+="${CONTAINER_MOUNTS:+,$CONTAINER_MOUNTS}"
  SRUN_CONTAINER=() IN_CONTAINER=()
  case $CONTAINER_RUNTIME in
    pyxis) # the home folder stays outside: packages in ~/.local would shadow the image's
      SRUN_CONTAINER=(--container-image="$image" --container-mounts="$mounts" --no-container-mount-home
        --container-workdir="$WORK_DIR" --container-env="$(task_variables)")
      ;;
    apptainer)
      IN_CONTAINER=(apptainer exec --no-home --bind "$mounts" --pwd "$WORK_DIR")
      [ "$DEVICE" = cpu ] || IN_CONTAINER+=(--nv)
      IN_CONTAINER+=("$image")
      ;;
  esac
}

task_variables() { # names of what rank.sh reads, train.sh sets and cluster.env exports: an image or a site's hook of Enroot must not replace them
  local exported
  exported=$(sed -n 's/^export \([A-Za-z_][A-Za-z_0-9]*\)=.*/,\1/p' "$CLUSTER_ENV" | grep -v 'PATH$' | tr -d '\n') || true # paths are the image's
  printf %s "ROOT,WORK_DIR,SITE_SETUP,RENDEZVOUS,OMP_NUM_THREADS,CUDA_DEVICE_MAX_CONNECTIONS,NCCL_DEBUG" \
    ",NCCL_P2P_NET_CHUNKSIZE,NCCL_SOCKET_IFNAME,GLOO_SOCKET_IFNAME$exported"
}

python_step() { # ARGUMENTS of python: one task of this job; without a job, here
  container_options "${CONTAINER_IMAGE:-}"
  # It may run beside a server; and it is no rank, hence without RENDEZVOUS.
  local words=(env -u RENDEZVOUS) step=(srun --overlap --nodes=1 --ntasks=1 "${SRUN_CONTAINER[@]}")
  [ -z "${SLURM_JOB_ID:-}" ] || words+=("${step[@]}")
  words+=("${IN_CONTAINER[@]}" bash "$LAUNCH/rank.sh" "$PYTHON" "$@")
  [ "$MODE" != run ] || [ -n "${SLURM_JOB_ID:-}" ] || has_login_python \
    || fail "CONTAINER_RUNTIME=$CONTAINER_RUNTIME does not run on this machine: submit it with launch/submit.sh"
  case $MODE in
    check) ;;
    dry-run) show_command "${words[@]}" ;;
    run)
      say "python $*"
      "${words[@]}"
      ;;
  esac
}

has_login_python() { # whether Python with the project can run here, without an allocation
  case $CONTAINER_RUNTIME in
    pyxis) return 1 ;;
    apptainer) command -v apptainer >/dev/null ;;
  esac
}

login_python() { # ARGUMENTS of python: runs here, no rank
  container_options "${CONTAINER_IMAGE:-}"
  env -u RENDEZVOUS "${IN_CONTAINER[@]}" bash "$LAUNCH/rank.sh" "$PYTHON" "$@"
}

show_command() { # WORDS: printed so that a shell reads them back
  printf '  %q' "$1"
  shift
  printf ' %q' "$@"
  printf '\n'
}
