"""The ledger: no interleaving of requests exceeds a budget, and nothing paid for is forgotten."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from papercore.config import validate
from papercore.errors import ConfigError
from papercore.generate import ImagePart, Message, Request, SamplingParams, ToolSpec, Usage
from papercore.generate.api import OpenAIGenerator
from papercore.generate.endpoint import EndpointConfig
from papercore.generate.spend import Ledger, OverBudget, Tokens, estimate, worst_case
from papercore.testing import Answer, chat, stub_endpoint
from papercore.tiny import byte_tokenizer

LIMIT_TOK, LIMIT_USD = 1000, 0.002
COSTS = st.builds(Tokens, st.integers(0, 300), st.integers(1, 300))


def chats(count, **params):
    return [
        Request(
            id=str(i),
            messages=(Message(role="user", content="hello"),),
            params=SamplingParams(**{"max_new_tokens": 10, **params}),
        )
        for i in range(count)
    ]


class AnyInterleaving(RuleBasedStateMachine):
    """Requests are held, answered, lost and taken back in any order."""

    def __init__(self):
        super().__init__()
        self.ledger = Ledger(
            EndpointConfig(budget_tok=LIMIT_TOK, budget_usd=LIMIT_USD, price_in=1.0, price_out=4.0)
        )
        self.held, self.paid = [], Tokens()

    @rule(cost=COSTS)
    def hold(self, cost):
        try:
            if self.ledger.hold(cost):
                self.held.append(cost)
        except OverBudget:
            total = self.paid + cost
            usd = (total.prompt + 4 * total.new) / 1e6
            assert total.total > LIMIT_TOK or usd > LIMIT_USD

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def answer(self, data):
        cost = self.held.pop(data.draw(st.integers(0, len(self.held) - 1)))
        told = Tokens(data.draw(st.integers(0, cost.prompt)), data.draw(st.integers(0, cost.new)))
        usage = Usage(prompt_tokens=told.prompt, completion_tokens=told.new)
        self.ledger.settle(cost, usage)
        self.paid += told

    @precondition(lambda self: self.held)
    @rule()
    def lose(self):
        cost = self.held.pop()
        self.ledger.settle(cost, None)
        self.paid += cost

    @precondition(lambda self: self.held)
    @rule()
    def take_back(self):
        self.ledger.release(self.held.pop(0))

    @invariant()
    def within_the_budget(self):
        spend = self.ledger.spend
        assert spend.prompt_tok + spend.new_tok + spend.unknown_tok == self.paid.total
        assert self.paid.total <= LIMIT_TOK
        assert spend.usd <= LIMIT_USD + 1e-12
        assert spend.usd == pytest.approx((self.paid.prompt + 4 * self.paid.new) / 1e6)


test_no_interleaving_exceeds_the_budget = AnyInterleaving.TestCase


def test_what_is_held_by_others_may_come_free():
    ledger = Ledger(EndpointConfig(budget_tok=100))
    assert ledger.hold(Tokens(50, 40))
    assert not ledger.hold(Tokens(20, 20))
    ledger.settle(Tokens(50, 40), Usage(prompt_tokens=10, completion_tokens=10))
    assert ledger.hold(Tokens(20, 20))
    with pytest.raises(OverBudget, match="100 tokens"):
        ledger.hold(Tokens(81, 0))


def test_a_reply_above_its_worst_case_is_counted_with_a_warning(caplog):
    ledger = Ledger(EndpointConfig(budget_tok=100))
    for _ in range(2):
        assert ledger.hold(Tokens(10, 10))
        ledger.settle(Tokens(10, 10), Usage(prompt_tokens=30, completion_tokens=10))
    assert ledger.spend.prompt_tok == 60
    assert len(caplog.records) == 1


@pytest.mark.parametrize("concurrency", [1, 8])
def test_requests_beyond_the_budget_are_refused(concurrency):
    endpoint = EndpointConfig(concurrency=concurrency, budget_tok=100)
    with stub_endpoint() as stub:  # each reply costs 5 tokens, the worst case is 47
        made = OpenAIGenerator("m", stub.url, endpoint=endpoint)
        completions = made.generate(chats(30))
    kinds = [one.error_kind for one in completions]
    assert kinds.count(None) == len(stub.calls) == 11  # the 11th still had 50 free
    assert kinds.count("budget") == 19
    assert made.spend.prompt_tok + made.spend.new_tok == 55
    assert "budget of 100 tokens" in completions[-1].error


def test_money_is_counted_and_limited():
    endpoint = EndpointConfig(budget_usd=0.001, price_in=10.0, price_out=20.0, concurrency=2)
    with stub_endpoint() as stub:  # each reply costs 3 * 10 + 2 * 20 = 70 millionths
        made = OpenAIGenerator("m", stub.url, endpoint=endpoint)
        completions = made.generate(chats(30))
    paid = sum(one.error is None for one in completions)
    assert made.spend.usd == pytest.approx(paid * 70e-6)
    assert 0 < made.spend.usd <= 0.001
    assert 0 < paid < 30


def test_two_generators_may_share_a_budget():
    endpoint = EndpointConfig(budget_tok=100)
    ledger = Ledger(endpoint)
    with stub_endpoint() as stub:
        one, other = (
            OpenAIGenerator("m", stub.url, endpoint=endpoint, ledger=ledger) for _ in range(2)
        )
        assert all(made.error is None for made in one.generate(chats(6)))
        assert [made.error_kind for made in other.generate(chats(8))].count("budget") == 3


def test_lost_replies_are_charged_and_refused_ones_are_not():
    endpoint = EndpointConfig(max_retries=0, concurrency=1, give_up_after=100)
    answers = [Answer(body="{", cut_at=0), Answer(status=500), Answer(status=400), chat("x")]
    with stub_endpoint(answers) as stub:
        made = OpenAIGenerator("m", stub.url, endpoint=endpoint)
        made.generate(chats(4))
    assert (made.spend.sent, made.spend.unknown, made.spend.unknown_tok) == (4, 1, 47)


@given(st.text(max_size=60).map(lambda text: text.encode("utf-8", "ignore").decode()))
def test_the_worst_case_is_no_less_than_a_tokenizer_says(text):
    tokenizer = byte_tokenizer()
    request = Request(id="r", prompt=text, params=SamplingParams(max_new_tokens=7))
    cost = worst_case(request)
    assert cost.prompt >= len(tokenizer(text)["input_ids"])
    assert cost.new == 7
    counted = worst_case(request, lambda one: len(tokenizer(one)["input_ids"]) // 2)
    assert counted.prompt <= cost.prompt


def test_everything_that_is_sent_is_in_the_worst_case(tmp_path):
    plain = chats(1)[0]
    parts = (ImagePart(path=tmp_path / "cat.png"),)
    richer = plain.model_copy(update={"tools": (ToolSpec(name="look", description="d" * 50),)})
    pictured = plain.model_copy(update={"messages": (Message(role="user", content=parts),)})
    assert worst_case(richer).prompt > worst_case(plain).prompt + 50
    assert worst_case(pictured).prompt > 2000
    assert worst_case(Request(id="t", token_ids=(1,) * 500)).prompt >= 500


def test_an_estimate_says_what_is_known():
    endpoint = EndpointConfig(price_in=1.0, price_out=10.0)
    told = estimate(chats(1000), endpoint)
    assert told == {
        "requests": "1,000",
        "prompt characters": "5,000",
        "prompt tokens": "about 2,000",
        "new tokens": "at most 10,000",
        "cost": "at most about 0.102 USD",
    }
    assert estimate(chats(1), EndpointConfig())["cost"].startswith("unknown")
    assert estimate(chats(2), endpoint, count_tokens=len)["prompt tokens"] == "about 10"


@pytest.mark.parametrize(
    ("given", "problem"),
    [({"budget_usd": 1.0}, "needs price_in"), ({"replay": True}, "needs a cache")],
)
def test_settings_that_need_others_say_so(given, problem):
    with pytest.raises(ConfigError, match=problem):
        validate(EndpointConfig, given)
