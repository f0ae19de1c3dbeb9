"""What a file's RoPE settings will be misread as, by name; run before every conversion and by
`ropeconv inspect`.

finding.py: what is said · config_traps.py, tokenizer.py, runtimes.py: Hugging Face folders ·
gguf_traps.py: GGUF files · examine.py: a source's findings, and the refusal of those that make its
meaning doubtful
"""
