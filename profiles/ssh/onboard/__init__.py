"""What runs on the board, and only there: standard library of Python 3.8. It is carried over, never installed."""
