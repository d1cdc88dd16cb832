"""What keeps the tests from running, in words for whoever reads the result."""


class Fault(Exception):
    """Something is wrong with the machine or the tree, not with what is tested."""
