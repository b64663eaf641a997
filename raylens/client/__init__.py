"""The clients: one surface (`methods`), blocking and asynchronous, over HTTP or a Ray handle.

A call walks down: `methods` cuts items into batches (`batches`), reads them (`items`), sends them
(`http`, `handle`) again where that helps (`retries`), and joins the answers.
"""
