"""The queue and its thread: what nobody waits for is not worked on, and closing does not hang."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence

import pytest

pytest.importorskip("starlette", reason="the extra fcit[serve] is not installed")

from fcit.types import FcitError
from fcit.use.serve.batching import Batcher
from fcit.use.serve.requests import Refusal


class Slow:
    """Answers in upper case after as long as anybody wants to wait."""

    def __init__(self) -> None:
        self.stopped: list[str] = []

    def __call__(self, questions: Sequence[str], wanted: Callable[[], bool]) -> list[str]:
        while "slow" in questions[0] and wanted():
            time.sleep(0.01)
        if "bad" in questions:
            raise FcitError("bad question")
        self.stopped += questions
        return [question.upper() for question in questions]


@pytest.fixture
def slow() -> Iterator[tuple[Batcher[str, str], Slow]]:
    answer = Slow()
    batcher: Batcher[str, str] = Batcher(answer, 4, 0.0, 8)
    yield batcher, answer
    batcher.close()


def test_what_nobody_waits_for_any_more_is_given_up(slow) -> None:
    batcher, answer = slow

    async def ask() -> str:
        with pytest.raises(Refusal, match="no answer within"):
            await batcher.ask("slow", 0.1)
        return await batcher.ask("quick", 60)

    assert asyncio.run(ask()) == "QUICK"
    assert answer.stopped == ["slow", "quick"]


def test_closing_ends_what_is_being_answered_and_what_waits(slow) -> None:
    batcher, _ = slow

    async def ask() -> list[str | BaseException]:
        asked = [asyncio.create_task(batcher.ask(f"slow {at}", 60)) for at in range(6)]
        await asyncio.sleep(0.2)
        await asyncio.to_thread(batcher.close)
        return await asyncio.gather(*asked, return_exceptions=True)

    found = asyncio.run(ask())
    assert [getattr(one, "code", one) for one in found] == ["shutting_down"] * 6
    with pytest.raises(Refusal, match="shutting down"), batcher.slot():
        pass


def test_a_bad_question_is_answered_alone(slow) -> None:
    batcher, answer = slow

    async def ask() -> list[str | BaseException]:
        asked = (batcher.ask(question, 60) for question in ("one", "bad", "two"))
        return await asyncio.gather(*asked, return_exceptions=True)

    assert [str(each) for each in asyncio.run(ask())] == ["ONE", "bad question", "TWO"]
    assert sorted(answer.stopped) == ["one", "two"]


def test_generation_stops_at_the_next_token(lmm, picture) -> None:
    from fcit.models.logits import greedy
    from fcit.types import State

    lmm.receive(State(), 2.0)
    ids = lmm.tokenizer(["a long story: "], return_tensors="pt")
    inputs = {"input_ids": ids["input_ids"], "attention_mask": ids["attention_mask"]}
    left = iter([True, True, False])
    lmm.model.generation_config.eos_token_id, ends = 10**6, lmm.model.generation_config.eos_token_id
    try:
        (whole,), _ = greedy(lmm.model, lmm.tokenizer, inputs, 8)
        (cut,), _ = greedy(lmm.model, lmm.tokenizer, inputs, 8, lambda: next(left))
    finally:
        lmm.model.generation_config.eos_token_id = ends
    assert (len(whole), cut) == (8, whole[:3])


def test_the_server_keeps_nothing_and_sets_the_longest_answer(made, picture) -> None:
    import handmade
    from fcit.use.serve.answerer import Answerer
    from fcit.use.serve.requests import Question

    answerer = Answerer(made, tokens=2)
    (got,) = answerer([Question(handmade.PROMPTS[0], picture.read_bytes(), 10**9)])
    assert isinstance(got, tuple) and (got[0].tokens, got[0].ended) == (2, False)
    assert not answerer.worker.model.cache.memory and not answerer.worker.model.cache.bytes_held
    assert not answerer.worker.encoder.cache


def test_an_image_that_the_model_refuses_is_told_without_where_it_lies_here(made, picture) -> None:
    from fcit.use.serve.answerer import Answerer
    from fcit.use.serve.requests import Question

    class Refusing:
        image_token = "<image>"

        def __call__(self, **_):
            raise ValueError("too thin")

    answerer = Answerer(made)
    answerer.worker.model.images.processor = Refusing()
    with pytest.raises(FcitError, match=r"^the model takes no image of 64 x 64 pixels: too thin$"):
        answerer([Question("What?", picture.read_bytes())])
