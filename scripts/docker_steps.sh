#!/usr/bin/env bash
# Do as shell what the Dockerfile does, for machines without docker: its build stage with a scratch folder in place of /,
# then what its last stage makes of the result: the command line, the service, its health check.
# Steps are read from the Dockerfile itself. One that this script does not know is an error.
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(mktemp -d)
root="$work/root" # what stands for /
server=''
trap '[ -z "$server" ] || kill "$server" 2>/dev/null || true; rm -rf "$work"' EXIT

say() { echo "docker_steps.sh: $*" >&2; }
die() { say "$*"; exit 1; }

# One instruction a line: no comments, continued lines joined.
instructions() { sed -e '/^[[:space:]]*#/d' Dockerfile | sed -e ':more' -e '/\\$/{N;s/\\\n//;b more' -e '}'; }

# ENV: paths move below the scratch folder, and names of variables in values are replaced.
set_variables() {
  local pair
  for pair in "$@"; do
    case "$pair" in *=/*) pair="${pair%%=*}=$root${pair#*=}" ;; esac
    eval "export ${pair%%=*}=\"${pair#*=}\""
  done
  # Saves time where a thing starts often; here it costs more than all the rest.
  unset UV_COMPILE_BYTECODE
  # As in setup.sh: a local folder of wheels stands in for the index of CPU builds where one is set.
  if [ -n "${PIP_FIND_LINKS:-}" ]; then
    export UV_FIND_LINKS="${UV_FIND_LINKS:-$PIP_FIND_LINKS}"
    unset UV_TORCH_BACKEND
  fi
}

build_step() {
  local word="$1" rest="$2" words
  read -ra words <<<"$rest"
  case "$word" in
    WORKDIR) folder="$root$rest" && mkdir -p "$folder" ;;
    ENV) set_variables "${words[@]}" ;;
    COPY)
      local last=$((${#words[@]} - 1))
      cp -R "${words[@]:0:last}" "$folder/${words[last]}"
      ;;
    RUN)
      # A path of its own would be this machine's.
      ! grep -qE '(^|[^[:alnum:]._*$}-])/[[:alnum:]]' <<<"$rest" || die "names a path, which ENV should do: RUN $rest"
      say "RUN $rest"
      (cd "$folder" && sh -c "$rest") >"$work/log" 2>&1 || { tail -n 30 "$work/log" >&2; die "failed: RUN $rest"; }
      ;;
    *) die "does not know how to do in the build stage: $word $rest" ;;
  esac
}

# Users, volumes and ports belong to the machine, so they are left to docker.
last_step() {
  local word="$1" rest="$2" words
  read -ra words <<<"$rest"
  case "$word" in
    ENV) set_variables "${words[@]}" ;;
    COPY)
      [ "${words[*]}" = "--from=build ${VIRTUAL_ENV#"$root"} ${VIRTUAL_ENV#"$root"}" ] ||
        die "an environment works at the path alone that it was made for: COPY $rest"
      ;;
    WORKDIR) folder="$root$rest" && mkdir -p "$folder" ;;
    HEALTHCHECK) health="${rest#*CMD }" ;;
    RUN | USER | VOLUME | EXPOSE | ENTRYPOINT | CMD) ;;
    *) die "does not know how to do in the last stage: $word $rest" ;;
  esac
}

follow_dockerfile() {
  local stage='' word rest
  while read -r word rest; do
    case "$word" in
      '') ;;
      FROM) if [ "${rest##* }" = build ]; then stage=build; else stage=last; fi ;;
      *) "${stage}_step" "$word" "$rest" ;;
    esac
  done < <(instructions)
}

healthy() {
  python -c 'import json, os, sys; command = json.loads(sys.argv[1]); os.execvp(command[0], command)' "$health" \
    >"$work/health" 2>&1
}

check_service() {
  ICS_SERVICE_PORT=$(python -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
  export ICS_SERVICE_PORT
  if healthy; then die "the health check passes although nothing runs"; fi
  icl-select serve >"$work/serve" 2>&1 &
  server=$!
  local give_up=$((SECONDS + 120))
  until healthy; do
    if ! kill -0 "$server" 2>/dev/null || [ "$SECONDS" -ge "$give_up" ]; then
      tail -n 30 "$work/serve" "$work/health" >&2
      die "the service did not become healthy; what it and the check said stands above."
    fi
    sleep 0.2
  done
  kill -TERM "$server"
  local status=0
  wait "$server" || status=$?
  server=''
  case "$status" in
    0 | 143) ;;
    *)
      tail -n 30 "$work/serve" >&2
      die "the service ended with $status when it was stopped; what it said stands above."
      ;;
  esac
}

# The image's own Python, as pip and uv find it.
"${PYTHON:-python3}" -m venv "$work/python"
PATH="$work/python/bin:$PATH"
follow_dockerfile
cd "$folder"
[ "$(command -v icl-select)" = "$VIRTUAL_ENV/bin/icl-select" ] || die "the last stage does not find icl-select in PATH"
icl-select --version
icl-select --help >/dev/null
python -c 'import psycopg'
check_service
echo "docker steps: ok (${SECONDS}s)"
