"""One training step of r3, rollouts, reward and update together, against a step of TRL's RLOO.

r3 has no RLOO of its own: it trains by PPO with a critic, and its `--algo rloo` is TRL's trainer.
So the two are not one algorithm but one amount of work: the same start states with four rollouts
each, the same number of generated tokens, the same reward of their text, one optimizer step over
micro-batches of the same size, and a KL penalty of the same weight, in the reward. In a step,

- both draw all rollouts at once; compute log-probabilities of policy and reference without a
  gradient, then log-probabilities and entropies with one; clip it, and step by AdamW;
- PPO computes values besides, in both passes of the policy, whose trunk the value head stands on;
  GAE, whitening, the critic's loss;
- RLOO computes a leave-one-out baseline of each group besides. Its ratio is one of whole rollouts.

TRL runs as `r3 train --algo rloo` lets it: the same arguments, data set and tokenizer. Building the
trainer, folders, checkpoints and logs are not in the time, nor are r3's records. Every rollout goes
to its limit: the end token is one that the model cannot draw. One Llama has an output head that is
most of the work, as in small models with large vocabularies, and the other a trunk that is.
"""

from __future__ import annotations

import ctypes
import dataclasses
import gc
import statistics
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast, TrainerCallback, TrainerControl
from transformers.trainer_callback import PrinterCallback
from transformers.utils import logging
from trl.trainer.rloo_config import RLOOConfig
from trl.trainer.rloo_trainer import RLOOTrainer

from harness import Options, Ratio, Result, Row, finish, measure, ratio
from onelayer import cpu_options, load_note
from papercore.device import peak_memory, reset_peak_memory
from papercore.tiny import tiny_llama, word_tokenizer
from papercore.trainers import no_telemetry, quiet
from r3.config import CurriculumConfig, PPOConfig, TrainConfig
from r3.curriculum import Curriculum, curriculum_for
from r3.demos import Demo, Encoded, Start
from r3.rewards import Outcome
from r3.train_log import StepLog
from r3.train_setup import build_policy
from r3.train_step import Setup, TrainStep
from r3.trl_arguments import arguments_of
from r3.trl_rollouts import keyed, plan_starts

QUESTION_TOK, RATIONALE_TOK, STATES = 50, 50, 5
NEW_TOK, SAMPLES, MICRO_BATCH = 50, 4, 4
OURS, PEER = "r3 PPO", "TRL RLOO"


@dataclass(frozen=True)
class Shape:
    """One of the models."""

    name: str
    vocabulary: int
    hidden: int
    layers: int

    def model(self) -> LlamaForCausalLM:
        """Always of the same weights."""
        heads = self.hidden // 32
        return tiny_llama(self.vocabulary, hidden=self.hidden, layers=self.layers, heads=heads)


SHAPES = (
    Shape("head", vocabulary=16_000, hidden=256, layers=2),
    Shape("trunk", vocabulary=500, hidden=256, layers=6),
)
QUICK = (Shape("quick", vocabulary=200, hidden=32, layers=2),)


class Tokens(NamedTuple):
    """What one step worked on."""

    prompt: int
    response: int


@dataclass(frozen=True)
class Ground:
    """What both train on."""

    shape: Shape
    config: TrainConfig
    tokenizer: PreTrainedTokenizerFast
    encoded: Sequence[Encoded]

    def curriculum(self) -> Curriculum:
        """Each step draws every demonstration once, each at another depth."""
        depths = range(STATES)
        starts = [Start(at, RATIONALE_TOK * at // STATES, at, at / STATES) for at in depths]
        return curriculum_for(CurriculumConfig(), starts, seed=0, total_steps=1)


def main(options: Options) -> int:
    """Measure both on each model, and check that they worked on the same."""
    no_telemetry()
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    rows: list[Row] = []
    ratios: list[Ratio] = []
    notes: list[str] = []
    for shape in QUICK if options.quick else SHAPES:
        peer, ours, tokens = _compared(_ground(shape, quick=options.quick), options)
        rows += [peer, ours]
        ratios.append(ratio(f"{shape.name}: a step, {PEER} / {OURS}", peer, ours))
        notes.append(_speed(shape, tokens, peer, ours))
    trl = metadata.version("trl")
    result = Result(
        "r3_trl_rloo",
        f"rollouts, reward and update of one step beside those of TRL: {STATES * SAMPLES} rollouts "
        f"of {NEW_TOK} tokens from {STATES} even start states, prompts of {QUESTION_TOK} to "
        f"{QUESTION_TOK + RATIONALE_TOK * (STATES - 1) // STATES} tokens",
        tuple(rows),
        tuple(ratios),
        notes=(
            *notes,
            "peak memory is beyond weights, references and the optimizers' moments",
            f"trl {trl} scores all positions on a CPU; on a GPU only generated ones, as r3 does",
            load_note(),
        ),
    )
    return finish(result, options)


def _ground(shape: Shape, *, quick: bool) -> Ground:
    words = [str(number) for number in range(shape.vocabulary - 2)]
    tokenizer = word_tokenizer(words)  # which adds <unk>, <pad> and <eos>
    assert tokenizer.eos_token_id == shape.vocabulary, "the model cannot draw it"
    random = torch.Generator().manual_seed(0)
    size = (STATES, QUESTION_TOK + RATIONALE_TOK)
    texts: list[list[int]] = torch.randint(len(words), size, generator=random).tolist()
    demo = Demo("", "", "", "")
    encoded = [Encoded(demo, (*ids[:QUESTION_TOK],), (*ids[QUESTION_TOK:],), ()) for ids in texts]
    config = TrainConfig(
        dtype="float32",
        ppo=PPOConfig(epochs=1),
        rollouts=STATES * SAMPLES,
        samples=SAMPLES,
        micro_batch=MICRO_BATCH,
        max_new_tokens=8 if quick else NEW_TOK,
    )
    assert config.generation_batch >= config.rollouts, "all at once, as TRL does"
    return Ground(shape, config, tokenizer, encoded)


def _compared(ground: Ground, options: Options) -> tuple[Row, Row, Tokens]:
    """The rows of both, with memory of a reading of its own, and what a step worked on."""
    steps = 1 + options.repetitions + 1  # to warm up, and to read the memory
    with tempfile.TemporaryDirectory() as folder, quiet():
        ours, peer = Ours(ground), Peer(ground, Path(folder), steps=steps)
        with peer.training():
            ways = {PEER: peer.step, OURS: ours.step}
            found = measure(ways, options)
            peaks = {label: _peak(way, options) for label, way in ways.items()}
    assert len(ours.seen) == len(peer.seen) == steps, "one count for each step"
    assert len({*ours.seen, *peer.seen}) == 1, "every step of both has the same tokens"
    before = ground.shape.model().lm_head.weight
    assert not any(torch.equal(before, one.model.lm_head.weight) for one in (ours, peer))
    for label, row in found.items():
        name = f"{ground.shape.name}, {label}"
        found[label] = dataclasses.replace(row, label=name, peak_bytes=peaks[label])
    return found[PEER], found[OURS], ours.seen[0]


class Ours:
    """The steps of `r3.loop`, without its records."""

    def __init__(self, ground: Ground) -> None:
        self.model = ground.shape.model()
        config = ground.config
        policy = build_policy(config, self.model)
        setup = Setup(policy, ground.tokenizer, ground.encoded, ground.curriculum(), _reward)
        groups = policy.groups(lr=config.learning_rate, weight_decay=config.weight_decay)
        optimizer = torch.optim.AdamW(groups)
        self._step = TrainStep(setup, config, policy, optimizer, StepLog(None, None), None)
        self._beta = config.ppo.beta
        self.seen: list[Tokens] = []

    def step(self) -> None:
        """One of them."""
        done = self._step.run(len(self.seen) + 1, beta=self._beta, train_policy=True)
        assert done.stats.steps == 1, "the update was made"
        experience = done.worth.experience
        prompt = sum(len(one.prompt) for one in experience.rollouts)
        self.seen.append(Tokens(prompt, int(experience.mask_BG.sum())))


class Peer(TrainerCallback):
    """A trainer that runs in a thread of its own, and waits after each step for the next call."""

    def __init__(self, ground: Ground, folder: Path, *, steps: int) -> None:
        self.model = ground.shape.model()
        self.model.save_pretrained(str(folder / "reference"))
        self.model.config.name_or_path = str(folder / "reference")
        config = ground.config.model_copy(update={"algo": "rloo"})
        plan = plan_starts(ground.curriculum(), steps=steps, groups=STATES)
        arguments = arguments_of(config, folder, self.model, total_steps=steps)
        silent = {"logging_strategy": "no", "save_strategy": "no"}
        self._trainer = RLOOTrainer(
            self.model,
            self._rewards,
            args=RLOOConfig(**arguments | silent),
            train_dataset=plan.dataset(),
            processing_class=keyed(ground.tokenizer, plan.prompts(ground.encoded)),
            callbacks=[self],
        )
        self._trainer.remove_callback(PrinterCallback)
        self._go, self._done = threading.Semaphore(0), threading.Semaphore(0)
        self._is_over = False
        self._response = self._total = 0
        self.seen: list[Tokens] = []

    @contextmanager
    def training(self) -> Iterator[None]:
        """Around the steps."""
        threading.Thread(target=self._train, daemon=True).start()
        self._done.acquire()
        yield
        self._is_over = True
        self._go.release()
        self._done.acquire()

    def step(self) -> None:
        """One step, prompts fetched and weights changed."""
        self._go.release()
        self._done.acquire()
        state = self._trainer.state
        assert state.global_step == len(self.seen) + 1, "its thread has said what is wrong"
        total = state.num_input_tokens_seen  # prompts and responses of all steps
        self.seen.append(Tokens(total - self._total - self._response, self._response))
        self._total = total

    def on_step_end(
        self, args: object, state: object, control: TrainerControl, **_: object
    ) -> None:
        """Waits for the next call."""
        self._done.release()
        self._go.acquire()
        control.should_training_stop = self._is_over

    on_train_begin = on_step_end

    def _train(self) -> None:
        try:
            self._trainer.train()
        finally:
            self._done.release()

    def _rewards(
        self, *, completions: Sequence[str], completion_ids: Sequence[Sequence[int]], **_: object
    ) -> list[float | None]:
        self._response = sum(map(len, completion_ids))
        return [_worth(text) for text in completions]


def _reward(text: str, demo: Demo) -> Outcome:
    return Outcome(_worth(text), correct=False, parsed=None)


def _worth(text: str) -> float:
    """Share of odd numbers among the last eight words, which no prefix reaches."""
    last = text.split()[-8:]
    return sum(int(word) % 2 for word in last) / max(len(last), 1)


def _peak(step: Callable[[], None], options: Options) -> int:
    """Most memory of one step; pages that the heap kept from earlier steps are given back first."""
    gc.collect()
    if hasattr(libc := ctypes.CDLL(None), "malloc_trim"):  # glibc
        libc.malloc_trim(0)
    counted = reset_peak_memory(options.device)
    before = peak_memory(options.device)
    step()
    return max(0, peak_memory(options.device) - before) if counted else 0


def _speed(shape: Shape, tokens: Tokens, peer: Row, ours: Row) -> str:
    speeds = [tokens.response / statistics.median(row.seconds) for row in (peer, ours)]
    return (
        f"{shape.name}: {tokens.response} generated tokens after {tokens.prompt} of prompts a "
        f"step in both; {speeds[0]:.0f} generated tokens/s {PEER}, {speeds[1]:.0f} {OURS}"
    )


if __name__ == "__main__":
    raise SystemExit(main(cpu_options()))
