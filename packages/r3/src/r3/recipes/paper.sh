#!/usr/bin/env bash
# R3 at full scale (2402.05808): Llama-2-7B on GSM8K in words and on MNLI, SNLI, RACE and BoardgameQA; tuning, plain RL,
# staged RL, R3; with programs=FILE also CodeLlama-7B on GSM8K with programs (P-CoT): GSM8K has none, ReFT's data do.
# Not here: SVAMP, of which no public release has rationales.
# BoardgameQA is the hub's mix of all variants: for main or conflict alone, prepare data/boardgame from its files first.
#
# The model is gated: `hf auth login` first. Data come from the hub (openai/gsm8k, MIT; CoT-Collection, CC BY 4.0).
#   launch="accelerate launch --config-file accelerate/fsdp.yaml" ./paper.sh   # 8 GPUs; the file lies beside this one
#   tune=lora steps=500 ./paper.sh                                    # one GPU: a check that it runs, no number to quote
#   tasks="mnli snli" ./paper.sh                                      # GSM8K, then only these
#   programs=my_programs.jsonl ./paper.sh                             # your own file: question, answer_cot, answer_value
# Everything can be stopped and started again.
#
# All of these are estimated, nobody has measured them yet:
#   GPU      8 with 80 GB for all weights; 1 with 40 GB for adapters
#   memory   7B, all weights: 16 bytes each for weights, gradients and Adam, and 4 for the reference, over all GPUs: 120 GiB
#   disk     a checkpoint has 12 bytes per weight, 80 GB; two are kept
#   time     tuning 1 hour; RL 58,000 steps of 32 rollouts (50 epochs of 5 start states): days for each arm
#
# Expected on GSM8K (second hand, except for tuning, which is from memory): tuned about 42 %, plain RL 44.7 %, R3 50.5 %.
# With programs: tuned about 64 % (from memory), plain RL 70.7 %, R3 74.2 %.
# 1,319 questions: an interval of +-2.7 points around each.
set -euo pipefail

out=${1:-runs/r3-paper}
data=${data:-data}
launch=${launch:-}
tune=${tune:-full}
steps=${steps:-58000} # of every arm on GSM8K, so that all get as many rollouts
programs=${programs:-}
tasks=${tasks-mnli snli race-high race-middle boardgame}
r3=${launch:+$launch $(command -v r3)}
r3=${r3:-r3}
sft_rate=() rl_rate=() nli_rate=()
if [ "$tune" = lora ]; then # adapters take larger rates
  sft_rate=(--learning-rate 2e-4) rl_rate=(--learning-rate 2e-5) nli_rate=(--learning-rate 2e-5 --critic-rate 5e-5)
fi

# 1. GSM8K: five start states of each rationale, at line ends. A twentieth of the questions chooses the checkpoint.
[ -f "$data/gsm8k/prepared.json" ] || r3 prepare paper --out "$data/gsm8k"
$r3 sft paper --data "$data/gsm8k" --tune "$tune" "${sft_rate[@]}" --out "$out/sft" --resume
for kind in mixed vanilla staged; do # R3, plain RL, and one depth after the other
  $r3 train paper --model "$out/sft/model" --data "$data/gsm8k" --tune "$tune" "${rl_rate[@]}" --max-steps "$steps" \
    --curriculum.kind "$kind" --out "$out/$kind" --resume
done

# Few-shot: five draws of eight demonstrations. Then each model once on the test questions, against R3's answers.
r3 eval paper --data "$data/gsm8k" --shots 8 --draws 5 --out "$out/eval-few-shot" --resume
r3 eval paper --model "$out/mixed/model" --data "$data/gsm8k" --out "$out/eval-mixed" --resume
for run in sft vanilla staged; do
  r3 eval paper --model "$out/$run/model" --data "$data/gsm8k" --against "$out/eval-mixed" --out "$out/eval-$run" --resume
done

# 2. The same for other kinds of tasks: rationales of CoT-Collection or the set's own, beta 0.3, 5 epochs for every arm.
for task in $tasks; do
  preset=paper-nli; [ "$task" != boardgame ] || preset=paper # which has rationales
  [ -f "$data/$task/prepared.json" ] || r3 prepare "$preset" --task "$task" --out "$data/$task"
  length=(); [ "${task%-*}" != race ] || length=(--max-length 1024)
  $r3 sft paper-nli --data "$data/$task" --tune "$tune" "${sft_rate[@]}" "${length[@]}" --out "$out/$task/sft" --resume
  for kind in mixed vanilla staged; do
    $r3 train paper-nli --model "$out/$task/sft/model" --data "$data/$task" --tune "$tune" "${nli_rate[@]}" "${length[@]}" \
      --curriculum.kind "$kind" --out "$out/$task/$kind" --resume
  done
  for run in sft vanilla staged mixed; do
    r3 eval paper-nli --model "$out/$task/$run/model" --data "$data/$task" --out "$out/$task/eval-$run" --resume
  done
done

# 3. GSM8K with programs, beta 0.01. Each demonstration is run when the data are prepared, and each rollout in training, in
#    the sandbox: `python -m papercore.sandbox probe` says whether this machine confines programs.
if [ -n "$programs" ]; then
  code=$data/gsm8k-pcot
  [ -f "$code/prepared.json" ] || r3 prepare paper-pcot --source "$programs" --test openai/gsm8k:main --out "$code"
  $r3 sft paper-pcot --data "$code" --tune "$tune" "${sft_rate[@]}" --out "$out/pcot/sft" --resume
  for kind in mixed vanilla staged; do
    $r3 train paper-pcot --model "$out/pcot/sft/model" --data "$code" --tune "$tune" "${rl_rate[@]}" --max-steps "$steps" \
      --curriculum.kind "$kind" --out "$out/pcot/$kind" --resume
  done
  for run in sft vanilla staged mixed; do
    r3 eval paper-pcot --model "$out/pcot/$run/model" --data "$code" --out "$out/pcot/eval-$run" --resume
  done
fi

# 4. What start states are worth, in as many steps: their number, and the pool without the bare question (in the paper
#    this hurts most); the weight of the KL penalty; the partial reward.
gsm8k() { # name, then what differs
  local name=$1; shift
  $r3 train paper --model "$out/sft/model" --data "$data/gsm8k" --tune "$tune" "${rl_rate[@]}" --max-steps "$steps" \
    "$@" --out "$out/r3-$name" --resume
}
for states in 2 3 9 all; do gsm8k "m$states" --cut.states "$states"; done
gsm8k without-bare --curriculum.weights 0 1 1 1 1
for beta in 0 0.01 0.1 0.3; do gsm8k "beta$beta" --ppo.beta "$beta"; done
for partial in 0 0.1 0.5; do gsm8k "partial$partial" --reward.partial "$partial"; done

# With TRL's trainer in place of ours (no critic, 8 rollouts of each start, vLLM generates):
#   accelerate launch ... "$(command -v r3)" train paper --algo grpo --samples 8 --rollouts 256 --vllm --model "$out/sft/model" --out "$out/grpo"
