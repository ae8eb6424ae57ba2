#!/usr/bin/env bash
# Changes the code at drawn places, and prints each change that no test notices (a surviving mutant).
# Fails if a survivor is not listed in docs/mutants.md.
# Usage: mutants.sh [NUMBER [SEED [GLOB...]]], or mutants.sh sample
#
# NUMBER mutants are drawn from the files that match GLOB. The same SEED draws the same mutants of the same code.
# The unit tests and the decision cases test the core, and the unit tests test src/store. The suite and the slow unit
# tests test the survivors a second time, because the suite also notices changes that need the whole program.
# PARTS=core or PARTS=store runs one of the two. TEST_SECONDS is the time after which a test run counts as endless. The
# whole suite may take ten times as long.
# cargo-mutants changes a copy of the code in a temporary folder.
set -euo pipefail
cd "$(dirname "$0")/.."

command -v cargo-mutants >/dev/null || {
    echo "missing: cargo-mutants; cargo install cargo-mutants --locked --root .tools (make mutants does)" >&2
    exit 1
}
number=${1:-400}
seed=${2:-1}
globs=("${@:3}")
[ ${#globs[@]} -gt 0 ] || globs=(src/{ingress,egress,signature,token,interaction,store,config}'/**/*.rs')
# Each draw has its own folder, because two of them can run at the same time.
results=target/mutants/results/$number-$seed
# A folder of its own for compiled code, because a mutant must not become target/debug/callgate.
# The sample compiles no program, so it uses the dependencies that `make core` compiled.
target=$PWD/target/mutants
[ "$number" != sample ] || target=$PWD/target

# Draws the mutants. cargo-mutants has no option for a list of mutants: its regular expressions do not select among the
# mutants that delete a field of a struct. With --iterate it omits the mutants that an earlier run caught, so every
# mutant that is not drawn is written down as caught.
files=()
for glob in "${globs[@]}"; do files+=(--file "$glob"); done
rm -rf "$results"
mkdir -p "$results"
cargo mutants --list --json "${files[@]}" >"$results/all.json"
python3 - "$number" "$seed" "$results" scripts/mutants-sample.txt <<'PYTHON'
import json, os, random, re, sys

number, seed, results, sample = sys.argv[1:]
mutants = [mutant["name"] for mutant in json.load(open(f"{results}/all.json"))]
if number == "sample":
    wanted = {line for line in open(sample).read().splitlines() if line and not line.startswith("#")}
    names = {name: re.sub(r":\d+:\d+: ", ": ", name, count=1) for name in mutants}
    drawn = {name for name, short in names.items() if short in wanted}
    for missing in wanted - set(names.values()):
        sys.exit(f"{sample}: no such mutant: {missing}")
else:
    drawn = set(random.Random(int(seed)).sample(mutants, min(int(number), len(mutants))))
print(f"{len(drawn)} of {len(mutants)} mutants")
with open(f"{results}/all.txt", "w") as file:
    file.writelines(f"{name}\n" for name in mutants)
for part in "core", "store":
    here = {name for name in drawn if name.startswith("src/store/") == (part == "store")}
    if here:
        os.makedirs(f"{results}/{part}/mutants.out")
        with open(f"{results}/{part}/mutants.out/previously_caught.txt", "w") as file:
            file.writelines(f"{name}\n" for name in mutants if name not in here)
PYTHON

# Tests the drawn mutants of one part: run PART SECONDS CARGO_MUTANTS_OPTION...
run() {
    local part=$1 seconds=$2 status=0
    local output=$results/$part
    shift 2
    [ -d "$output" ] || return 0
    # Debug information costs time and is not needed. Dependencies have none, so they need not be compiled again.
    CARGO_TARGET_DIR=$target cargo mutants "${files[@]}" --iterate --output "$output" --baseline "$baseline" \
        --gitignore true --shuffle --colors never --timeout "$seconds" --cargo-arg=--locked \
        --cargo-arg=--config=profile.dev.package.callgate.debug=0 "$@" || status=$?
    # 2: a mutant survived. 3: a test run was endless.
    case $status in 0 | 2 | 3) ;; *) exit "$status" ;; esac
    (
        cd "$output/mutants.out"
        echo "$part: $(wc -l <caught.txt) caught, $(wc -l <missed.txt) missed, $(wc -l <unviable.txt) unviable," \
            "$(wc -l <timeout.txt) timed out"
    )
}

# Prints a name without line and column, which change with every edit.
short() { sed -E 's/:[0-9]+:[0-9]+: /: /'; }

# Prints the survivors of a part that docs/mutants.md does not list.
unlisted() {
    local missed=$results/$1/mutants.out/missed.txt
    [ -f "$missed" ] || return 0
    while IFS= read -r name; do
        grep -qF -- "- \`$(short <<<"$name")\`" docs/mutants.md || echo "$name"
    done <"$missed"
}

parts=${PARTS:-core store}
seconds=${TEST_SECONDS:-120}
baseline=run
# `make core` has already tested the code without changes.
[ "$number" != sample ] || baseline=skip
# Tests the survivors of a part again, with the suite and the slow unit tests: again PART NEW_PART CARGO_MUTANTS_OPTION...
again() {
    local part=$1 second=$2 survivors=$results/survivors-of-$1.txt
    shift 2
    unlisted "$part" >"$survivors"
    if [ "$number" != sample ] && [ -s "$survivors" ]; then
        mkdir -p "$results/$second/mutants.out"
        grep -vxFf "$survivors" "$results/all.txt" >"$results/$second/mutants.out/previously_caught.txt" || true
        run "$second" $((10 * seconds)) --cargo-arg=--test=suite "$@"
        parts=${parts/$part/$second}
    fi
}

# The first run skips tests that take seconds. The second run includes those that often notice a mutant.
slow=(--skip simulated_members_lose --skip in_every_interleaving --skip a_denial_waits_until)
rare=(--skip a_step_is_short --skip the_cost_of_a_simulated_interaction --skip the_simulation_notices)
if [[ $parts == *core* ]]; then
    run core "$seconds" --cargo-arg=--lib --cargo-arg=--test=decisions --no-default-features \
        -- -- "${slow[@]}" "${rare[@]}"
    again core suite --cargo-arg=--lib -- -- "${rare[@]}"
fi
if [[ $parts == *store* ]]; then
    run store "$seconds" --cargo-arg=--lib -- -- store:: interaction:: "${slow[@]}" "${rare[@]}"
    again store ledger --cargo-arg=--lib -- -- store:: interaction:: ledger:: decisions:: every_route:: disk:: crash:: \
        "${rare[@]}"
fi

survived=$(for part in $parts; do unlisted "$part"; done | short)
[ -z "$survived" ] && exit
sed 's/^/survived: /' <<<"$survived" >&2
echo "Add a test, or list the mutant with a reason in docs/mutants.md." >&2
exit 1
