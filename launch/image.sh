#!/usr/bin/env bash
# Build the container image and convert it for the runtimes of clusters.
set -euo pipefail
repository="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"

show_help() {
  cat <<'HELP'
usage: launch/image.sh build [--target gpu|cpu] [--tag NAME:TAG] [--base-tag TAG] [--base-digest sha256:...]
       launch/image.sh sqsh  [--tag NAME:TAG | --registry-image IMAGE] [--output FILE.sqsh]
       launch/image.sh sif   [--tag NAME:TAG | --registry-image IMAGE] [--output FILE.sif]

build   builds the Dockerfile: gpu (default), on NVIDIA's PyTorch image, for training; cpu, for the quickstart and tests
sqsh    converts an image for Enroot and Pyxis (srun --container-image=FILE.sqsh); needs enroot
sif     converts an image for Apptainer (apptainer exec --nv FILE.sif); needs apptainer or singularity

options:
  --tag NAME:TAG          image of this machine; default agentlm-megatron:latest, with --target cpu agentlm-megatron:cpu
  --registry-image IMAGE  convert this image of a registry instead, e.g. ghcr.io/group/agentlm-megatron:1
  --output FILE           default: agentlm-megatron.sqsh or .sif in this folder; an existing file is not replaced
  --target gpu|cpu        which image to build
  --base-tag TAG          another release of nvcr.io/nvidia/pytorch than the Dockerfile's, e.g. 25.12-py3
  --base-digest DIGEST    its digest; without it another tag is trusted as it is. To find it:
                          docker buildx imagetools inspect nvcr.io/nvidia/pytorch:TAG
  --engine ENGINE         docker, podman or buildah; default: the first of them that works here
  --dry-run               print the commands and run nothing
  --help                  this text

PIP_INDEX_URL and PIP_EXTRA_INDEX_URL of the environment are passed on to pip in the build. For the cpu target set the
second to PyTorch's index of CPU wheels, or torch comes with several GB for CUDA.
A login node often has no container engine: build where there is one, push to a registry, and convert on the cluster
with --registry-image. Then set CONTAINER_IMAGE in launch/cluster.env to the file.

examples:
  launch/image.sh build
  launch/image.sh sqsh --output /shared/images/agentlm-megatron.sqsh
  launch/image.sh sif --registry-image ghcr.io/group/agentlm-megatron:1 --dry-run
HELP
}

fail() { echo "error: $*" >&2; exit 2; }

left_over="" # to remove at the end, however it ends
trap '[ -z "$left_over" ] || rm -rf "$left_over"' EXIT

action="${1:-}"
case "$action" in
  build | sqsh | sif) shift ;;
  -h | --help) show_help; exit 0 ;;
  "") fail "build, sqsh or sif expected, got nothing; see launch/image.sh --help" ;;
  *) fail "build, sqsh or sif expected, got $action; see launch/image.sh --help" ;;
esac

target=gpu tag="" registry_image="" output="" base_tag="" base_digest="" engine="" dry_run=""
while [ $# -gt 0 ]; do
  case "$1" in
    -h | --help) show_help; exit 0 ;;
    --dry-run) dry_run=1; shift; continue ;;
    --target | --tag | --registry-image | --output | --base-tag | --base-digest | --engine) ;;
    *) fail "unknown option $1; see launch/image.sh --help" ;;
  esac
  [ $# -ge 2 ] && [ -n "$2" ] || fail "$1 expects a value, got none"
  case "$1" in
    --target) target="$2" ;;
    --tag) tag="$2" ;;
    --registry-image) registry_image="${2#docker://}" ;;
    --output) output="$2" ;;
    --base-tag) base_tag="$2" ;;
    --base-digest) base_digest="$2" ;;
    --engine) engine="$2" ;;
  esac
  shift 2
done

case "$target" in gpu | cpu) ;; *) fail "--target: gpu or cpu expected, got $target" ;; esac
case "$engine" in
  "" | docker | podman | buildah) ;;
  *) fail "--engine: docker, podman or buildah expected, got $engine" ;;
esac
case "$base_digest" in
  "" | sha256:????????????????????????????????????????????????????????????????) ;;
  *) fail "--base-digest: sha256: and 64 digits expected, got $base_digest" ;;
esac
[ -z "$base_digest" ] || [ -n "$base_tag" ] || fail "--base-digest expects its --base-tag beside it, got none"
if [ -z "$tag" ]; then
  tag=agentlm-megatron:latest
  [ "$target" = gpu ] || tag=agentlm-megatron:cpu
fi
case "${tag##*/}" in *:*) ;; *) tag="$tag:latest" ;; esac # apptainer wants the tag written out

has() { command -v "$1" >/dev/null; }

run() {
  if [ -n "$dry_run" ]; then
    printf '%q ' "$@"
    echo
  else
    "$@"
  fi
}

choose_engine() {
  if [ -n "$engine" ]; then
    [ -n "$dry_run" ] || has "$engine" || fail "no $engine here; install it or leave --engine away"
    return
  fi
  # A docker client without a daemon is common on login nodes.
  if has docker && docker info >/dev/null 2>&1; then engine=docker
  elif has podman; then engine=podman
  elif has buildah; then engine=buildah
  elif [ -n "$dry_run" ]; then engine=docker
  elif has docker; then fail "docker is here but its daemon does not answer (docker info); start it, or install podman"
  else fail "docker, podman or buildah expected, none is here; build on another machine and use --registry-image"
  fi
}

build_image() {
  local arguments=(--target "$target" --tag "$tag") revision source_address name
  if has git && revision="$(git -C "$repository" rev-parse HEAD 2>/dev/null)"; then
    [ -z "$(git -C "$repository" status --porcelain)" ] || revision="$revision-changed"
    source_address="$(git -C "$repository" remote get-url origin 2>/dev/null || true)"
    source_address="$(sed -E 's#^([a-z]+://)[^/@]*@#\1#' <<<"$source_address")" # no password into a label
    arguments+=(--build-arg "REVISION=$revision" --build-arg "SOURCE=$source_address")
  fi
  arguments+=(--build-arg "VERSION=$(sed -n 's/^ *version="\(.*\)",$/\1/p' "$repository/setup.py")")
  if [ -n "$base_tag" ]; then
    arguments+=(--build-arg "BASE_TAG=$base_tag" --build-arg "BASE_DIGEST=$base_digest")
  fi
  for name in PIP_INDEX_URL PIP_EXTRA_INDEX_URL; do
    [ -z "${!name:-}" ] || arguments+=(--build-arg "$name=${!name}")
  done
  case "$engine" in
    docker) run env DOCKER_BUILDKIT=1 docker build "${arguments[@]}" "$repository" ;;
    # The OCI format, the default of these two, has no HEALTHCHECK.
    podman) run podman build --format docker "${arguments[@]}" "$repository" ;;
    buildah) run buildah bud --format docker "${arguments[@]}" "$repository" ;;
  esac
}

# enroot_name IMAGE: REGISTRY/NAME as Enroot writes it, REGISTRY#NAME; a name without a registry is Docker Hub's.
enroot_name() {
  case "${1%%/*}" in
    *.* | *:* | localhost) [ "${1%%/*}" = "$1" ] && echo "$1" || echo "${1%%/*}#${1#*/}" ;;
    *) echo "$1" ;;
  esac
}

# Enroot 4.1 removes the container of podman:// with `docker rm`, and where that fails ends with status 1.
let_docker_be_podman() {
  local podman
  podman="$(command -v podman)"
  left_over="$(realpath "$output").programs"
  mkdir -p "$left_over"
  ln -sf "$podman" "$left_over/docker"
  PATH="$left_over:$PATH"
}

convert_to_sqsh() {
  [ -n "$dry_run" ] || has enroot || fail "no enroot here; run this on a node that has it, as clusters with Pyxis do"
  local address
  if [ -n "$registry_image" ]; then
    address="docker://$(enroot_name "$registry_image")"
  else
    case "$engine" in
      docker) address="dockerd://$tag" ;;
      podman)
        address="podman://$tag"
        [ -n "$dry_run" ] || let_docker_be_podman
        ;;
      buildah) fail "enroot reads images of docker, podman or a registry, not buildah's: install podman (it shares \
buildah's images), or push the image and use --registry-image" ;;
    esac
  fi
  run enroot import --output "$output" "$address"
}

convert_to_sif() {
  local apptainer=apptainer
  if ! has apptainer && has singularity; then apptainer=singularity; fi
  [ -n "$dry_run" ] || has "$apptainer" || fail "no apptainer or singularity here; run this on a node that has one"
  if [ -n "$registry_image" ]; then
    run "$apptainer" build "$output" "docker://$registry_image"
    return
  fi
  local archive="$output.docker.tar"
  [ -n "$dry_run" ] || left_over="$archive"
  case "$engine" in
    docker) run "$apptainer" build "$output" "docker-daemon:$tag"; return ;;
    podman) run podman save --format docker-archive --output "$archive" "$tag" ;;
    buildah) run buildah push "$tag" "docker-archive:$archive:$tag" ;;
  esac
  run "$apptainer" build "$output" "docker-archive:$archive"
}

[ "$action" != build ] || [ -z "$registry_image$output" ] || fail "build takes no --output or --registry-image"
if [ "$action" != build ]; then
  output="${output:-agentlm-megatron.$action}"
  [ -n "$dry_run" ] || [ ! -e "$output" ] || fail "--output $output exists; remove it or name another"
  [ -n "$dry_run" ] || [ -w "$(dirname "$output")" ] || fail "--output: $(dirname "$output") cannot be written"
fi
[ -n "$registry_image" ] || choose_engine
case "$action" in
  build) build_image ;;
  sqsh) convert_to_sqsh ;;
  sif) convert_to_sif ;;
esac
[ -n "$dry_run" ] || case "$action" in
  build) echo "image $tag is built by $engine; next: launch/image.sh sqsh --tag $tag, or sif" ;;
  *) echo "set in launch/cluster.env: CONTAINER_IMAGE=$(realpath "$output")" ;;
esac
