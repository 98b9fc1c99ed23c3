#!/usr/bin/env bash
# LongHeads at full scale (2402.10685): LLaMA-2-7B reads 4k to 128k tokens; passkey retrieval, perplexity, LongBench,
# ablations, and the same questions to a current small model.
#
# The models are gated: `hf auth login` first. Data come from the hub and need `pip install datasets`: PG19 (a parquet copy
# of deepmind/pg19), Proof-pile and LongBench. Files of your own do as well:
#   pg19=books/ proof_pile=proofpile_test.jsonl.gz longbench=LongBench/data ./paper.sh
#   same_targets=no max_windows=100000 ./paper.sh  # every window, as the paper seems to have it: 150 times the text
#   parts="passkey perplexity" ./paper.sh          # some of: passkey perplexity longbench ablate modern
# Everything can be stopped and started again.
#
# All of these are estimated, nobody has measured them yet:
#   GPU      1 with 80 GB; 24 GB are enough for the small model. 128k tokens keep their cache on the host (80 GB of RAM)
#   memory   13.5 GB of weights + 0.5 MiB per token of keys and values (64 GiB at 128k)
#   time     passkey: per window about 3 hours up to 64k, and 4 hours for 128k; perplexity: 3 hours per row and data set
#            with 20 windows of a document; LongBench: 3 hours per row; ablations: 4 hours per window
#
# Expected: retrieval at 4k, 16k, 32k, 64k, 128k of 1.00, 0.94, 0.98, 0.96, 1.00, and 0 beyond 4k for full attention (read
# in the passkey figure). Perplexity nearly flat to 32k, where full attention is beyond 1000 (from memory).
set -euo pipefail

out=${1:-runs/longheads-paper}
pg19=${pg19:-pg19}
proof_pile=${proof_pile:-proof-pile}
longbench=${longbench:-zai-org/LongBench}
max_windows=${max_windows:-20} # of a document, evenly spread
same_targets=${same_targets:-yes} # all lengths count the very same tokens, so that they differ by length alone
parts=${parts:-passkey perplexity longbench ablate modern}
windows="paper official-readme" # 2048, which the author says works (official issue 3), and 4096, the official README's

wanted() { [[ " $parts " == *" $1 "* ]]; }

# 1. Passkey retrieval.
if wanted passkey; then
  for window in $windows; do
    longheads passkey "$window" --lengths 4096 8192 16384 32768 65536 --out "$out/passkey-$window" --resume
    longheads passkey "$window" --lengths 131072 --longheads.offload \
      --out "$out/passkey-$window-128k" --resume
  done
  longheads passkey paper --method full --lengths 4096 8192 16384 --out "$out/passkey-full" --resume
fi

# 2. Perplexity on PG19 and on documents of Proof-pile with at least 32,768 tokens, of which the first 100 are taken.
#    Documents weigh alike in `perplexity`; `by token` is what published tables mean.
perplexity() { # preset, method, name, then what differs
  local preset=$1 method=$2 name=$3 targets=--same-targets; shift 3
  if [[ $same_targets == no ]]; then targets=--no-same-targets; fi
  longheads perplexity "$preset" --method "$method" --max-windows "$max_windows" "$targets" --data "$pg19" \
    "$@" --out "$out/pg19-$name" --resume
  longheads perplexity "$preset" --method "$method" --max-windows "$max_windows" "$targets" --data "$proof_pile" \
    --limit 100 "$@" --out "$out/proof-pile-$name" --resume
}
if wanted perplexity; then
  for window in $windows; do perplexity "$window" longheads "$window"; done
  perplexity paper full full
  perplexity paper ntk ntk --factor 8
  # near text alone, as in the paper's comparison with a sliding window
  perplexity paper streaming streaming
fi

# 3. LongBench, 16 English sets. The base row, cut in the middle to 3,500 tokens, checks the harness: 31.0 on average.
if wanted longbench; then
  longheads longbench paper --method full --truncate-tok 3500 --data "$longbench" --out "$out/longbench-base" --resume
  for window in $windows; do
    longheads longbench "$window" --method longheads --data "$longbench" --out "$out/longbench-$window" --resume
  done
fi

# 4. What each part of the method is worth, at 16k tokens.
if wanted ablate; then
  for window in $windows; do longheads ablate "$window" --out "$out/ablate-$window" --resume; done
fi

# 5. A current small model at 1 to 8 times its trained length, beside everything else that needs no training.
if wanted modern; then
  for method in longheads full streaming random infllm pi ntk yarn; do
    longheads passkey modern --method "$method" --factor 8 --out "$out/modern-passkey-$method" --resume
    longheads perplexity modern --method "$method" --factor 4 --data "$pg19" --out "$out/modern-pg19-$method" --resume
  done
  longheads ablate modern --out "$out/modern-ablate" --resume
fi

# Which heads find the key, at the end of one prompt of your own:
#   longheads trace paper --prompt-file prompt.txt --needle "..." --out runs/longheads-trace
