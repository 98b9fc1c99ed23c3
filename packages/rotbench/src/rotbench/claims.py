"""What the miniature promises, declared before it runs. No torch here.

Two models come from one base: `clean_only` is tuned on tool calls in clean environments,
`rottuned` on the RoTTuning mixture, with the same number of steps. `ts` is tool selection, `pi`
parameter identification; a level pools its two halves. All numbers are shares, 0 to 1.

The paper's numbers beside ours are those of its main table (first turn): ToolLLaMA-2-7B-v2 stands
for a model tuned in clean environments, RoTLLaMA for a RoTTuned one.
"""

from papercore.claims import Bar, Claim

__all__ = ["CLAIMS"]

MAIN_TABLE = "2401.08326v3, main table, first turn"

CLAIMS: tuple[Claim, ...] = (
    Claim(
        id="clean-tuning-works-where-names-are-clean",
        statement="A model tuned in clean environments selects the right tool there.",
        source=f"{MAIN_TABLE}, ToolLLaMA-2-7B-v2, TS clean",
        paper=0.7048,
        origin="read",
        kind="control",
        planted=False,
        bars=(Bar("clean_only_ts_clean", ">=", 0.75),),
    ),
    Claim(
        id="clean-tuning-breaks-under-noise",
        statement="It loses tool selection at every level of noise.",
        source=f"{MAIN_TABLE}, ToolLLaMA-2-7B-v2, TS clean minus union",
        paper=0.2667,
        origin="read",
        kind="control",
        planted=False,
        bars=(
            Bar("clean_only_ts_clean_minus_slight", ">=", 0.15),
            Bar("clean_only_ts_clean_minus_medium", ">=", 0.15),
            Bar("clean_only_ts_clean_minus_heavy", ">=", 0.10),
            Bar("clean_only_ts_clean_minus_union", ">=", 0.30),
        ),
    ),
    Claim(
        id="rottuning-bears-noise",
        statement="RoTTuning raises tool selection, averaged over the four noisy levels.",
        source="2401.08326v3, ablation table: mean score lost without augmentation and LoRA",
        paper=0.1610,
        origin="second_hand",
        kind="effect",
        planted=False,
        bars=(Bar("rottuned_minus_clean_only_ts_noisy", ">=", 0.15),),
    ),
    Claim(
        id="rottuning-narrows-the-span",
        statement="A RoTTuned model's tool selection differs little between the five levels.",
        source=f"{MAIN_TABLE}, RoTLLaMA, span of TS",
        paper=0.1238,
        origin="second_hand",
        kind="effect",
        planted=False,
        bars=(Bar("rottuned_ts_span", "<=", 0.20),),
    ),
    Claim(
        id="rottuning-keeps-clean",
        statement="RoTTuning does not cost the clean environment.",
        source=f"{MAIN_TABLE}, RoTLLaMA, TS clean",
        paper=0.7619,
        origin="second_hand",
        kind="control",
        planted=False,
        bars=(Bar("rottuned_ts_clean", ">=", 0.70),),
    ),
    Claim(
        id="rottuning-finds-parameters",
        statement="RoTTuning raises parameter identification over the four noisy levels.",
        source="2401.08326v3, main table: the paper has no model tuned on clean data alone",
        paper=None,
        origin="unread",
        kind="effect",
        planted=False,
        bars=(Bar("rottuned_minus_clean_only_pi_noisy", ">=", 0.0, excludes_zero=True),),
    ),
    Claim(
        id="noise-correction",
        statement=(
            "Where tool names are slightly wrong, most errors of the clean-only model correct the "
            "noise: it calls a name that no tool has and that is the clean name or begins like it."
        ),
        source="2401.08326v3, analysis of noise correction by GPT models",
        paper=None,
        origin="unread",
        kind="mechanism",
        planted=True,  # four of five letters of a clean name follow from what the tool does
        bars=(
            Bar("clean_only_corrected_share_slight_tool", ">=", 0.50),
            Bar("clean_only_corrected_is_largest_slight_tool", ">=", 1.0),
        ),
    ),
)
