"""The applications that every contender serves. They import nothing of any server."""
