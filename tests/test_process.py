"""What memest changes in its process meanwhile, and puts back."""

import gc

from threadpoolctl import threadpool_info, threadpool_limits

from memest.process import on_one_core, undisturbed


def blas_threads() -> set[int]:
    import numpy  # noqa: F401 - brings its BLAS

    return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}


def test_one_core_is_shared_and_given_back() -> None:
    with threadpool_limits(2, "blas"):
        before = blas_threads()
        first, second = on_one_core(), on_one_core()
        first.__enter__()
        second.__enter__()
        assert blas_threads() == {1}
        first.__exit__(None, None, None)  # as two threads would, one after the other
        assert blas_threads() == {1}
        second.__exit__(None, None, None)
        assert blas_threads() == before


def test_garbage_collection_is_as_before() -> None:
    assert gc.isenabled()
    with undisturbed():
        with undisturbed():
            assert not gc.isenabled()
        assert not gc.isenabled()
    assert gc.isenabled()
