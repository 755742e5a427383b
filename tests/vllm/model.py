"""Makes a tiny Llama of random weights with a tokenizer of its own. Run by vLLM's Python: model.py DIRECTORY.

Nothing is fetched: the tokenizer learns from the standard library's source. What the model says is nonsense; how fast
it says it is what benchmarks measure.
"""

from __future__ import annotations

import os
import sys
import sysconfig
from pathlib import Path
from typing import Any

# `vllm bench latency` asks for random tokens up to 9999, and a model without them fails on an index.
VOCABULARY = 10_240
LEARNT_TOKENS = 2_000
LONGEST_TEXT = 2_048
BEGIN, END, UNKNOWN = "<s>", "</s>", "<unk>"
CHAT = "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}assistant:"


def tokenizer() -> Any:
    """Byte pairs of Python's own source."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    learnt = Tokenizer(models.BPE())
    learnt.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    learnt.decoder = decoders.ByteLevel()
    sources = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))[:60]
    trainer = trainers.BpeTrainer(
        vocab_size=LEARNT_TOKENS,
        special_tokens=[BEGIN, END, UNKNOWN],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    learnt.train_from_iterator((path.read_text(encoding="utf-8", errors="replace") for path in sources), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=learnt,
        bos_token=BEGIN,
        eos_token=END,
        unk_token=UNKNOWN,
        model_max_length=LONGEST_TEXT,
        chat_template=CHAT,
    )


def language_model(words: Any) -> Any:
    """Two layers of 64 wide, the same weights each time."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    shape = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=LONGEST_TEXT,
        bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id,
        tie_word_embeddings=True,
    )
    return LlamaForCausalLM(shape).to(torch.bfloat16)


def main(directory: Path) -> None:
    """Write both where vLLM finds them."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    words = tokenizer()
    words.save_pretrained(directory)
    language_model(words).save_pretrained(directory)
    for file in directory.iterdir():
        file.chmod(0o644)  # jobs of other users read it, and the weights are written for their owner alone


if __name__ == "__main__":
    main(Path(sys.argv[1]))
