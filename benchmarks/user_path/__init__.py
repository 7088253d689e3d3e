"""What people call, beside what they would write by hand: one module for each runtime, and one for
the command line. Each has ``rows()``, whose rows :mod:`benchmarks.user_path.goals` makes.
"""
