"""The command line: each command parses, makes one API call and hands the result to one renderer."""
