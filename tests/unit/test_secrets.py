"""What looks like a secret is not recorded, and what does not is left alone."""

import pytest

from jobtrail.domain.benchmarks.secrets import holds_secret, names_secret, without_secrets


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("ALL,HF_TOKEN=abc,OMP_NUM_THREADS=2", "ALL,HF_TOKEN=(secret),OMP_NUM_THREADS=2"),
        ("--api-key=sk1 --port=8000", "--api-key=(secret) --port=8000"),
        ("curl -H 'Authorization: Bearer abc.def' x", "curl -H 'Authorization: (secret)' x"),
        ("token hf_abcdefghijklmnopqrst was refused", "token (secret) was refused"),
        ("sk-abcdefghijklmnopqrst", "(secret)"),
        ("http://ada:pw@proxy:3128/x", "http://(secret)@proxy:3128/x"),
    ],
)
def test_a_secret_is_hidden(text: str, left: str) -> None:
    assert holds_secret(text)
    assert without_secrets(text) == left


@pytest.mark.parametrize(
    "text",
    [
        "", "TOKENIZERS_PARALLELISM=false", "max_tokens=128", "http://127.0.0.1:8000/v1", "HF_TOKEN", "ttft:500",
        "hf_home", "2026-11-21T08:00:00Z", '{"a": {"b": 1}}',
    ],
)  # fmt: skip
def test_what_is_no_secret_stays(text: str) -> None:
    assert not holds_secret(text)


@pytest.mark.parametrize(
    ("name", "is_secret"),
    [("HF_TOKEN", True), ("api-key", True), ("--api-key", True), ("APIKEY", True), ("tokenizer", False)],
)
def test_names_of_secrets(name: str, is_secret: bool) -> None:
    assert names_secret(name) is is_secret
