"""The capacity planner's service: the library's questions and answers over HTTP, in one process."""
