"""The page and the explorer of the API, as a browser gets them; `api.page` serves them."""
