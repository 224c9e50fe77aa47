"""The endpoint as OpenAI's own client sees it, on the mini model and on a stand-in."""

from __future__ import annotations

import base64
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import handmade

openai = pytest.importorskip("openai", reason="the extra fcit[dev] is not installed")


def client(server, key: str = "none") -> Any:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0, timeout=120)


def data_url(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()


def messages(text: str, image: Path) -> Any:
    parts = [
        {"type": "image_url", "image_url": {"url": data_url(image)}},
        {"type": "text", "text": text},
    ]
    return [{"role": "user", "content": parts}]


def test_the_model_answers_as_the_run_does_and_says_which_subspaces_did(
    real, made, picture: Path
) -> None:
    with client(real) as asking:
        (model,) = asking.models.list().data
        assert model.id == "first"
        assert asking.models.retrieve("first").id == "first"
        for prompt in handmade.PROMPTS:
            want = made.answer(picture, prompt)
            got = asking.chat.completions.create(model="first", messages=messages(prompt, picture))
            assert got.choices[0].message.content == want.text
            about = got.model_extra["fcit"]
            assert about["activation"] == pytest.approx(want.activation, abs=1e-6)
            assert about["trained_by"] == {"0": ["IconQA"], "1": ["FigureQA"]}
            assert got.usage.prompt_tokens > 36  # the image's alone
            assert got.usage.completion_tokens <= 12


def test_questions_asked_at_once_get_the_answers_they_get_alone(real, made, picture: Path) -> None:
    prompts = [f"{handmade.PROMPTS[at % 2]} {'Please. ' * at}" for at in range(8)]
    want = [made.answer(picture, prompt) for prompt in prompts]

    def ask(prompt: str):
        with client(real) as asking:
            return asking.chat.completions.create(model="first", messages=messages(prompt, picture))

    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(ask, prompts))
    assert [one.choices[0].message.content for one in got] == [one.text for one in want]
    for one, other in zip(got, want, strict=True):
        assert one.model_extra["fcit"]["activation"] == pytest.approx(other.activation, abs=1e-6)


@pytest.mark.parametrize("method", ["finetune", "hide", "l2p", "moelora", "zeroshot"])
def test_other_methods_answer_too(
    method: str, extra: None, table: dict, picture: Path, tmp_path: Path
) -> None:
    from fcit.use.serve.answerer import Answerer
    from fcit.use.serve.requests import Question

    run = handmade.run(tmp_path / "run", table, method)
    want = run.answer(picture, handmade.PROMPTS[0])
    (got,) = Answerer(run)([Question(handmade.PROMPTS[0], picture.read_bytes())])
    assert isinstance(got, tuple)
    completion, route = got
    assert (completion.text, route.activation) == (want.text, want.activation)


def test_an_answer_is_cut_at_its_own_limit_and_says_so(real, made, picture: Path) -> None:
    with client(real) as asking:
        got = [
            asking.chat.completions.create(
                model="first", messages=messages(handmade.PROMPTS[0], picture), **limit
            )
            for limit in ({"max_tokens": 1}, {"max_completion_tokens": 1}, {})
        ]
    assert [one.usage.completion_tokens for one in got[:2]] == [1, 1]
    assert [one.choices[0].finish_reason for one in got[:2]] == ["length", "length"]
    whole = got[2].choices[0].message.content
    assert whole.startswith(got[0].choices[0].message.content)


def test_a_question_longer_than_the_model_is_refused(real, picture: Path) -> None:
    with client(real) as asking, pytest.raises(openai.BadRequestError) as caught:
        asking.chat.completions.create(model="first", messages=messages("why " * 600, picture))
    assert caught.value.code == "context_length_exceeded"


def test_a_stream_ends_in_the_same_answer(parrot, picture: Path) -> None:
    with client(parrot) as asking:
        chunks = list(
            asking.chat.completions.create(
                model="parrot",
                messages=messages("how many?", picture),
                stream=True,
                stream_options={"include_usage": True},
            )
        )
    *spoken, counted = chunks
    assert "".join(one.choices[0].delta.content or "" for one in spoken) == "HOW MANY?"
    assert [one.choices[0].finish_reason for one in spoken] == [None, None, "stop"]
    assert spoken[-1].model_extra["fcit"]["activation"] == {"0": 0.75, "1": 0.25}
    assert (counted.choices, counted.usage.total_tokens) == ([], 10)


def test_requests_that_wait_are_one_batch(stand_in, picture: Path) -> None:
    with stand_in(delay=0.5, window=20.0, batch=4) as server:

        def ask(text: str) -> str:
            with client(server) as asking:
                got = asking.chat.completions.create(
                    model="parrot", messages=messages(text, picture)
                )
            return got.choices[0].message.content

        texts = [f"question {at}" for at in range(9)]
        with ThreadPoolExecutor(9) as pool:
            assert list(pool.map(ask, texts)) == [text.upper() for text in texts]
        assert sorted(text for batch in server.batches for text in batch) == texts
        assert max(map(len, server.batches)) > 1
        assert all(len(batch) <= 4 for batch in server.batches)


def test_one_bad_question_does_not_spoil_its_batch(stand_in, picture: Path) -> None:
    with stand_in(delay=0.2, window=300.0) as server:

        def ask(text: str) -> str:
            with client(server) as asking:
                try:
                    got = asking.chat.completions.create(
                        model="parrot", messages=messages(text, picture)
                    )
                except openai.InternalServerError as error:
                    return f"{error.status_code} {error.code}"
            return got.choices[0].message.content

        with ThreadPoolExecutor(3) as pool:
            got = list(pool.map(ask, ["one", "break", "two"]))
    assert got == ["ONE", "500 internal_error", "TWO"]


def test_too_many_at_once_are_told_to_come_again(stand_in, picture: Path) -> None:
    with stand_in(delay=0.4, waiting=2, batch=1) as server:

        def ask(at: int) -> str:
            with client(server) as asking:
                try:
                    asking.chat.completions.create(
                        model="parrot", messages=messages(str(at), picture)
                    )
                except openai.RateLimitError as error:
                    assert error.response.headers["retry-after"] == "1"
                    return "later"
            return "answered"

        with ThreadPoolExecutor(8) as pool:
            got = list(pool.map(ask, range(8)))
        assert got.count("answered") >= 2
        assert got.count("later") >= 1
        patient = client(server).with_options(max_retries=8)
        with patient:
            patient.chat.completions.create(model="parrot", messages=messages("x", picture))


def test_an_answer_that_takes_too_long_is_given_up(stand_in, picture: Path) -> None:
    with (
        stand_in(delay=1.0, timeout=0.2) as server,
        client(server) as asking,
        pytest.raises(openai.InternalServerError) as caught,
    ):
        asking.chat.completions.create(model="parrot", messages=messages("x", picture))
    assert (caught.value.status_code, caught.value.code) == (503, "timeout")


def test_a_key_is_asked_for_where_one_is_set(stand_in, picture: Path) -> None:
    with stand_in(key="sésame-1") as server:
        for wrong in ("none", "sesame-1", ""):
            with (
                client(server, wrong or " ") as asking,
                pytest.raises((openai.AuthenticationError, openai.APIConnectionError)) as caught,
            ):
                asking.models.list()
            if wrong:
                assert caught.value.code == "invalid_api_key"
    with stand_in(key="sesame-1") as server:
        with client(server, "sesame-1") as asking:
            got = asking.chat.completions.create(
                model="parrot", messages=messages("hello", picture)
            )
        assert got.choices[0].message.content == "HELLO"


def test_what_the_model_cannot_do_is_said(parrot, picture: Path) -> None:
    good = {"model": "parrot", "messages": messages("hello", picture)}
    with client(parrot) as asking:
        for change, kind, code in (
            ({"model": "gpt-4o"}, openai.NotFoundError, "model_not_found"),
            ({"temperature": 0.7}, openai.UnprocessableEntityError, "unsupported_value"),
            ({"n": 2}, openai.UnprocessableEntityError, "unsupported_value"),
            ({"stop": "x"}, openai.UnprocessableEntityError, "unsupported_value"),
            ({"messages": good["messages"] * 2}, openai.UnprocessableEntityError, "single_turn"),
            (
                {"messages": [{"role": "user", "content": "no image"}]},
                openai.UnprocessableEntityError,
                "one_image",
            ),
            ({"max_tokens": 0}, openai.BadRequestError, "invalid_type"),
        ):
            with pytest.raises(kind) as caught:
                asking.chat.completions.create(**(good | change))  # type: ignore[arg-type]
            assert caught.value.code == code
        fine = {"temperature": 0, "n": 1, "top_p": 0.5, "seed": 3, "user": "me"}
        got = asking.chat.completions.create(**(good | fine))  # type: ignore[arg-type]
        assert got.choices[0].message.content == "HELLO"
