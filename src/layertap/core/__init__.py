"""What all runtimes and stores share: graph, selection, plan, run. Needs NumPy only."""
