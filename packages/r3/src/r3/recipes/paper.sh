#!/usr/bin/env bash
# R3 at full scale (2402.05808): Llama-2-7B on GSM8K in words, then the other tasks; tuning, plain RL, staged RL, R3.
#
# The model is gated: `hf auth login` first. Data come from the hub (openai/gsm8k, MIT). Programs (P-CoT) are not part
# of this: they need the sandbox, and no public set of them comes with the paper.
#   launch="accelerate launch --config-file accelerate/fsdp.yaml" ./paper.sh   # 8 GPUs; the file lies beside this one
#   tune=lora ./paper.sh                                              # one GPU: a check that it runs, no number to quote
# Everything can be stopped and started again.
#
# All of these are estimated, nobody has measured them yet:
#   GPU      8 with 80 GB for all weights; 1 with 40 GB for adapters
#   memory   7B, all weights: 16 bytes each for weights, gradients and Adam, and 4 for the reference, over all GPUs: 120 GiB
#   time     tuning 1 hour; RL about 58,000 steps of 32 rollouts in 50 epochs: days
#
# Expected on GSM8K (second hand, except for tuning, which is from memory): tuned about 42 %, plain RL 44.7 %, R3 50.5 %.
# 1,319 questions: an interval of +-2.7 points around each.
set -euo pipefail

out=${1:-runs/r3-paper}
data=${data:-data}
launch=${launch:-}
tune=${tune:-full}
rate=$([ "$tune" = lora ] && echo 2e-5 || echo 3e-7)
r3=${launch:+$launch $(command -v r3)}
r3=${r3:-r3}

# 1. GSM8K: five start states of each rationale, at line ends. A twentieth of the questions chooses the checkpoint.
[ -f "$data/gsm8k/prepared.json" ] || r3 prepare paper --out "$data/gsm8k"
$r3 sft paper --data "$data/gsm8k" --tune "$tune" --out "$out/sft" --resume
$r3 train paper --model "$out/sft/model" --data "$data/gsm8k" --tune "$tune" --learning-rate "$rate" \
  --curriculum.kind mixed --out "$out/r3" --resume
for kind in vanilla staged; do # plain RL, and one depth after the other
  $r3 train paper --model "$out/sft/model" --data "$data/gsm8k" --tune "$tune" --learning-rate "$rate" \
    --curriculum.kind "$kind" --out "$out/$kind" --resume
done

# Few-shot: five draws of eight demonstrations. Then each model once on the test questions.
r3 eval paper --data "$data/gsm8k" --shots 8 --draws 5 --out "$out/eval-few-shot" --resume
for run in sft vanilla staged r3; do
  r3 eval paper --model "$out/$run/model" --data "$data/gsm8k" --out "$out/eval-$run" --resume
done

# 2. The same recipe for another kind of task: rationales of CoT-Collection for MNLI, cut at tokens, beta 0.3.
[ -f "$data/mnli/prepared.json" ] || r3 prepare paper-nli --out "$data/mnli"
$r3 sft paper-nli --data "$data/mnli" --tune "$tune" --out "$out/mnli-sft" --resume
$r3 train paper-nli --model "$out/mnli-sft/model" --data "$data/mnli" --tune "$tune" --out "$out/mnli-r3" --resume
$r3 train paper-nli --model "$out/mnli-sft/model" --data "$data/mnli" --tune "$tune" --curriculum.kind vanilla \
  --out "$out/mnli-rl" --resume
for run in mnli-sft mnli-rl mnli-r3; do
  r3 eval paper-nli --model "$out/$run/model" --data "$data/mnli" --out "$out/eval-$run" --resume
done

# 3. What start states are worth: their number, and the pool without the bare question (paper: this hurts most).
for states in 2 3 9 all; do
  $r3 train paper --model "$out/sft/model" --data "$data/gsm8k" --tune "$tune" --learning-rate "$rate" \
    --cut.states "$states" --out "$out/r3-m$states" --resume
done
$r3 train paper --model "$out/sft/model" --data "$data/gsm8k" --tune "$tune" --learning-rate "$rate" \
  --curriculum.weights 0 1 1 1 1 --out "$out/r3-without-bare" --resume

# With TRL's trainer in place of ours (no critic, 8 rollouts of each start, vLLM generates):
#   accelerate launch ... "$(command -v r3)" train paper --algo grpo --samples 8 --rollouts 256 --vllm --model "$out/sft/model" --out "$out/grpo"
