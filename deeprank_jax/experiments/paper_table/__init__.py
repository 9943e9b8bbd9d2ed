"""Parts of the paper's table, put together by `run` for `deeprank paper-table`."""
