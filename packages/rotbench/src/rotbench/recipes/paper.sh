#!/usr/bin/env bash
# RoTBench at full scale (2401.08326): four open models at five levels of noise, and RoTTuning.
#
# Before: `rotbench data --from FOLDER` installs the released files; `hf auth login`, for LLaMA-2 is
# gated; and trajectories of your own in trajectories.jsonl, because the paper's are not public. With
# other trajectories the table cannot come out the same: expect the direction, which is a span of tool
# selection over the levels of at most 15 points, and correct content 8 points above the model
# that was tuned without noise. Everything can be stopped and started again.
#
# All of these are estimated, nobody has measured them yet:
#   GPU      1 with 80 GB; `accelerate launch` with a file beside this one takes more of them
#   memory   7B: 13 GiB of weights and 40 GiB of activations at 8,192 tokens; 13B answers: 26 GiB
#   time     answers 5 minutes per model; tuning 7 to 8 hours with noise, as long without
set -euo pipefail

out=${1:-runs/rotbench-paper}
trajectories=${TRAJECTORIES:-trajectories.jsonl}

# 1. Open models, whose first-turn clean scores are known (TL-Training): 80.0/32.4/15.2, 62.9/17.1/8.6.
rotbench eval modern --model vllm:Qwen/Qwen2.5-7B-Instruct --scoring official --out "$out/qwen" --resume
rotbench eval modern --model vllm:meta-llama/Llama-3.1-8B-Instruct --scoring official --out "$out/llama" --resume

# 2. Two of the paper's own models, with its sampling (temperature 0.3, top-p 0.5).
rotbench eval paper --model vllm:ToolBench/ToolLLaMA-2-7b-v2 --turns first --out "$out/toolllama" --resume
rotbench eval paper --model vllm:Nexusflow/NexusRaven-V2-13B --mode raven2 --prompt-style chat --turns first --out "$out/raven" --resume

# 3. RoTTuning: 12,247 clean trajectories and 10,500 disturbed ones, 5 epochs, about 1,780 steps.
rotbench augment paper --trajectories "$trajectories" --out "$out/augment" --resume
rotbench train paper --data "$out/augment" --out "$out/rottuned" --resume

# The baseline: the same steps on the clean trajectories alone.
rotbench train paper --data "$out/augment" --clean-only --max-steps 1780 --out "$out/clean-only" --resume

# 4. Base, baseline and RoTTuned model, asked as they were trained.
rotbench eval paper --model vllm:meta-llama/Llama-2-7b-hf --out "$out/eval-base" --resume
rotbench eval paper --model "vllm:$out/clean-only/model" --out "$out/eval-clean-only" --resume
rotbench eval paper --model "vllm:$out/rottuned/model" --out "$out/eval-rottuned" --resume
rotbench compare "$out/eval-rottuned" "$out/eval-clean-only"

# More queries, where you have somebody to run their tools:
#   rotbench expand paper --endpoint.budget-usd 50 --endpoint.price-in 30 --endpoint.price-out 60
