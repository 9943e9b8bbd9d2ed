"""The parts of the paper's table, which `tools.paper_table` puts together."""
