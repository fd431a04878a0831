"""Several processes that do one piece of work together, each on a device of its own."""
