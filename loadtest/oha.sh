#!/usr/bin/env bash
# How many publications and stats requests a second the broker answers, with oha (cargo install oha --locked).
#
#   loadtest/oha.sh [URL] [SECONDS] [CONNECTIONS]
#
# Each part runs for SECONDS (10 unless given, 60 at most) over CONNECTIONS kept-alive connections (50 unless given). Only
# 200 counts: anything else makes the script fail.
set -euo pipefail

url=${1:-http://127.0.0.1:8000}
seconds=${2:-10}
connections=${3:-50}

case $url in
    http://127.*|http://localhost:*) ;;
    *) echo "oha.sh: $url is not a loopback address" >&2; exit 64 ;;
esac
if ! [[ $seconds =~ ^[0-9]+$ && $connections =~ ^[0-9]+$ ]] || ((seconds < 1 || seconds > 60 || connections < 1)); then
    echo "oha.sh: expected [URL] [SECONDS from 1 to 60] [CONNECTIONS]" >&2
    exit 64
fi
command -v oha >/dev/null || { echo "oha.sh: no oha; cargo install oha --locked" >&2; exit 69; }

# About 330 bytes on the wire as an event.
padding=$(printf 'x%.0s' {1..120})
event='{"topic":"oha","type":"load","data":{"pad":"'$padding'"}}'

failed=0
run() {
    local what=$1
    shift
    local result
    result=$(oha --no-tui --output-format json -z "${seconds}s" -w -c "$connections" -t 10s "$@")
    python3 - "$what" "$result" <<'PYTHON' || failed=1
import json, sys

what, result = sys.argv[1], json.loads(sys.argv[2])
summary, quantiles = result["summary"], result["latencyPercentiles"]
statuses = result["statusCodeDistribution"]
errors = result["errorDistribution"]
answered = sum(statuses.values())
print(f"{what:8} {summary['requestsPerSec']:9,.0f} /s   p50 {quantiles['p50'] * 1e3:.2f} ms   "
      f"p99 {quantiles['p99'] * 1e3:.2f} ms   p99.9 {quantiles['p99.9'] * 1e3:.2f} ms   "
      f"statuses {statuses}" + (f"   errors {errors}" if errors else ""))
sys.exit(0 if answered and statuses.get("200") == answered and not errors else 1)
PYTHON
}

echo "$url, $seconds s each, $connections connections"
run publish -m POST -T application/json -d "$event" "$url/api/v1/events/broadcast"
run stats "$url/api/v1/events/stats"
exit $failed
