"""What a checkpoint or an artefact is, what its RoPE settings do, and what can be done with it.

facts.py: numbers · methods.py: which target carries which scaling · mend.py: mended copies ·
plot.py: the spectrum · look.py: all of it · report.py: for eyes
"""
