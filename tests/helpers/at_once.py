"""An executor without processes."""

from concurrent.futures import Executor, Future


class AtOnce(Executor):
    """Runs each function when it is submitted, in this process."""

    def submit(self, fn, /, *args, **kwargs):
        future = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future
