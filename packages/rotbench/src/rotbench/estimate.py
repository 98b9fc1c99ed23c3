"""What a command will need, for `--dry-run`. No torch here, and nothing is sent."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path

from papercore.errors import DataError
from papercore.generate.spend import estimate
from rotbench.baselines import baseline_of
from rotbench.config import EvalConfig
from rotbench.evaluate import write_prompts
from rotbench.tasks import plan
from rotbench.training_estimate import expand, train

__all__ = ["evaluate", "expand", "train"]


def evaluate(config: EvalConfig) -> Mapping[str, str]:
    """Estimates of `rotbench eval`: cases, tokens, and money where there are prices."""
    try:
        tasks, _ = plan(config)
    except DataError as error:
        return {"data": str(error)}
    cells = {(task.case.key.turn, task.case.key.level) for task in tasks}
    found = {"data": f"{len(tasks):,} cases in {len(cells)} files of {config.data}"}
    if baseline_of(config.model) is not None:
        return {**found, "cost": "none: a baseline needs no model"}
    requests = [prompt.request for prompt in write_prompts(tasks, config)]
    count = _tokenizer(config.model.removeprefix("vllm:"))
    found |= estimate(requests, config.endpoint, count_tokens=count)
    if count is not None:
        found["tokenizer"] = "the model's own; marks of its chat template are not counted"
    if not config.model.startswith("openai:"):
        found["cost"] = "your own machine"
    return found


def _tokenizer(model: str) -> Callable[[str], int] | None:
    """Counts the tokens of a text, if the model is a folder that says how."""
    file = Path(model).expanduser() / "tokenizer.json"
    if not file.is_file() or find_spec("tokenizers") is None:
        return None
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(file))
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)
