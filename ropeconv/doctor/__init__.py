"""What a file's RoPE settings will be misread as, by name; run before every conversion and by
`ropeconv inspect`.

case.py: a Hugging Face folder as the checks see it · config_traps.py, length_traps.py,
config_keys.py, runtimes.py: what its files are misread as · examine.py: a source's findings, and
the refusal of those that make its meaning doubtful
"""
