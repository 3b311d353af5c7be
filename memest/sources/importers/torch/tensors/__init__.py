"""The tensors of a recording: their names, what is known of them, where they lie, and what a module keeps."""
