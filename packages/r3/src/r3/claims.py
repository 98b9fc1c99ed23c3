"""What the miniature promises, declared before it runs. No torch here.

Metrics: `r3_greedy_60` is the share of held-out questions that the policy trained by R3 solves from
the bare question after 60 steps with the likeliest tokens, `r3_sampled_60` with drawn ones at
temperature 1. `rl` is plain RL (the bare question only), `free` the same with a KL weight of 0.01
in place of 0.05, `staged` the strict order of stages, `sft` where all of them start.

What is planted: the tuned model's favourite step is wrong, and the right one is drawn four times in
ten, so a chain of ten right steps is nearly never drawn. Nothing says where rollouts should start.
"""

from papercore.claims import Bar, Claim

__all__ = ["CLAIMS"]

GSM8K = "2402.05808, GSM8K with rationales in words, Llama2-7B"

CLAIMS: tuple[Claim, ...] = (
    Claim(
        id="tuning-alone-fails",
        statement="The tuned model hardly ever gets from the bare question to the right answer.",
        source=GSM8K,
        paper=None,
        origin="unread",
        kind="control",
        planted=True,  # its demonstrations slip at most steps
        bars=(Bar("sft_sampled_0", "<=", 0.05),),
    ),
    Claim(
        id="r3-learns",
        statement="From start states inside demonstrations the whole chain is learnt in 60 steps.",
        source=f"{GSM8K}: 0.505 there, second hand; of no number here",
        paper=None,
        origin="unread",
        kind="effect",
        planted=False,
        bars=(Bar("r3_greedy_60", ">=", 0.60), Bar("r3_sampled_60", ">=", 0.30)),
    ),
    Claim(
        id="plain-rl-starves",
        statement=(
            "RL from the bare question gets at most half as far by as many rollouts, at either of"
            " two KL weights."
        ),
        source=f"{GSM8K}: 0.447 against 0.505 there, greedy, second hand",
        paper=None,
        origin="unread",
        kind="effect",
        planted=False,
        bars=(
            Bar("rl_over_r3_sampled_60", "<=", 0.5),
            Bar("r3_minus_rl_sampled_60", ">=", 0.15, excludes_zero=True),
            # the KL weight above suits R3; plain RL gets the smaller one as well
            Bar("free_over_r3_sampled_60", "<=", 0.5),
        ),
    ),
    Claim(
        id="fewer-tokens",
        statement="R3 generates fewer tokens for the same number of rollouts: prefixes are given.",
        source="our own: (M+1)/(2M) of the full length, 0.60 at M=5, if all ran to the end",
        paper=None,
        origin="unread",
        kind="effect",
        planted=False,
        bars=(Bar("tokens_r3_over_rl", "<=", 0.75),),
    ),
    Claim(
        id="chance-from-each-depth",
        statement=(
            "A policy whose every step is right with probability p succeeds from depth k with"
            " probability p^(T-k): the largest gap over all depths."
        ),
        source="2402.05808, the argument for start states near the answer",
        paper=None,
        origin="unread",
        kind="exact",
        planted=True,  # the policy is made by hand
        bars=(Bar("tabular_gap", "<=", 0.02),),
    ),
    Claim(
        id="prefix-is-given",
        statement=(
            "No token of question or prefix gets any gradient from the loss, and generated ones do."
        ),
        source="2402.05808: the objective sums over t > k",
        paper=None,
        origin="unread",
        kind="exact",
        planted=False,
        # without the second, a step that learns nothing at all would do
        bars=(Bar("prefix_gradient", "<=", 0.0), Bar("generated_learnt", ">=", 0.9)),
    ),
)
