"""Networks of libraries that CI does not install: each was recorded and measured where the library is, and its graph is stored beside what
torch's profiler saw, so that predictions are compared anywhere."""
