"""The graph to results: keys, cache, the loop, and the execution of each kind of step."""
