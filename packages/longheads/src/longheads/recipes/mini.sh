#!/usr/bin/env bash
# A model trained at 256 words reads up to 32 times as much: on one CPU core, in about four minutes.
set -euo pipefail

out=${1:-runs/longheads-mini}

# Train, read by every method, judge the claims, write report.html.
longheads mini --seed 0 --out "$out" --resume

# The trained model is kept: the same retrieval again, by length and depth.
longheads passkey tiny --out "$out-passkey" --resume
longheads passkey tiny --method full --out "$out-passkey-full" --resume
