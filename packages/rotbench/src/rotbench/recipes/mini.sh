#!/usr/bin/env bash
# One small base, tuned with and without noise: on one CPU core, in about four minutes.
set -euo pipefail

out=${1:-runs/rotbench-mini}

# Train, answer at all five levels, judge the claims, write report.html.
rotbench mini --seed 0 --out "$out" --resume

# The same scorers without any model, on the cases that ship with the package.
rotbench eval tiny --model baseline:oracle --out "$out-oracle" --resume
rotbench eval tiny --model baseline:lexical --out "$out-lexical" --resume
