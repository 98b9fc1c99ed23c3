#!/usr/bin/env bash
# Refusals of LLaMA-2-7B-Chat on XSTest, OKTest and I-CoNa (2401.17633): method, baselines, sweep, analyses.
#
# The model is gated: `hf auth login` first. The data sets come from their authors' repositories; download
# OKTest.csv and OKTest_heldout.csv (GitHub InvokerStark/OverKill, no licence stated), xstest_prompts.csv
# (GitHub paul-rottger/xstest, CC-BY-4.0), I-CoNa.json (GitHub vinid/safety-tuned-llamas) and WikiQA-test.tsv
# (Microsoft Research, for research only) into one folder:
#   data=path/to/that/folder ./paper.sh
# Everything can be stopped and started again.
#
# All of these are estimated, nobody has measured them yet:
#   GPU      1 with 24 GB
#   memory   13.5 GB of weights + 0.5 MiB per token of keys and values
#   time     about 5 minutes per method, 15 for the sweep, 20 for the analyses
#
# Expected on XSTest's harmless half (second hand): safety 54 %, plain 38 %, self-cd 10 %, each +-6 points; the
# paper judged with a GPT-4 that is gone, so give two judges.
set -euo pipefail

out=${1:-runs/self-cd-paper}
data=${data:-data}

self-cd data --name oktest --from "$data/OKTest.csv"
self-cd data --name oktest-heldout --from "$data/OKTest_heldout.csv"
self-cd data --name xstest --from "$data/xstest_prompts.csv"
self-cd data --name i-cona --from "$data/I-CoNa.json"
self-cd data --name wikiqa --from "$data/WikiQA-test.tsv"

# How far this model can be moved: on questions that nothing is tested on.
self-cd calibrate paper --data oktest-heldout sample --out "$out/calibrate" --resume

# The method and its baselines. --i-know: the paper's 2.5 is run whatever the calibration says.
self-cd run paper --i-know --out "$out/self-cd" --resume
for method in safety plain prompt icl cot-zero cot-few; do
  self-cd run paper --method "$method" --out "$out/$method" --resume
done

# Strengths from 0 to 3: one reading of each question for all of them.
self-cd sweep paper --out "$out/sweep" --resume

# The shortcut from the focus word, and the perplexity of a refusal (paper, LLaMA2-7B: 83.0 without, 21.9 with
# the safety prompt; second hand).
self-cd attribute paper --out "$out/attribute" --resume

# The perturbation studies: against the raw questions, paired. Paper (mean of its models, second hand): OKTest 31.6 % raw,
# 77.1 % with a word of the question replaced; WikiQA 0 % raw, 62.5 % with a warning, 61.2 % after a harmful example.
self-cd run paper --method plain --data oktest --out "$out/raw-oktest" --resume
self-cd run paper --method plain --perturb question --data oktest --out "$out/question-oktest" --resume
self-cd run paper --method plain --data wikiqa --out "$out/raw-wikiqa" --resume
for study in instruction demonstration; do
  self-cd run paper --method plain --perturb "$study" --data wikiqa --out "$out/$study-wikiqa" --resume
done
self-cd table "$out"/raw-oktest "$out"/question-oktest
self-cd table "$out"/raw-wikiqa "$out"/instruction-wikiqa "$out"/demonstration-wikiqa

# A second judge beside the keywords, and how far the two agree.
self-cd judge "$out"/self-cd "$out"/safety "$out"/plain "$out"/prompt "$out"/icl "$out"/cot-zero "$out"/cot-few \
  --judges keyword llm --model Qwen/Qwen3-4B-Instruct-2507 --out "$out/judge" --resume

self-cd table "$out"/safety "$out"/plain "$out"/prompt "$out"/icl "$out"/cot-zero "$out"/cot-few "$out"/self-cd
