"""TensorFlow graphs as data, and running them: for every runtime that meets such graphs.

A graph is read into scopes (:mod:`scope`): one flat list of nodes, calls of functions inlined, with
loops and branches as nodes that hold scopes of their own. Scopes are rewritten so that values
inside loops and branches come out (:mod:`accumulate`, :mod:`classic`), and compiled into a function
that returns the wanted values in one call (:mod:`compiled`).
"""
