#!/usr/bin/env bash
# Passkey retrieval with LLaMA-2-7B from 4k to 128k tokens (2402.10685 v2, passkey figure).
#
# The model is gated: `hf auth login` first. Everything can be stopped and started again.
#
# All of these are estimated, nobody has measured them yet:
#   GPU      1 with 80 GB up to 64k tokens, 1 with 141 GB for 128k
#   memory   13.5 GB of weights + 0.5 MiB per token of keys and values (64 GiB at 128k)
#   time     per window about 3 hours up to 64k, and 4 hours for 128k
set -euo pipefail

out=${1:-runs/longheads-paper}

# The setting that the author says works: window 2048 (official repository, issue 3).
longheads passkey paper --lengths 4096 8192 16384 32768 65536 --out "$out/author-passkey" --resume
longheads passkey paper --lengths 131072 --out "$out/author-passkey-128k" --resume

# The defaults of the official README: window 4096.
longheads passkey official-readme --lengths 4096 8192 16384 32768 65536 --out "$out/official-readme" --resume
longheads passkey official-readme --lengths 131072 --out "$out/official-readme-128k" --resume

# What it is compared with: full attention, which the paper has at 0 beyond 4k.
longheads passkey paper --method full --lengths 4096 8192 16384 --out "$out/full" --resume

# Which heads find the key, at the end of one prompt of your own:
#   longheads trace paper --prompt-file prompt.txt --needle "..." --out runs/longheads-trace
