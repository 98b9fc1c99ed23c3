#!/usr/bin/env bash
# An over-careful small model, trained from scratch, and its two prompts contrasted: on one CPU core, in about two minutes.
set -euo pipefail

out=${1:-runs/self-cd-mini}

# Train, answer by every strength, calibrate, explain, judge the claims, write report.html.
self-cd mini --seed 0 --out "$out" --resume

# The trained model is kept. Each method on the same held-out questions, side by side:
for method in safety plain self-cd; do
  self-cd run tiny --method "$method" --out "$out-$method" --resume
done
self-cd table "$out-safety" "$out-plain" "$out-self-cd"

# Every strength in one run, and the strengths that keep the refusals of harmful questions:
self-cd sweep tiny --out "$out-sweep" --resume
self-cd calibrate tiny --out "$out-calibrate" --resume

# How the trigger word reaches the answer, layer by layer:
self-cd attribute tiny --limit 20 --out "$out-attribute" --resume
