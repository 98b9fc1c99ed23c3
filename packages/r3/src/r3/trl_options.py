"""What of the settings of `r3 train` TRL's trainers can do, and what not. No torch here.

    otherwise = check_options(config)   # refuses what would train something else

A setting that only shapes our own PPO has nothing to act on with GRPO or RLOO: one warning names
those that were changed from their default, and the run folder keeps them. A setting that asks for
something which these trainers cannot do is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pydantic import BaseModel

from papercore.errors import ConfigError
from r3.config import TrainConfig

__all__ = ["check_options"]

_NO_CRITIC = "there is no critic"
_NOT_USED: Mapping[str, str] = {
    "ppo.value_clip": _NO_CRITIC,
    "ppo.value_coef": _NO_CRITIC,
    "ppo.lam": _NO_CRITIC,
    "ppo.whiten": "advantages are compared within the rollouts of a start",
    "critic": _NO_CRITIC,
    "critic_rate": _NO_CRITIC,
    "critic_warmup": _NO_CRITIC,
}
"""Settings of our PPO that have nothing to act on here."""


def check_options(config: TrainConfig) -> dict[str, str]:
    """Settings that are done otherwise than asked, by dotted key, and how.

    Raises:
        ConfigError: The settings ask for what the trainer cannot do.
    """
    for reason in _refusals(config):
        raise ConfigError(f"algo={config.algo}: {reason}")
    changed = {key: why for key, why in _NOT_USED.items() if _is_changed(config, key)}
    return {**changed, **_replaced(config)}


def _refusals(config: TrainConfig) -> Iterator[str]:
    curriculum, ppo = config.curriculum, config.ppo
    early = "TRL draws start states before it knows rewards: use algo=ppo"
    if curriculum.kind == "adaptive":
        yield f"curriculum.kind=adaptive needs algo=ppo: {early}"
    if curriculum.threshold is not None:
        yield f"curriculum.threshold={curriculum.threshold} needs algo=ppo: {early}, or stage_steps"
    if config.reward.truncated == "bootstrap":
        yield "reward.truncated=bootstrap needs the critic of algo=ppo: use score, zero or mask"
    if ppo.kl_target is not None:
        yield f"ppo.kl_target={ppo.kl_target} needs algo=ppo: TRL's beta is constant"
    if ppo.gamma != 1.0:
        yield f"ppo.gamma={ppo.gamma} needs algo=ppo: TRL discounts nothing"
    if config.algo == "rloo" and ppo.kl == "loss":
        yield "ppo.kl=loss: RLOO has its penalty in the reward: use reward, or algo=grpo"
    if config.algo == "rloo" and ppo.entropy_coef:
        yield f"ppo.entropy_coef={ppo.entropy_coef}: RLOO has no such bonus: use algo=grpo or ppo"
    if ppo.is_cap is not None and not (config.algo == "grpo" and config.vllm):
        yield f"ppo.is_cap={ppo.is_cap} is for rollouts of vLLM with algo=grpo: leave it out"


def _replaced(config: TrainConfig) -> dict[str, str]:
    """What both sides have, but each in its own way."""
    found: dict[str, str] = {}
    if config.algo == "grpo" and config.ppo.beta and config.ppo.kl == "reward":
        found["ppo.kl"] = "GRPO has its penalty in the loss (k3)"
    if config.algo == "rloo" and _is_changed(config, "ppo.reduction"):
        found["ppo.reduction"] = "RLOO weighs whole rollouts"
    if config.vllm:
        found["generation_batch"] = "vLLM decides how many rollouts are generated at once"
    return found


def _is_changed(config: TrainConfig, key: str) -> bool:
    """Whether a setting is not its default."""
    at: BaseModel = config
    *path, name = key.split(".")
    for part in path:
        at = getattr(at, part)
    return bool(getattr(at, name) != type(at).model_fields[name].default)
