"""The embedded model "튜터": its corpus, its training, its committed weights."""
