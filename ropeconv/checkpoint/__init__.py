"""Files in, `Model` out: recognise a checkpoint, read headers, account for every tensor."""
