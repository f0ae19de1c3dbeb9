"""Long context that is worth exporting: which method serves this model (compare), its short fine-tune (tune), its own
per-pair factors (search)."""
