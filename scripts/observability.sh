#!/usr/bin/env bash
# Compares rules, dashboard and metrics with each other, and tests them with a real Prometheus. If Prometheus is
# missing, unpacks Debian's package into TOOLS_FOLDER. Usage: observability.sh TOOLS_FOLDER CALLGATE
set -euo pipefail
tools=$1
callgate=$2
root=$(cd "$(dirname "$0")/.." && pwd)
tests="$root/tests/observability"

# These checks need no Prometheus.
# FETCH_ONLY=1 installs Prometheus and runs nothing.
if [ -z "${FETCH_ONLY:-}" ]; then
    python3 "$root/scripts/dashboard.py" --check
    python3 "$root/scripts/prometheus_rule.py" --check
    python3 "$tests/names.py" "$callgate"
fi

# Some machines cannot install Prometheus. This is a failure only if STRICT is set.
skip() {
    echo "observability: THE RULES AND THE INCIDENT WERE NOT TESTED: $1" >&2
    [ -z "${STRICT:-}" ] || exit 1
    exit 0
}

. "$root/scripts/debian.sh"

if command -v prometheus >/dev/null && command -v promtool >/dev/null; then
    prometheus=$(command -v prometheus) promtool=$(command -v promtool)
else
    prometheus="$tools/prometheus/root/usr/bin/prometheus" promtool="$tools/prometheus/root/usr/bin/promtool"
    if [ ! -x "$promtool" ] && ! bring_debian prometheus "$tools"; then
        skip "there is no prometheus and promtool in PATH, and apt-get cannot bring Debian's package 'prometheus'"
    fi
    # The programs need only the C library, but the one of this system may be too old.
    if ! "$promtool" --version >/dev/null 2>&1; then
        skip "Debian's promtool does not run here: $("$promtool" --version 2>&1 | head -1)"
    fi
fi

[ -z "${FETCH_ONLY:-}" ] || exit 0

"$promtool" check rules "$root/deploy/prometheus/rules.yaml"
"$promtool" test rules "$tests/rules_test.yaml" "$tests/rules_slow_test.yaml"
python3 "$tests/incident.py" --callgate "$callgate" --prometheus "$prometheus"
