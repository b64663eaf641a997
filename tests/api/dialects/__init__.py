"""Each dialect as its clients speak it."""
