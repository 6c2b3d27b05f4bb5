#!/usr/bin/env bash
# Every test, in the order in which a mistake is cheapest to find. Stops at the first failure.
#
#   scripts/test.sh           all: what `make test` and CI run
#   scripts/test.sh quick     format, lints, rules and cargo test
#   scripts/test.sh lint      format, lints, rules
#   scripts/test.sh STEP…     the named steps of those below
set -euo pipefail
source "$(dirname "$0")/places.sh"
cd "$root"

fuzz_seconds=${FUZZ_SECONDS:-10}
began=$SECONDS

run_step() {
  local name=$1 before=$SECONDS
  printf '\n== %s\n' "$name"
  # Not `if "step_$name"`: inside a condition `set -e` is off.
  set +e
  (set -e; "step_${name//-/_}")
  local status=$?
  set -e
  if [ "$status" -ne 0 ]; then
    printf '\n== %s FAILED after %d s. Again: scripts/test.sh %s\n' "$name" "$((SECONDS - before))" "$name" >&2
    exit 1
  fi
  printf '== %s: %d s\n' "$name" "$((SECONDS - before))"
}

step_ensure() { scripts/ensure.sh test; }
step_format() { cargo fmt --all --check; }
step_clippy() { cargo clippy --workspace --all-targets --quiet -- -D warnings; }
step_tidy() { cargo xtask tidy; }
step_cargo() { cargo test --workspace; }
step_build() { cargo build --quiet -p server --bin feiqian; }
step_deploy() { tests/deploy/run.sh; }
step_sdk_python() { tests/sdk/run.sh python; }
step_sdk_node() { tests/sdk/run.sh node; }
step_browser() { tests/browser/run.sh; }
step_observe() { tests/observe/run.sh; }

step_fuzz() {
  # libFuzzer's coverage needs a flag that stable Rust hides behind this variable. No address
  # sanitizer: the code under test has no unsafe, and without it the run is three times faster.
  export RUSTC_BOOTSTRAP=1 PATH=$tools_folder/bin:$PATH CARGO_TARGET_DIR=$target_folder/fuzz
  local target targets corpus log
  targets=$(cargo fuzz list)
  [ -n "$targets" ] || die "no fuzz targets found"
  for target in $targets; do
    say "fuzz $target for $fuzz_seconds s"
    corpus=$cache/corpus/$target
    log=$cache/corpus/$target.log
    mkdir -p "$corpus"
    if ! cargo fuzz run --sanitizer none "$target" "$corpus" -- \
      -max_total_time="$fuzz_seconds" -timeout=5 -rss_limit_mb=2048 -print_final_stats=1 >"$log" 2>&1; then
      tail -n 60 "$log"
      die "fuzz target $target failed; the input is named above"
    fi
    grep -E 'stat::number_of_executed_units' "$log" || die "fuzz target $target ran nothing"
  done
}

all=(ensure format clippy tidy deploy cargo build sdk-python sdk-node browser observe fuzz)
case ${1:-all} in
  all) steps=("${all[@]}") ;;
  lint) steps=(format clippy tidy) ;;
  quick) steps=(format clippy tidy cargo) ;;
  *) steps=("$@") ;;
esac
for step in "${steps[@]}"; do
  declare -F "step_${step//-/_}" >/dev/null || die "test: no step \`$step\`; there are: ${all[*]}"
done
for step in "${steps[@]}"; do run_step "$step"; done
printf '\n== all passed: %s in %d s\n' "${steps[*]}" "$((SECONDS - began))"
