"""The process that runs torch's steps on a processor: its resident set, from the stream of tensors to what the system shows."""
