"""The service as the embedding function of other libraries, a file for each.

None of them is imported until its file is, and raylens installs none of them.
"""
