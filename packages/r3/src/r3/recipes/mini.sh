#!/usr/bin/env bash
# A chain of ten steps learnt from outcome rewards alone, with and without start states inside demonstrations:
# from scratch on one CPU core, in about two minutes; the same as single commands takes four more.
set -euo pipefail

out=${1:-runs/r3-mini}

# Tune a weak model, train R3, plain RL and staged RL, ask held-out questions, judge the claims, write report.html.
# Each arm is a run of `r3 train`: its rollouts and its model are in $out/arms.
r3 mini --seed 0 --out "$out" --resume
r3 rollouts "$out/arms/r3" --html "$out/rollouts.html" --limit 5

# The same step by step. The world: questions, right demonstrations, and slipping ones to tune on.
[ -f "$out-data/prepared.json" ] || r3 prepare tiny --out "$out-data"
r3 sft tiny --data "$out-data" --out "$out-sft" --resume

# RL from the tuned model: R3, plain RL, one depth after the other. Nothing else differs.
for kind in mixed vanilla staged; do
  r3 train tiny --model "$out-sft/model" --data "$out-data" --curriculum.kind "$kind" --out "$out-$kind" --resume
done

# Each of them on the held-out questions, with the likeliest tokens and with drawn ones.
for run in sft mixed vanilla staged; do
  r3 eval tiny --model "$out-$run/model" --data "$out-data" --out "$out-$run-greedy" --resume
  r3 eval tiny --model "$out-$run/model" --data "$out-data" --temperature 1 --samples 16 --out "$out-$run-sampled" --resume
done
