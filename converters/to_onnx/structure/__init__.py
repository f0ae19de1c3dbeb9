"""What a finished graph computes, read back from its nodes and compared with the model's blocks.

Both become terms (terms.py): products, norms, rotations, attentions, sums, each with its numbers
and the weights that it reads, whatever operators say it. graph/ reads a graph's nodes by rules, one
an operator; an operator or attribute without a rule is a term of its own, so that nothing passes
unread. model/ makes the terms of a model's blocks. Masks, lengths and rotations are judged by what
their nodes give for chosen inputs.

ports.py: inputs, outputs, nodes without use · genai.py, config.py: the texts beside the graph ·
unexpected.py: all of it, as lines.
"""
