#!/bin/sh
# Rockfill from a shell: what it does, how warm it is, and a completion. Needs curl and jq.
#   ROCKFILL_URL=http://rock5.local:8012 ROCKFILL_TOKEN=… sh watch.sh
set -eu

call() { # call COMMAND [PARAMETERS], the answer as JSON
    curl --silent --show-error --fail --max-time 10 --header "Authorization: Bearer $ROCKFILL_TOKEN" \
        --data "${2:-}" "$ROCKFILL_URL/api/command/$1"
}

engine=$(call engine.get)
echo "$engine" | jq -r '.result | "engine: \(.state), model: \(.model.name // "none")"'

stats=$(call stats.get)
echo "$stats" | jq -r '.result.figures | "npu: \(."npu.temp_celsius" // "unknown") °C, queue: \(."queue.depth")"'

request=$(jq -n --arg prefix 'def add(a, b):
    return ' '{prefix: $prefix, suffix: "\n", mode: "line"}')
completion=$(call complete.start "$request")
echo "$completion" | jq -r .result.text
