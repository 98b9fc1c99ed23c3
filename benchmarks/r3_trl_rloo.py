"""One training step of r3, rollouts, reward and update together, against a step of TRL's RLOO.

r3 trains by PPO with a critic; its `--algo rloo` is TRL's own trainer. So the two are not one
algorithm but one amount of work: the same five start states with four rollouts each, the same
number of generated tokens, the same reward of their text, one optimizer step of AdamW over
micro-batches of the same size, and a KL penalty of the same weight in the reward. What each does in
a step:

- both: draw the rollouts, all of a step at once; log-probabilities of policy and reference without
  a gradient; log-probabilities and entropies with one; clip the gradient, step;
- PPO besides: values in both passes, GAE, whitening, the loss of the critic. The value head stands
  on the policy's trunk, so that there is no further forward pass;
- RLOO besides: a leave-one-out baseline in each group. Its ratio is one of whole rollouts.

TRL runs as `r3 train --algo rloo` lets it: the same arguments, data set and tokenizer. Not in the
time are building the trainer, the folder of its reference, checkpoints and logs; and on the side of
r3 its records. Rollouts never end before their limit: the end token is one that the model cannot
draw. Where they do, or where a prefix shortens them, r3 saves more: it drops rows that have ended.

There are two Llamas: one whose output head is most of the work, as in small models with large
vocabularies, and one whose trunk is.
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
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast, PrinterCallback, TrainerCallback
from transformers import logging as transformers_logging
from transformers.trainer_callback import TrainerControl, TrainerState
from transformers.training_args import TrainingArguments
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

QUESTION_TOK, RATIONALE_TOK, STATES = 100, 100, 5
NEW_TOK, SAMPLES, MICRO_BATCH = 100, 4, 4
OURS, PEER = "r3 PPO", "TRL RLOO"
WARMUPS, READINGS = 1, 1
SPECIAL = 2
"""Tokens of the model that are no words: for unknown words, and for padding."""


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
        size = {"hidden": self.hidden, "layers": self.layers, "heads": heads}
        return tiny_llama(self.vocabulary, **size, max_positions=512)


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
    encoded: tuple[Encoded, ...]

    def curriculum(self) -> Curriculum:
        """Each step draws every demonstration once, each at another depth."""
        starts = [
            Start(depth, RATIONALE_TOK * depth // STATES, depth, depth / STATES)
            for depth in range(STATES)
        ]
        return curriculum_for(CurriculumConfig(), starts, seed=0, total_steps=1)


def main(options: Options) -> int:
    """Measure both on each model, and check that they worked on the same."""
    no_telemetry()
    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    rows: list[Row] = []
    ratios: list[Ratio] = []
    notes: list[str] = []
    for shape in QUICK if options.quick else SHAPES:
        peer, ours, tokens = _compared(_ground(shape, quick=options.quick), options)
        rows += [peer, ours]
        ratios.append(ratio(f"{shape.name}: a step, {PEER} / {OURS}", peer, ours))
        notes.append(_speed(shape, tokens, peer, ours))
    result = Result(
        "r3_trl_rloo",
        f"one step of {STATES * SAMPLES} rollouts from {STATES} even start states, prompts of "
        f"{QUESTION_TOK} to {QUESTION_TOK + RATIONALE_TOK * (STATES - 1) // STATES} tokens, "
        f"{NEW_TOK} generated tokens each: rollouts, reward and update of r3 beside those of TRL",
        tuple(rows),
        tuple(ratios),
        notes=(
            *notes,
            "peak memory is beyond weights, reference and the optimizer's moments, of one step "
            "that was begun with an empty heap",
            f"trl {metadata.version('trl')}, which scores every position on a CPU and only "
            "generated ones on a GPU",
            load_note(),
        ),
    )
    return finish(result, options)


def _ground(shape: Shape, *, quick: bool) -> Ground:
    words = [str(number) for number in range(shape.vocabulary - SPECIAL)]
    tokenizer = word_tokenizer(words, special={"unk": "<unk>", "pad": "<pad>", "eos": "<eos>"})
    assert tokenizer.eos_token_id == shape.vocabulary, "the model cannot draw it"
    random = torch.Generator().manual_seed(0)

    def tokens(count: int) -> tuple[int, ...]:
        drawn: list[int] = torch.randint(len(words), (count,), generator=random).tolist()
        return tuple(drawn)

    encoded = tuple(
        Encoded(Demo(f"demo_{index}", "", "", ""), tokens(QUESTION_TOK), tokens(RATIONALE_TOK), ())
        for index in range(STATES)
    )
    config = TrainConfig(
        dtype="float32",
        ppo=PPOConfig(epochs=1),
        rollouts=STATES * SAMPLES,
        samples=SAMPLES,
        generation_batch=STATES * SAMPLES,
        micro_batch=MICRO_BATCH,
        max_new_tokens=8 if quick else NEW_TOK,
    )
    return Ground(shape, config, tokenizer, encoded)


def _compared(ground: Ground, options: Options) -> tuple[Row, Row, Tokens]:
    """The rows of both, with memory of a reading of its own, and what a step worked on."""
    steps = WARMUPS + options.repetitions + READINGS
    with tempfile.TemporaryDirectory() as folder, quiet():
        ours, peer = Ours(ground), Peer(ground, Path(folder), steps=steps)
        with peer.training():
            ways = {PEER: peer.step, OURS: ours.step}
            found = measure(ways, options, warmups=WARMUPS)
            peaks = {label: _peak(way, options) for label, way in ways.items()}
    assert len(ours.seen) == len(peer.seen) == steps, "one count for each step"
    assert len({*ours.seen, *peer.seen}) == 1, "every step of both has the same tokens"
    before = ground.shape.model().lm_head.weight
    after = (ours.model.lm_head.weight, peer.model.lm_head.weight)
    assert not any(torch.equal(before, one) for one in after), "both have learnt"
    peer_row, our_row = (
        dataclasses.replace(
            found[label], label=f"{ground.shape.name}, {label}", peak_bytes=peaks[label]
        )
        for label in (PEER, OURS)
    )
    return peer_row, our_row, ours.seen[0]


class Ours:
    """The steps of `r3.loop`, without its records."""

    def __init__(self, ground: Ground) -> None:
        self.model = ground.shape.model()
        policy = build_policy(ground.config, self.model)
        ends = frozenset({ground.shape.vocabulary})
        setup = Setup(
            *(policy, ground.tokenizer, ground.encoded, ground.curriculum(), _reward),
            eos_ids=ends,
        )
        groups = policy.groups(lr=ground.config.learning_rate)
        optimizer = torch.optim.AdamW(groups)
        log = StepLog(None, None)
        self._step = TrainStep(setup, ground.config, policy, optimizer, log, None)
        self._beta = ground.config.ppo.beta
        self.seen: list[Tokens] = []

    def step(self) -> None:
        """One of them."""
        done = self._step.run(len(self.seen) + 1, beta=self._beta, train_policy=True)
        assert done.stats.steps == 1, "the update was made"
        prompt = sum(len(one.rollout.prompt) for one in done.judged)
        self.seen.append(Tokens(prompt, int(done.worth.experience.mask_BG.sum())))


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
        self._error: BaseException | None = None
        self._is_over = False
        self._response = self._before = 0
        self.seen: list[Tokens] = []

    @contextmanager
    def training(self) -> Iterator[None]:
        """Around the steps: begins, and ends what was begun."""
        thread = threading.Thread(target=self._train, daemon=True)
        thread.start()
        self._await()
        try:
            yield
        finally:
            self._is_over = True
            self._go.release()
            thread.join()

    def step(self) -> None:
        """One step, prompts fetched and weights changed."""
        self._go.release()
        self._await()
        all_tokens = self._trainer.state.num_input_tokens_seen
        self.seen.append(Tokens(all_tokens - self._before - self._response, self._response))
        self._before = all_tokens

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        """Optimizer and loader are there: waits for the first call."""
        self._pause(control)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        """The weights are changed: waits for the next call."""
        self._pause(control)

    def _pause(self, control: TrainerControl) -> None:
        self._done.release()
        self._go.acquire()
        if self._is_over:
            control.should_training_stop = True

    def _train(self) -> None:
        try:
            self._trainer.train()
        except BaseException as error:  # noqa: BLE001  (raised where it is waited for)
            self._error = error
        finally:
            self._done.release()

    def _await(self) -> None:
        self._done.acquire()
        if self._error is not None:
            raise self._error

    def _rewards(
        self, *, completions: Sequence[str], completion_ids: Sequence[Sequence[int]], **_: object
    ) -> list[float]:
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
    if not reset_peak_memory(options.device):
        step()
        return 0
    before = peak_memory(options.device)
    step()
    return max(0, peak_memory(options.device) - before)


def _speed(shape: Shape, tokens: Tokens, peer: Row, ours: Row) -> str:
    speeds = [tokens.response / statistics.median(row.seconds) for row in (peer, ours)]
    memory = [row.peak_bytes / 2**20 for row in (peer, ours)]
    return (
        f"{shape.name}: {tokens.response} generated tokens after {tokens.prompt} of prompts a "
        f"step in both; {speeds[0]:.0f} generated tokens/s {PEER}, {speeds[1]:.0f} {OURS}; peak "
        f"memory {memory[0]:.0f} and {memory[1]:.0f} MiB"
    )


if __name__ == "__main__":
    raise SystemExit(main(cpu_options()))
